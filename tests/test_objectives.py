"""The bounds and their gradients against a closed form, float64 NumPy, TFP, each other and their definitions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.catalogue import OBJECTIVES, objective_function
from models.gradients import estimate_and_gradients
from models.interface import LogWeights
from models.iwae import IWAE
from models.objectives import iwae_elbo, iwae_eq14, vae_elbo, vae_elbo_kl
from tests.oracles import LinearGaussian, numpy_log_w

SEED = tf.constant([1, 2])
SHAPES = {1: ((20,), (6,)), 2: ((20, 15), (6, 3)), 3: ((20, 15, 10), (6, 4, 3))}
NUMBERS = {"groups": 2, "elbo_weight": 0.3, "alpha": 0.4}
ALL = [
    (name, {key: NUMBERS.get(key, one.default) for key, one in entry.hyperparameters.items()})
    for name, entry in OBJECTIVES.items()
]


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
    elbo = vae_elbo(model(binary_images, noise)).bound
    for name, hyperparameters in ALL:
        objective = objective_function(name, hyperparameters)
        for beta in (0.7, 1.0) if OBJECTIVES[name].elbo_at_one else ():
            np.testing.assert_allclose(objective(model(binary_images, noise), beta).bound, elbo, atol=1e-5)
            expected = gradients(model, vae_elbo, binary_images, noise, beta)
            for a, b in zip(gradients(model, objective, binary_images, noise, beta), expected):
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


def numpy_bound(log_w):
    """log (1/k) sum_i w_i, float64, the mean over images; log_w [n_samples, batch]."""
    return np.mean(np.logaddexp.reduce(log_w, axis=0) - np.log(len(log_w)))


def numeric_derivative(value, variables, direction, h=0.004):
    """d value() / d variables along a direction, by a formula of fourth order."""
    start = [v.numpy() for v in variables]

    def at(step):
        for variable, weight, way in zip(variables, start, direction):
            variable.assign(weight + step * way)
        return value()

    slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    at(0.0)
    return slope


def assert_derivative(value, variables, gradient, n_directions=3):
    """`gradient` is that of value(), a float64 number, along random directions through all of the variables."""
    rng = np.random.default_rng(0)
    for _ in range(n_directions):
        direction = [rng.normal(size=v.shape) / np.sqrt(np.prod(v.shape)) for v in variables]
        expected = sum(np.sum(g * d) for g, d in zip(gradient, direction))
        assert numeric_derivative(value, variables, direction) == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(("objective", "definition"), [(vae_elbo, np.mean), (iwae_elbo, numpy_bound)])
@pytest.mark.parametrize("layers", [1, 2])
def test_gradients_agree_with_finite_differences_in_float64(objective, definition, layers, binary_images):
    """Of the weights of q, and of p, by the paper's formulas alone."""
    model = small(layers)
    noise = model.noise(4, 6, SEED)
    for variables, gradient in zip(
        (model.q_variables, model.p_variables), gradients(model, objective, binary_images, noise)
    ):
        assert_derivative(lambda: definition(numpy_log_w(model, binary_images, noise)), variables, gradient)


@pytest.mark.parametrize("layers", [1, 2, 3])
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
