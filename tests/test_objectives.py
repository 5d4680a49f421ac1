"""The bounds against a closed form, each other and finite differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from config import OBJECTIVES as FLAG_OBJECTIVES

from models import BOUNDS, IWAE, OBJECTIVES, IWAEOutput
from models.fused import GradientPort
from models.objectives import dreg, iwae_elbo, iwae_eq14, stl, vae_elbo, vae_elbo_kl
from tests.oracles import LinearGaussian

SEED = tf.constant([1, 2])
SHAPES = {1: ((20,), (6,)), 2: ((20, 15), (6, 3))}


def small(layers):
    keras.utils.set_random_seed(layers)
    model = IWAE(*SHAPES[layers])
    for variable in model.trainable_variables:
        variable.assign(variable * 1.1)
    return model


def gradients(model, objective, x, noise, beta=1.0):
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(objective(model(x, noise), beta))
    return tape.gradient(value, model.trainable_variables)


def test_the_flag_offers_what_there_is():
    assert set(FLAG_OBJECTIVES) == set(OBJECTIVES) == set(BOUNDS)


def test_bounds_are_below_log_px_and_rise_with_k():
    model = LinearGaussian()
    means = []
    for k in (1, 5, 50, 500):
        bound = np.mean([iwae_elbo(model(model.x, model.noise(k, 150, [k, i]))).numpy().mean() for i in range(40)])
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
    model = small(layers)
    output = model(binary_images, model.noise(1, 6, SEED))
    np.testing.assert_allclose(iwae_elbo(output), vae_elbo(output), atol=1e-5)


def test_log_of_the_mean_is_not_the_mean_of_logs():
    zero = tf.zeros([2, 1])
    output = IWAEOutput(tf.constant([[0.0], [-2.0]]), zero, zero, zero, zero, (), GradientPort())
    np.testing.assert_allclose(vae_elbo(output), [-1.0])
    np.testing.assert_allclose(iwae_elbo(output), [np.log((1 + np.exp(-2)) / 2)], rtol=1e-6)


@pytest.mark.parametrize("shift", [-5000.0, 5000.0])
def test_iwae_elbo_neither_overflows_nor_underflows(shift):
    zero = tf.zeros([3, 1])
    output = IWAEOutput(shift + tf.constant([[0.0], [1.0], [2.0]]), zero, zero, zero, zero, (), GradientPort())
    np.testing.assert_allclose(iwae_elbo(output), [shift + np.log(np.mean(np.exp([0, 1, 2])))], rtol=1e-6)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_eq14_has_the_gradient_of_iwae_elbo(layers, beta, binary_images):
    model = small(layers)
    noise = model.noise(8, 6, SEED)
    for a, b in zip(
        gradients(model, iwae_eq14, binary_images, noise, beta), gradients(model, iwae_elbo, binary_images, noise, beta)
    ):
        assert np.abs(a - b).max() < 1e-4 * np.abs(b).max() + 1e-7


@pytest.mark.parametrize("objective", [vae_elbo, vae_elbo_kl, iwae_elbo], ids=lambda f: f.__name__)
@pytest.mark.parametrize("layers", [1, 2])
def test_gradients_agree_with_finite_differences(objective, layers, binary_images):
    """Along random directions through all the weights at once."""
    model = small(layers)
    noise = model.noise(4, 6, SEED)
    exact = gradients(model, objective, binary_images, noise)
    start = [v.numpy() for v in model.trainable_variables]
    rng = np.random.default_rng(0)
    for _ in range(3):
        direction = [rng.normal(size=w.shape) / np.sqrt(w.size) for w in start]

        def value(step, direction=direction):
            for variable, weight, way in zip(model.trainable_variables, start, direction):
                variable.assign(weight + step * way)
            return np.mean(objective(model(binary_images, noise)).numpy(), dtype=np.float64)

        numeric = (value(0.01) - value(-0.01)) / 0.02
        assert numeric == pytest.approx(sum(np.sum(g * d) for g, d in zip(exact, direction)), rel=0.01, abs=0.02)


@pytest.mark.parametrize("layers", [1, 2])
def test_analytic_kl_agrees_with_the_sampled_one_in_expectation(layers, binary_images):
    model = small(layers)
    output = model(binary_images, model.noise(20000, 6, SEED))
    difference = (output.kl - (output.log_qz_x - output.log_pz)).numpy().mean(axis=1)  # over images: paired samples
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(len(difference))
    assert difference.std() > 0.1  # the two are not the same thing
    np.testing.assert_allclose(vae_elbo_kl(output), vae_elbo(output), atol=0.2)


def test_analytic_kl_is_that_of_closed_form():
    model = small(1)
    x = np.ones((2, 784), np.float32)
    output = model(x, model.noise(3, 2, SEED))
    q = model.encoder[0](x).distribution
    mean, std = q.loc.numpy(), q.scale.numpy()
    expected = np.sum(0.5 * (mean**2 + std**2 - 1) - np.log(std), axis=-1)
    np.testing.assert_allclose(output.kl, np.broadcast_to(expected, (3, 2)), rtol=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
def test_beta_weighs_the_prior_and_posterior_terms_in_every_objective(layers, binary_images):
    model = small(layers)
    output = model(binary_images, model.noise(4, 6, SEED))
    for name, objective in OBJECTIVES.items():
        assert not np.allclose(objective(output, 0.5), objective(output)), name
    np.testing.assert_allclose(vae_elbo(output, 0.0), tf.reduce_mean(output.log_px_z, axis=0), rtol=1e-6)
    np.testing.assert_allclose(vae_elbo_kl(output, 0.0), tf.reduce_mean(output.log_px_z, axis=0), rtol=1e-6)
    expected = output.log_px_z + 0.5 * (output.log_pz - output.log_qz_x)
    np.testing.assert_allclose(vae_elbo(output, 0.5), tf.reduce_mean(expected, axis=0), rtol=1e-6)


def encoder_and_decoder(model, gradients_):
    """Splits a list of gradients as the model's variables are split; no gradient counts as zero."""
    zeros = [np.zeros(v.shape, np.float32) if g is None else g.numpy() for v, g in zip(model.variables, gradients_)]
    encoder = {id(v) for block in model.encoder for v in block.variables}
    parts = ([g for v, g in zip(model.variables, zeros) if (id(v) in encoder) == inside] for inside in (True, False))
    return tuple(parts)


@pytest.mark.parametrize("layers", [1, 2])
def test_stopped_density_of_q_has_its_value_and_only_the_path_s_gradient(layers, binary_images):
    model = small(layers)
    noise = model.noise(3, 6, SEED)
    with tf.GradientTape(persistent=True) as tape:
        output = model(binary_images, noise)
        difference = tf.reduce_sum(output.log_qz_x - output.log_qz_x_path)
    np.testing.assert_allclose(output.log_qz_x, output.log_qz_x_path, rtol=1e-5)
    # what the path's gradient leaves out is the score, whose expectation is zero: it is not zero for one draw
    encoder, decoder = encoder_and_decoder(model, tape.gradient(difference, model.variables))
    assert max(np.abs(g).max() for g in encoder) > 0.1
    assert all(not g.any() for g in decoder)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("jit", [False, True])
def test_dreg_is_its_definition_in_one_backward_pass(layers, jit, binary_images):
    """Against Tucker et al. spelled out: one objective for q, with squared weights, and another for p."""
    model = small(layers)
    noise = model.noise(7, 6, SEED)

    def for_q(output, beta=1.0):
        w = tf.stop_gradient(tf.nn.softmax(output.log_w(beta), axis=0))
        return tf.reduce_sum(w**2 * (output.log_px_z + beta * (output.log_pz - output.log_qz_x_path)), axis=0)

    actual = tf.function(lambda: gradients(model, dreg, binary_images, noise, 0.8), jit_compile=jit)()
    encoder, decoder = encoder_and_decoder(model, actual)
    expected_encoder, _ = encoder_and_decoder(model, gradients(model, for_q, binary_images, noise, 0.8))
    _, expected_decoder = encoder_and_decoder(model, gradients(model, iwae_elbo, binary_images, noise, 0.8))
    for a, b in zip(encoder + decoder, expected_encoder + expected_decoder):
        # log w is some hundred nats: rounded to float32, its exponential is good to 3e-5, and so squared to 6e-5
        assert np.abs(a - b).max() < 3e-4 * np.abs(b).max() + 1e-7


@pytest.mark.parametrize("layers", [1, 2])
def test_dreg_is_unbiased_and_stl_is_not(layers, binary_images):
    """A paired test on the encoder's gradient: the same noise for both, t statistics of a sum over each block.

    The sum is over the biases of log std, where what STL leaves out has the same sign for every unit.
    """
    model = small(layers)
    biases = [block.heads[1].bias.value for block in model.encoder]

    @tf.function(jit_compile=True)
    def sums(seed):
        noise, result = model.noise(5, 6, seed), []
        for objective in (dreg, iwae_elbo, stl):
            with tf.GradientTape() as tape:
                value = tf.reduce_mean(objective(model(binary_images, noise)))
            result += [tf.reduce_sum(g) for g in tape.gradient(value, biases)]
        return tf.stack(result)

    draws = np.array([sums(tf.constant([9, i])).numpy() for i in range(6000)]).reshape(-1, 3, layers)

    def t(a, b):  # [layers]
        difference = draws[:, a] - draws[:, b]
        return difference.mean(axis=0) / (difference.std(axis=0, ddof=1) / np.sqrt(len(draws)))

    assert np.abs(t(0, 1)).max() < 4
    assert np.abs(t(2, 1)).max() > 8  # so the test can tell


def test_dreg_s_mean_gradient_is_that_of_tfp_vi(binary_images):
    """The doubly reparameterised estimator of tensorflow_probability.vi as an oracle, for one layer."""
    import tensorflow_probability as tfp

    model = small(1)
    x, k, n = binary_images[:1], 4, 500

    def target_log_prob(z):  # z [..., 1, n_latent] -> [..., 1]
        flat = tf.reshape(z, [-1, 1, z.shape[-1]])
        value = model.likelihood.log_prob(x, flat) + model.prior().log_prob(flat)
        return tf.reshape(value, tf.shape(z)[:-1])

    def oracle(seed):
        with tf.GradientTape() as tape:
            q = model.encoder[0](x)
            stopped = tfp.distributions.Independent(
                tfp.distributions.Normal(tf.stop_gradient(q.distribution.loc), tf.stop_gradient(q.distribution.scale)),
                1,
            )
            loss = tfp.vi.monte_carlo_variational_loss(
                target_log_prob, q, sample_size=n, importance_sample_size=k, seed=[3, seed],
                gradient_estimator=tfp.vi.GradientEstimators.DOUBLY_REPARAMETERIZED,
                stopped_surrogate_posterior=stopped,
            )  # fmt: skip
            loss = tf.reduce_mean(loss)
        return [-g.numpy() for g in tape.gradient(loss, model.encoder[0].trainable_variables)]

    def ours(seed):
        many = np.repeat(x, n, axis=0)
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(dreg(model(many, model.noise(k, n, tf.constant([4, seed])))))
        return [g.numpy() for g in tape.gradient(value, model.encoder[0].trainable_variables)]

    a, b = ([np.concatenate([g.ravel() for g in f(seed)]) for seed in range(20)] for f in (ours, oracle))
    difference = np.mean(a, axis=0) - np.mean(b, axis=0)
    error = np.sqrt((np.var(a, axis=0, ddof=1) + np.var(b, axis=0, ddof=1)) / 20)
    used = error > 0
    assert np.mean((difference[used] / error[used]) ** 2) < 2.5  # they differ by chance alone
    assert np.linalg.norm(difference) < 0.1 * np.linalg.norm(np.mean(b, axis=0))


def test_dreg_and_stl_coincide_for_one_sample(binary_images):
    model = small(1)
    noise = model.noise(1, 6, SEED)
    for a, b in zip(gradients(model, dreg, binary_images, noise), gradients(model, stl, binary_images, noise)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
