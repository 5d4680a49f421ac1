"""The bounds and their gradients against a closed form, float64 NumPy, TFP, each other and their definitions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.catalogue import OBJECTIVES, objective_function
from models.gradients import estimate_and_gradients
from models.interface import LogWeights
from models.iwae import IWAE
from models.objectives import iwae_elbo, iwae_eq14, piwae, vae_elbo, vae_elbo_kl
from tests.oracles import LinearGaussian, numpy_log_w

SEED = tf.constant([1, 2])
SHAPES = {1: ((20,), (6,)), 2: ((20, 15), (6, 3)), 3: ((20, 15, 10), (6, 4, 3))}
ALL = [(name, {key: 2 for key in entry.hyperparameters}) for name, entry in OBJECTIVES.items()]


def small(layers):
    keras.utils.set_random_seed(layers)
    model = IWAE(*SHAPES[layers], 784)
    for variable in model.trainable_variables:
        variable.assign(variable * 1.1)
    return model


def gradients(model, objective, x, noise, beta=1.0):
    """(of q's variables, of p's variables) as the training steps take them."""
    _, _, found = estimate_and_gradients(model, objective, x, noise, beta=beta)
    of = {id(v): g.numpy() for v, g in zip(model.trainable_variables, found)}
    return [of[id(v)] for v in model.q_variables], [of[id(v)] for v in model.p_variables]


def assert_close(actual, expected, rtol=1e-4):
    """Each gradient, relative to its largest entry. log w is some hundred nats: float32 has it to 3e-5."""
    assert len(actual) == len(expected) > 0
    for a, b in zip(actual, expected):
        assert np.abs(a - b).max() < rtol * np.abs(b).max() + 1e-7


def output_of(log_px_z):
    """A model's output with these values of log w, and nothing else in it."""
    log_w = tf.constant(log_px_z, tf.float32)
    return LogWeights(log_w, (tf.zeros_like(log_w),), (tf.zeros_like(log_w),), tf.zeros_like(log_w), (), ())


def test_every_objective_of_the_command_line_is_there():
    for name, hyperparameters in ALL:
        estimate = objective_function(name, hyperparameters)(output_of(np.zeros((4, 3))))
        assert estimate.bound.shape == estimate.surrogate.shape == (3,)


def test_bounds_are_below_log_px_and_rise_with_k():
    model = LinearGaussian()
    means = []
    for k in (1, 5, 50, 500):
        bound = np.mean(
            [iwae_elbo(model(model.x, model.noise(k, 150, [k, i]))).bound.numpy().mean() for i in range(40)]
        )
        means.append(bound)
    exact = model.log_px.mean()
    assert means[0] < means[1] < means[2] < means[3] < exact + 0.002
    assert exact - means[0] > 0.1 and exact - means[3] < 0.01


def test_elbo_of_the_true_posterior_is_log_px():
    model = LinearGaussian(n_latent=1, error=0.0)  # with one latent unit the posterior is diagonal, so q is exact
    log_w = model(model.x, model.noise(4, 150, SEED)).log_w()
    np.testing.assert_allclose(log_w, np.broadcast_to(model.log_px, (4, 150)), atol=1e-4)


@pytest.mark.parametrize("layers", [1, 2])
def test_iwae_with_one_sample_is_the_elbo(layers, binary_images):
    """In value and gradient, and so is every objective that says so of itself."""
    model = small(layers)
    noise = model.noise(1, 6, SEED)
    elbo, expected = vae_elbo(model(binary_images, noise)).bound, gradients(model, vae_elbo, binary_images, noise)
    for name, hyperparameters in ALL:
        objective = objective_function(name, {key: 1 for key in hyperparameters})
        if OBJECTIVES[name].elbo_at_one:
            np.testing.assert_allclose(objective(model(binary_images, noise)).bound, elbo, atol=1e-5)
            for a, b in zip(gradients(model, objective, binary_images, noise), expected):
                assert_close(a, b)
    assert {name for name, entry in OBJECTIVES.items() if entry.elbo_at_one} >= {"iwae_elbo", "vae_elbo", "iwae_eq14"}


def test_log_of_the_mean_is_not_the_mean_of_logs():
    output = output_of([[0.0], [-2.0]])
    np.testing.assert_allclose(vae_elbo(output).bound, [-1.0])
    np.testing.assert_allclose(iwae_elbo(output).bound, [np.log((1 + np.exp(-2)) / 2)], rtol=1e-6)


@pytest.mark.parametrize("shift", [-5000.0, 5000.0])
@pytest.mark.parametrize(("name", "hyperparameters"), ALL)
def test_no_objective_overflows_or_underflows(name, hyperparameters, shift):
    log_w = np.array([[0.0], [1.0], [2.0], [-400.0]])
    for value in objective_function(name, hyperparameters)(output_of(shift + log_w)):
        assert value is None or np.isfinite(value).all()
    expected = shift + np.log(np.mean(np.exp(log_w)))
    np.testing.assert_allclose(iwae_elbo(output_of(shift + log_w)).bound, [expected], rtol=1e-6)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_eq14_has_the_gradient_of_iwae_elbo(layers, beta, binary_images):
    model = small(layers)
    noise = model.noise(8, 6, SEED)
    for a, b in zip(*(gradients(model, f, binary_images, noise, beta) for f in (iwae_eq14, iwae_elbo))):
        assert_close(a, b)


def bound_of(log_w, groups=1):
    """(1/M) sum_m log (M/k) sum_{i in m} w_i, float64, the mean over images; log_w [n_samples, batch]."""
    parts = np.split(log_w, groups)
    return np.mean([np.logaddexp.reduce(part, axis=0) - np.log(len(part)) for part in parts])


DEFINITIONS = {  # what q and what p follow, of float64 log w
    "vae_elbo": (vae_elbo, np.mean, np.mean),
    "iwae_elbo": (iwae_elbo, bound_of, bound_of),
    "piwae": (
        lambda output, beta: piwae(output, beta, groups=2), lambda log_w: bound_of(log_w, groups=2), bound_of
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("layers", [1, 2])
def test_gradients_agree_with_finite_differences_in_float64(name, layers, binary_images):
    """Along random directions through all the weights of q, and of p, by the paper's formulas alone."""
    objective, *definitions = DEFINITIONS[name]
    model = small(layers)
    noise = model.noise(4, 6, SEED)
    exact = gradients(model, objective, binary_images, noise)
    rng = np.random.default_rng(0)
    for variables, gradient, value in zip((model.q_variables, model.p_variables), exact, definitions):
        start = [v.numpy() for v in variables]
        for _ in range(3):
            direction = [rng.normal(size=w.shape) / np.sqrt(w.size) for w in start]

            def at(step, variables=variables, start=start, direction=direction, value=value):
                for variable, weight, way in zip(variables, start, direction):
                    variable.assign(weight + step * way)
                return value(numpy_log_w(model, binary_images, noise))

            h = 0.004  # of a formula of fourth order
            numeric = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
            at(0.0)
            assert numeric == pytest.approx(sum(np.sum(g * d) for g, d in zip(gradient, direction)), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("layers", [1, 2])
def test_piwae_s_limits(layers, binary_images):
    """M = 1: IWAE. M = k: q follows the ELBO. Between them q's gradient is another, and p's is IWAE's always."""
    model = small(layers)
    noise = model.noise(6, 6, SEED)

    def by(objective, **hyperparameters):
        bound = lambda output, beta: objective(output, beta, **hyperparameters)  # noqa: E731
        return gradients(model, bound, binary_images, noise, 0.6)

    (iwae_q, iwae_p), (elbo_q, _) = by(iwae_elbo), by(vae_elbo)
    for groups, expected in ((1, iwae_q), (6, elbo_q)):
        q, p = by(piwae, groups=groups)
        assert_close(q, expected)
        assert_close(p, iwae_p)
    between, _ = by(piwae, groups=3)
    assert all(np.abs(between[0] - other[0]).max() > 1e-2 * np.abs(between[0]).max() for other in (iwae_q, elbo_q))


@pytest.mark.parametrize("layers", [1, 2])
def test_analytic_kl_agrees_with_the_sampled_one_in_expectation(layers, binary_images):
    model = small(layers)
    output = model(binary_images, model.noise(20000, 6, SEED))
    difference = (output.kl - (output.log_qz_x - output.log_pz)).numpy().mean(axis=1)  # over images: paired samples
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(len(difference))
    assert difference.std() > 0.1  # the two are not the same thing
    np.testing.assert_allclose(vae_elbo_kl(output).bound, vae_elbo(output).bound, atol=0.2)


def test_analytic_kl_is_that_of_closed_form():
    model = small(1)
    x = np.ones((2, 784), np.float32)
    output = model(x, model.noise(3, 2, SEED))
    q = model.encoder[0](x).distribution
    mean, std = q.loc.numpy(), q.scale.numpy()
    expected = np.sum(0.5 * (mean**2 + std**2 - 1) - np.log(std), axis=-1)
    np.testing.assert_allclose(output.kl, np.broadcast_to(expected, (3, 2)), rtol=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("name", "hyperparameters"), ALL)
def test_beta_weighs_the_prior_and_posterior_terms_of_what_is_followed(name, hyperparameters, layers, binary_images):
    model, objective = small(layers), objective_function(name, hyperparameters)
    output = model(binary_images, model.noise(4, 6, SEED))
    weighed, full = objective(output, 0.5), objective(output)
    np.testing.assert_array_equal(weighed.bound, full.bound)  # what is reported has beta 1
    assert not np.allclose(weighed.surrogate, full.surrogate)
    assert full.q_surrogate is None or not np.allclose(weighed.q_surrogate, full.q_surrogate)
    assert full.z_weights is None or not np.allclose(weighed.z_weights, full.z_weights)


def test_beta_s_definition(binary_images):
    model = small(2)
    output = model(binary_images, model.noise(4, 6, SEED))
    for objective in (vae_elbo, vae_elbo_kl):
        np.testing.assert_allclose(objective(output, 0.0).surrogate, tf.reduce_mean(output.log_px_z, axis=0), rtol=1e-6)
    expected = output.log_px_z + 0.5 * (output.log_pz - output.log_qz_x)
    np.testing.assert_allclose(vae_elbo(output, 0.5).surrogate, tf.reduce_mean(expected, axis=0), rtol=1e-6)
