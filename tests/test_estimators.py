"""The estimators of later papers against their definitions in float64 NumPy, their limits, and each other."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.polynomial.hermite_e import hermegauss

from models.catalogue import OBJECTIVES, objective_function
from models.gradients import estimate_and_gradients
from models.iwae import IWAE
from models.objectives import dreg, iwae_elbo, stl, vae_elbo
from tests.oracles import numpy_densities, numpy_log_w, numpy_samples
from tests.test_gradients import copy_of
from tests.test_objectives import SEED, assert_close, assert_derivative, gradients, output_of, small

K, BETA = 6, 0.6


def log_mean(log_w):
    return np.logaddexp.reduce(log_w, axis=0) - np.log(len(log_w))


def weights(log_w):
    return np.exp(log_w - np.logaddexp.reduce(log_w, axis=0))


def groups_of_two(log_w):
    return (log_mean(log_w[0:2]) + log_mean(log_w[2:4]) + log_mean(log_w[4:6])) / 3


def jackknife(log_w):
    without_each = [log_mean(np.delete(log_w, i, axis=0)) for i in range(K)]
    return K * log_mean(log_w) - (K - 1) * np.mean(without_each, axis=0)


def jackknife_weights(log_w, power):
    """What `jvi` (power 1) and its doubly reparameterised gradient (power 2) multiply grad log w_i by."""
    without_each = [np.insert(weights(np.delete(log_w, i, axis=0)) ** power, i, 0, axis=0) for i in range(K)]
    return K * weights(log_w) ** power - (K - 1) * np.mean(without_each, axis=0)


BOUNDS = {  # name: (hyperparameters, the bound of float64 log w [n_samples, batch])
    "miwae": ({"groups": 3}, groups_of_two),
    "piwae": ({"groups": 3}, log_mean),
    "ciwae": ({"elbo_weight": 0.3}, lambda log_w: 0.3 * np.mean(log_w, axis=0) + 0.7 * log_mean(log_w)),
    "vr_iwae": ({"alpha": 0.6}, lambda log_w: log_mean(0.4 * log_w) / 0.4),
    "vr_iwae_dreg": ({"alpha": 0.4}, lambda log_w: log_mean(0.6 * log_w) / 0.6),
    "rws": ({}, log_mean),
    "rws_dreg": ({}, log_mean),
    "jvi": ({}, jackknife),
    "jvi_dreg": ({}, jackknife),
}


def vr_iwae_dreg_weights(log_w):
    w = weights(0.6 * log_w)
    return w * (1 - BETA * 0.6 * (1 - w))


# what q follows where it is not the bound's derivative: sum_i c_i log w_i through the samples alone, with these c_i
THROUGH_SAMPLES = {
    "vr_iwae_dreg": vr_iwae_dreg_weights,
    "rws_dreg": lambda log_w: weights(log_w) - weights(log_w) ** 2,
    "jvi_dreg": lambda log_w: (1 - BETA) * jackknife_weights(log_w, 1) + BETA * jackknife_weights(log_w, 2),
}


def followed_by_q(name, model, x, noise):
    """() -> the float64 number whose derivative by the model's q variables is what q follows, with beta."""
    fixed = copy_of(model)  # what is held constant
    z = numpy_samples(fixed, x, noise)
    log_w = numpy_log_w(fixed, x, noise, BETA)

    def through_samples():
        log_px_z, log_pz, log_qz_x = numpy_densities(fixed, x, numpy_samples(model, x, noise))
        return np.mean(np.sum(THROUGH_SAMPLES[name](log_w) * (log_px_z + BETA * (log_pz - log_qz_x)), axis=0))

    def wake_phi():
        return np.mean(np.sum(weights(log_w) * numpy_densities(model, x, z)[2], axis=0))

    def of_the_bound():
        bound = groups_of_two if name == "piwae" else BOUNDS[name][1]
        return np.mean(bound(numpy_log_w(model, x, noise, BETA)))

    return through_samples if name in THROUGH_SAMPLES else wake_phi if name == "rws" else of_the_bound


@pytest.mark.parametrize(
    ("layers", "name"), [*((n, name) for n in (1, 2) for name in BOUNDS), (3, "jvi_dreg"), (3, "rws")]
)
def test_bounds_and_gradients_are_their_definitions_in_float64(layers, name, binary_images):
    """With beta: the values, and the gradients of q and of p by finite differences."""
    binary_images = binary_images[:5]  # not as many as samples
    model, (hyperparameters, bound) = small(layers), BOUNDS[name]
    noise, objective = model.noise(K, 5, SEED), objective_function(name, hyperparameters)
    estimate = objective(model(binary_images, noise), BETA)
    np.testing.assert_allclose(estimate.bound, bound(numpy_log_w(model, binary_images, noise)), rtol=1e-5)
    q, p = gradients(model, objective, binary_images, noise, BETA)
    assert_derivative(followed_by_q(name, model, binary_images, noise), model.q_variables, q, n_directions=2)

    def of_p():
        return np.mean(bound(numpy_log_w(model, binary_images, noise, BETA)))

    assert_derivative(of_p, model.p_variables, p, n_directions=2)


@pytest.mark.parametrize(("layers", "beta"), [(n, beta) for n in (1, 2) for beta in (BETA, 0.0, 1.0)])
def test_limits_are_the_objectives_that_they_become(layers, beta, binary_images):
    """In what q and p follow and in what is reported."""
    model = small(layers)
    noise = model.noise(K, 6, SEED)

    def by(objective):
        bound = objective(model(binary_images, noise), beta).bound.numpy()
        return *gradients(model, objective, binary_images, noise, beta), [bound]

    def named(name, **hyperparameters):
        return by(objective_function(name, hyperparameters))

    def elbo_through_samples(output, beta):
        return vae_elbo(output, beta)._replace(score=False)

    iwae, elbo = by(iwae_elbo), by(vae_elbo)
    without_q = [  # where log w does not depend on q but through the samples
        (by(dreg), iwae),
        (named("vr_iwae_dreg", alpha=0.5), named("vr_iwae", alpha=0.5)),
        (named("jvi_dreg"), named("jvi")),
    ]
    for found, expected in [
        *(without_q if beta == 0 else ()),
        (named("miwae", groups=1), iwae),
        (named("miwae", groups=K), elbo),
        (named("miwae", groups=4 * K), elbo),  # fewer samples than groups: each is one
        (named("piwae", groups=1), iwae),
        (named("piwae", groups=K), (elbo[0], *iwae[1:])),
        (named("ciwae", elbo_weight=0), iwae),
        (named("ciwae", elbo_weight=1), elbo),
        (named("vr_iwae", alpha=0), iwae),
        (named("vr_iwae", alpha=0.5 - 1e-6), named("vr_iwae", alpha=0.5)),
        (named("vr_iwae", alpha=1 - 1e-6), elbo),
        (named("vr_iwae_dreg", alpha=0), by(dreg)),
        (named("vr_iwae_dreg", alpha=1 - 1e-6), by(elbo_through_samples)),
        (named("rws"), (None, *iwae[1:])),
        (named("rws_dreg"), (None, *iwae[1:])),
    ]:
        for a, b in zip(found, expected, strict=True):
            if b is not None:
                assert_close(a, b, rtol=3e-4)
    if not beta:  # log p(x|z) alone differs little between samples
        return
    for between in (named("miwae", groups=3), named("ciwae", elbo_weight=0.5), named("vr_iwae", alpha=0.5)):
        for one, *others in zip(between[:2], iwae, elbo):  # the gradients
            assert all(np.abs(one[0] - other[0]).max() > 1e-2 * np.abs(one[0]).max() for other in others)


def test_vr_iwae_loses_no_digits_near_alpha_one_or_zero():
    log_w = np.random.default_rng(0).normal(-90, 5, (K, 50))
    bound = objective_function("vr_iwae", {"alpha": 1 - 1e-6})(output_of(log_w)).bound
    np.testing.assert_allclose(bound, log_w.mean(axis=0), atol=1e-3)
    log_w = np.random.default_rng(0).normal(0, 5, (5000, 50)).astype(np.float32)
    bound = objective_function("vr_iwae", {"alpha": 0.01})(output_of(log_w)).bound
    np.testing.assert_allclose(bound, log_mean(0.99 * log_w.astype(np.float64)) / 0.99, atol=3e-5)


def test_the_jackknife_takes_off_the_bias_of_order_one_over_k():
    """For w uniform in (0, 1), log E[w] = -log 2 is known: JVI is nearer to it than L_k."""
    w = np.random.default_rng(0).uniform(size=(K, 200000))
    output = output_of(np.log(w))
    bounds = [objective_function(name, {})(output).bound.numpy().mean() + np.log(2) for name in ("jvi", "iwae_elbo")]
    assert abs(bounds[0]) < 0.25 * abs(bounds[1]) and bounds[1] < -0.02


def every_noise(model, k, n_nodes):
    """Noise that takes an expectation: (noise, as many images, the weight of each, adding up to 1), by Gauss and
    Hermite's nodes for each of the k samples of each layer, whose width is 1.
    """
    nodes, node_weights = hermegauss(n_nodes)
    dimensions = k * len(model.n_latent)
    grid = np.stack(np.meshgrid(*[nodes] * dimensions), axis=-1).reshape(-1, dimensions)  # [images, k * layers]
    weight = np.stack(np.meshgrid(*[node_weights] * dimensions), axis=-1).reshape(-1, dimensions).prod(axis=-1)
    noise = np.moveaxis(grid.reshape(-1, len(model.n_latent), k), 0, 2)[..., np.newaxis]  # [layers, k, images, 1]
    return tuple(noise.astype(np.float32)), len(grid), (weight / weight.sum()).astype(np.float32)


# (the plain estimator, the doubly reparameterised one, their hyperparameters)
PAIRS = [
    ("iwae_elbo", "dreg", {}),
    ("vr_iwae", "vr_iwae_dreg", {"alpha": 0.4}),
    ("rws", "rws_dreg", {}),
    ("jvi", "jvi_dreg", {}),
]


@pytest.mark.parametrize(
    ("layers", "beta", "k", "n_nodes", "size"), [(1, 1.0, 3, 20, 0.6), (1, 0.4, 2, 20, 0.6), (2, 0.4, 2, 8, 0.4)]
)
def test_doubly_reparameterised_gradients_have_the_same_expectation(layers, beta, k, n_nodes, size):
    """q's gradient, its expectation taken by quadrature: no chance is in it. STL's expectation is another."""
    keras.utils.set_random_seed(1)
    model = IWAE((3,) * layers, (1,) * layers, 4)
    for variable in model.trainable_variables:  # log w is smooth enough for so few nodes
        variable.assign(size * variable)
    noise, n, weight = every_noise(model, k, n_nodes)
    x = np.tile(np.array([[0, 1, 1, 0]], np.float32), (n, 1))

    def expectation(objective):
        def weighted(output, beta):
            estimate = objective(output, beta)
            q_surrogate = estimate.surrogate if estimate.q_surrogate is None else estimate.q_surrogate
            return estimate._replace(surrogate=n * weight * estimate.surrogate, q_surrogate=n * weight * q_surrogate)

        return np.concatenate([g.ravel() for g in gradients(model, weighted, x, noise, beta)[0]])

    for plain, doubly, hyperparameters in PAIRS:
        one, other = (expectation(objective_function(name, hyperparameters)) for name in (plain, doubly))
        assert np.linalg.norm(one - other) < 1e-3 * np.linalg.norm(one), (plain, doubly)
        if plain == "iwae_elbo":  # the test can tell
            assert np.linalg.norm(expectation(stl) - one) > 0.2 * np.linalg.norm(one)


def test_compiled_gradients_are_the_same(binary_images):
    model, objectives = small(1), [objective_function(name, {}) for name in ("rws", "jvi_dreg")]
    noise = model.noise(K, 6, SEED)

    def found():
        return [estimate_and_gradients(model, objective, binary_images, noise)[2] for objective in objectives]

    for compiled, eager in zip(tf.function(found, jit_compile=True)(), found()):
        assert_close([g.numpy() for g in compiled], [g.numpy() for g in eager], rtol=3e-4)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_numbers_that_are_not_given_are_those_of_the_command_line(name):
    parameters = inspect.signature(objective_function(name, {}).func).parameters
    defaults = {key: number.default for key, number in OBJECTIVES[name].hyperparameters.items()}
    assert {key: one.default for key, one in parameters.items() if key != "output"} == {"beta": 1.0, **defaults}
