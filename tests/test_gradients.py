"""Gradients in parts against the derivative in one piece, and DReG and STL against their definitions and TFP."""

import numpy as np
import pytest
import tensorflow as tf

from models.estimators import vr_iwae_dreg
from models.gradients import estimate_and_gradients
from models.iwae import IWAE
from models.objectives import Estimate, dreg, iwae_elbo, stl, vae_elbo, vae_elbo_kl
from tests.test_objectives import SEED, assert_close, gradients, small


def copy_of(model):
    """The same function of other variables: a derivative by the model's own does not see it."""
    copy = IWAE(model.n_hidden, model.n_latent, model.n_pixels)
    copy.set_weights(model.get_weights())
    return copy


def derivative(model, value):
    """(of q's variables, of p's variables): the plain derivative of value() in one piece."""
    with tf.GradientTape(persistent=True) as tape:
        total = tf.reduce_mean(value())
    parts = ([tape.gradient(total, v) for v in group] for group in (model.q_variables, model.p_variables))
    return [[np.zeros(v.shape) if g is None else g.numpy() for v, g in zip(group, part)]
            for group, part in zip((model.q_variables, model.p_variables), parts)]  # fmt: skip


@pytest.mark.parametrize("objective", [vae_elbo, vae_elbo_kl, iwae_elbo], ids=lambda f: f.__name__)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_gradients_taken_in_parts_are_the_derivative_in_one_piece(objective, layers, binary_images):
    model = small(layers)
    noise = model.noise(5, 6, SEED)
    whole = derivative(model, lambda: objective(model(binary_images, noise), 0.7).surrogate)
    for a, b in zip(gradients(model, objective, binary_images, noise, 0.7), whole):
        assert_close(a, b)


def test_what_an_objective_does_not_reach_has_the_gradient_zero(binary_images):
    """log p(x|z1) alone depends on nothing that z2 decides."""
    model = small(2)
    noise = model.noise(5, 6, SEED)

    def alone(output, beta):
        weights = tf.ones_like(output.log_px_z)  # which say nothing, but are multiplied with what there is
        return Estimate(bound=output.log_px_z[0], surrogate=output.log_px_z[0], z_weights=weights)

    whole = derivative(model, lambda: model(binary_images, noise).log_px_z[0])
    for a, b in zip(gradients(model, alone, binary_images, noise), whole):
        assert_close(a, b)


def log_w_with_q_fixed(model, x, noise, beta):
    """log w, which depends on q's parameters through the samples alone: the densities are another model's."""
    z = model(x, noise).z
    return copy_of(model).log_weights(x, z).log_w(beta)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_stl_is_its_definition(layers, binary_images):
    model = small(layers)
    noise = model.noise(7, 6, SEED)
    q, p = gradients(model, stl, binary_images, noise, 0.8)
    expected, _ = derivative(
        model, lambda: tf.reduce_logsumexp(log_w_with_q_fixed(model, binary_images, noise, 0.8), axis=0)
    )
    assert_close(q, expected)
    assert_close(p, gradients(model, iwae_elbo, binary_images, noise, 0.8)[1])


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_dreg_is_its_definition(layers, binary_images):
    """Tucker et al. spelled out: q follows sum_i stop(w~_i^2) log w_i through the samples alone, p the IWAE bound.

    The square is of one w~_i of the bound and of one that stands for the score, which has beta before it.
    """
    model = small(layers)
    noise = model.noise(7, 6, SEED)
    q, p = gradients(model, dreg, binary_images, noise, 0.8)

    def for_q():
        log_w = log_w_with_q_fixed(model, binary_images, noise, 0.8)
        w = tf.stop_gradient(tf.nn.softmax(log_w, axis=0))
        return tf.reduce_sum((w - 0.8 * w * (1 - w)) * log_w, axis=0)

    assert_close(q, derivative(model, for_q)[0], rtol=3e-4)  # the exponential of log w, squared
    assert_close(p, gradients(model, iwae_elbo, binary_images, noise, 0.8)[1], rtol=3e-4)


@pytest.mark.parametrize("layers", [1, 2])
def test_compiled_gradients_are_the_same(layers, binary_images):
    model = small(layers)
    noise = model.noise(7, 6, SEED)
    for objective in (iwae_elbo, dreg):
        compiled = tf.function(
            lambda f=objective: estimate_and_gradients(model, f, binary_images, noise)[2], jit_compile=True
        )
        eager = estimate_and_gradients(model, objective, binary_images, noise)[2]
        assert_close([g.numpy() for g in compiled()], [g.numpy() for g in eager], rtol=3e-4)


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
        return gradients(model, dreg, many, model.noise(k, n, tf.constant([4, seed])))[0]

    a, b = ([np.concatenate([g.ravel() for g in f(seed)]) for seed in range(20)] for f in (ours, oracle))
    difference = np.mean(a, axis=0) - np.mean(b, axis=0)
    error = np.sqrt((np.var(a, axis=0, ddof=1) + np.var(b, axis=0, ddof=1)) / 20)
    used = error > 0
    assert np.mean((difference[used] / error[used]) ** 2) < 2.5  # they differ by chance alone
    assert np.linalg.norm(difference) < 0.1 * np.linalg.norm(np.mean(b, axis=0))


@pytest.mark.parametrize("layers", [1, 2])
def test_gradients_without_the_score_coincide_for_one_sample(layers, binary_images):
    model = small(layers)
    noise = model.noise(1, 6, SEED)
    expected, *others = (gradients(model, objective, binary_images, noise) for objective in (dreg, stl, vr_iwae_dreg))
    for found in others:
        for a, b in zip(found, expected):
            assert_close(a, b)
