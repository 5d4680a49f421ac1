"""The models against TFP's definitions, float64 NumPy and each other."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from experiment import session
from experiment.settings import Config
from models.blocks import BernoulliBlock, GaussianBlock
from models.catalogue import MODELS
from models.fused import _width, sum_softplus_dense
from models.iwae import IWAE
from models.random import random_algorithm, standard_normal
from tests.oracles import numpy_log_w

SEED = tf.constant([3, 4])
SIZES = MODELS["iwae"].sizes


def make(layers):
    """A standard model, with log w near -100 nats for `binary_images`, the size it has on MNIST."""
    keras.utils.set_random_seed(layers)
    model = IWAE(*SIZES[layers], 784, np.full(784, 0.03))
    for variable in model.trainable_variables:
        if variable.name == "kernel":
            variable.assign(variable * 0.7)
    return model


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("jit", [False, True])
def test_log_w_agrees_with_float64_numpy(layers, jit, binary_images):
    model = make(layers)
    noise = model.noise(7, 6, SEED)
    log_w = tf.function(lambda x: model(x, noise).log_w(), jit_compile=jit)(binary_images)
    assert log_w.shape == (7, 6)
    np.testing.assert_allclose(log_w, numpy_log_w(model, binary_images, noise), rtol=0, atol=1e-4)


def test_a_third_stochastic_layer_needs_no_other_class(binary_images):
    model = IWAE((30, 20, 10), (8, 4, 2), 784, np.full(784, 0.03))
    noise = model.noise(3, 6, SEED)
    np.testing.assert_allclose(
        model(binary_images, noise).log_w(), numpy_log_w(model, binary_images, noise), rtol=0, atol=1e-4
    )


def test_standard_models_have_the_protocol_s_shapes():
    def widths(block):
        return [tuple(layer.kernel.shape) for layer in (*block.hidden, *block.heads)]

    one, two = IWAE(*SIZES[1], 784), IWAE(*SIZES[2], 784)
    assert [widths(b) for b in one.encoder] == [[(784, 200), (200, 200), (200, 100), (200, 100)]]
    assert widths(one.likelihood) == [(100, 200), (200, 200), (200, 784)]
    assert [widths(b) for b in two.encoder] == [
        [(784, 200), (200, 200), (200, 100), (200, 100)],
        [(100, 100), (100, 100), (100, 50), (100, 50)],
    ]
    assert [widths(b) for b in two.decoder] == [[(50, 100), (100, 100), (100, 100), (100, 100)]]
    assert widths(two.likelihood) == [(100, 200), (200, 200), (200, 784)]
    prior = IWAE(*SIZES[2], 784, n_context=10, learned_prior=True).prior_block
    assert widths(prior) == [(10, 100), (100, 100), (100, 50), (100, 50)]
    assert [block.name for block in (*two.encoder, *two.decoder, two.likelihood)] == ["q_z1", "q_z2", "p_z1", "p_x"]
    assert [layer.name for layer in two.likelihood.hidden] == ["hidden1", "hidden2"]  # they are in the weights' file


def test_first_weights_are_glorot_uniform_with_zero_biases_but_for_the_output():
    means = np.linspace(0, 1, 784)
    model = IWAE(*SIZES[1], 784, means)
    kernel = model.encoder[0].hidden[0].kernel.numpy()
    limit = np.sqrt(6 / (784 + 200))
    assert limit * 0.99 < np.abs(kernel).max() <= limit
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)
    assert not model.encoder[0].hidden[0].bias.numpy().any()
    clipped = np.clip(means, 0.001, 0.999)
    np.testing.assert_allclose(model.likelihood.heads[0].bias, np.log(clipped / (1 - clipped)), rtol=1e-5)


def test_wrong_layer_counts_are_refused():
    with pytest.raises(ValueError, match="one entry per stochastic layer"):
        IWAE((200, 100), (100,), 784)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("n_pixels", [784, 101])
def test_fused_likelihood_equals_tfp_in_value_and_gradient(jit, n_pixels):
    """The fast path is held to the definition: the block's own TFP distribution, differentiated automatically."""
    model = IWAE((20,), (5,), n_pixels=n_pixels)
    block = model.likelihood
    for variable in block.trainable_variables:
        variable.assign(variable * 3)
    x = (np.random.default_rng(1).random((4, n_pixels)) < 0.4).astype(np.float32)
    z = 2 * tf.random.stateless_normal([3, 4, 5], SEED)
    weights = tf.random.stateless_normal([3, 4], SEED)  # so that each sample's gradient counts differently

    def value_and_gradients(log_prob):
        with tf.GradientTape() as tape:
            tape.watch(z)
            values = log_prob()
            total = tf.reduce_sum(weights * values)
        return values, tape.gradient(total, [z, *block.trainable_variables])

    fast = tf.function(lambda: value_and_gradients(lambda: block.log_prob(x, z)), jit_compile=jit)()
    slow = value_and_gradients(lambda: block(z).log_prob(x))
    np.testing.assert_allclose(fast[0], slow[0], rtol=0, atol=2e-4)  # two float32 near 600, each within 1e-4 of it
    for a, b in zip(fast[1], slow[1]):
        assert np.abs(a - b).max() < 1e-4 * np.abs(b).max()


def test_fused_likelihood_survives_extreme_logits():
    logits = tf.constant([[-200.0, 200.0, 0.0, 90.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = sum_softplus_dense(logits, tf.eye(4), tf.zeros(4))
    np.testing.assert_allclose(total, [200 + np.log(2) + 90], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(total, logits), [[0, 1, 0.5, 1]], atol=1e-6)


def test_fused_likelihood_of_many_pixels_stays_finite():
    n_pixels = 112 * 200  # every factor is 2 here, and a product of 200 of them is more than a float32 holds
    total = sum_softplus_dense(tf.zeros([1, 1]), tf.zeros([1, n_pixels]), tf.zeros(n_pixels))
    np.testing.assert_allclose(total, [n_pixels * np.log(2)], rtol=1e-6)


@pytest.mark.parametrize("layers", [1, 2])
def test_decode_agrees_with_the_decoder_s_distributions(layers):
    model = make(layers)
    noise = model.noise(1, 4, SEED)
    z = noise[-1]
    if layers == 2:
        p = model.decoder[0](z).distribution
        z = p.loc + p.scale * noise[0]
    np.testing.assert_allclose(model.decode(noise), model.likelihood(z).mean()[0], atol=1e-6)


def test_noise_differs_between_layers_seeds_and_samples():
    model = IWAE((5, 5), (3, 3), 784)
    a, b = model.noise(2, 2, SEED)
    c, _ = model.noise(2, 2, SEED + [0, 1])
    assert not np.allclose(a, b) and not np.allclose(a, c) and not np.allclose(a[0], a[1])


@pytest.mark.parametrize("jit", [True, False])
def test_noise_is_standard_normal(jit):
    draw = tf.function(lambda: standard_normal([300_000], [1, 2], random_algorithm(jit)), jit_compile=jit)
    assert scipy.stats.kstest(draw().numpy(), "norm").pvalue > 1e-3


def test_noise_is_finite_at_the_ends_of_the_uniform_range(monkeypatch):
    def ends(shape, seed, minval, maxval, alg):
        return minval + (maxval - minval) * tf.constant([0, 1 - 2**-23], tf.float32)  # it has 23 random bits

    monkeypatch.setattr(tf.random, "stateless_uniform", ends)
    low, high = standard_normal([2], [1, 2], "philox").numpy()
    assert -6 < low < -5 and 5 < high < 6


def test_weights_survive_saving(tmp_path, binary_images):
    model, other = make(2), IWAE(*SIZES[2], 784)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    noise = model.noise(2, 6, SEED)
    np.testing.assert_array_equal(model(binary_images, noise).log_w(), other(binary_images, noise).log_w())


@pytest.mark.parametrize("learned_prior", [False, True])
def test_conditional_model_is_given_the_label_everywhere(learned_prior, binary_images):
    """Its log w from the blocks' own distributions, with y appended by hand to the inputs of q and of p(x|z)."""
    model = IWAE((20,), (5,), 784, n_context=3, learned_prior=learned_prior)
    y = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]]
    noise = model.noise(4, 6, SEED)
    output = model(binary_images, noise, y)
    q = model.encoder[0](np.concatenate([binary_images, y], axis=1))
    z = q.distribution.loc + q.distribution.scale * noise[0]
    p_x = model.likelihood(tf.concat([z, np.broadcast_to(y, (4, 6, 3))], axis=-1))
    standard = tfd.Independent(tfd.Normal(tf.zeros(5), tf.ones(5)), 1)
    prior = model.prior_block(y) if learned_prior else standard
    np.testing.assert_allclose(output.log_px_z, p_x.log_prob(binary_images), rtol=1e-5)
    np.testing.assert_allclose(output.log_pz, prior.log_prob(z), rtol=1e-5)
    np.testing.assert_allclose(output.kl, np.broadcast_to(tfd.kl_divergence(q, prior), (4, 6)), rtol=1e-4)
    assert np.allclose(output.log_pz, standard.log_prob(z), rtol=1e-3) != learned_prior
    other = model(binary_images, noise, np.roll(y, 1, axis=0))
    assert not np.allclose(output.log_px_z, other.log_px_z)
    drawn = prior.distribution.loc + prior.distribution.scale * noise[0]
    np.testing.assert_allclose(model.sample_prior(noise, y)[0], drawn, rtol=1e-5)
    np.testing.assert_allclose(model.mean_image(z, y), p_x.mean(), rtol=1e-5)
    np.testing.assert_allclose(model.decode(noise, y), model.mean_image(drawn, y)[0], rtol=1e-5)


def test_a_learned_prior_needs_something_to_learn_from():
    with pytest.raises(ValueError, match="needs n_context"):
        IWAE((20,), (5,), 784, learned_prior=True)


def test_sums_side_by_side_are_a_divisor_of_the_pixels_near_the_quickest_number():
    assert [_width(n) for n in (1, 101, 784, 112 * 200)] == [1, 101, 112, 224]


class OtherBlocks(IWAE):
    """With wider networks, as the methods that are there to be overridden make them."""

    def encoder_block(self, layer, n_hidden, n_latent):
        return super().encoder_block(layer, n_hidden + layer, n_latent)

    def likelihood_block(self, n_hidden, pixel_means):
        return super().likelihood_block(n_hidden + 5, pixel_means)


def test_a_subclass_has_its_own_blocks_and_no_others():
    usual, other = (kind((6, 5), (3, 2), 12, n_context=2) for kind in (IWAE, OtherBlocks))
    widths = [block.hidden[0].units for block in (*other.encoder, *other.decoder, other.likelihood)]
    assert widths == [7, 7, 5, 11]
    assert len(other.trainable_variables) == len(usual.trainable_variables)


class Softer(BernoulliBlock):
    def call(self, z):
        (logits,) = self.outputs(z)
        return tfd.Independent(tfd.Bernoulli(logits=logits / 3), 1)


def test_a_block_with_another_call_has_its_log_prob(binary_images):
    keras.utils.set_random_seed(1)
    block, z = Softer(5, 784), np.random.default_rng(0).normal(size=(3, 6, 2)).astype(np.float32)
    block.build((None, 2))
    np.testing.assert_allclose(block.log_prob(binary_images, z), block(z).log_prob(binary_images), rtol=1e-5)
    assert np.abs(block.log_prob(binary_images, z) - BernoulliBlock.call(block, z).log_prob(binary_images)).max() > 0.1


class Shallow(keras.layers.Layer):
    """p(x|z) of one layer, in no other way like a block."""

    def __init__(self):
        super().__init__()
        self.logits = keras.layers.Dense(784)

    def build(self, shape):
        self.logits.build(shape)

    def call(self, z):
        return tfd.Independent(tfd.Bernoulli(logits=self.logits(z)), 1)

    def log_prob(self, x, z):
        return self(z).log_prob(x)


class Wider(GaussianBlock):
    def call(self, inputs):
        mean, log_std = self.outputs(inputs)
        return tfd.Independent(tfd.Normal(mean, 2 * tf.exp(log_std)), 1)


class Scaled(GaussianBlock):
    def outputs(self, inputs):
        return [2 * output for output in super().outputs(inputs)]


class Sharper(BernoulliBlock):
    def log_prob(self, x, z):
        return 2 * super().log_prob(x, z)


class Flipped(GaussianBlock):
    def features(self, inputs):
        return super().features(-inputs)


def broad_prior(self, y=None):
    return tfd.Independent(tfd.Normal(2 * tf.ones(3), 3 * tf.ones(3)), 1)


def block_of(kind):
    return lambda self, layer, n_hidden, n_latent: kind(n_hidden, n_latent)


OF_ANOTHER_MAKE = [
    (1, "Other has its own prior", dict(prior=broad_prior)),
    *(
        (1, f"Other has its own {name}", {name: lambda self, *given, name=name: getattr(IWAE, name)(self, *given)})
        for name in ("sample_prior", "encode", "call", "log_weights")
    ),
    (1, "Shallow has its own features", dict(likelihood_block=lambda self, n_hidden, pixel_means: Shallow())),
    (1, "Softer has its own call", dict(likelihood_block=lambda self, n_hidden, pixel_means: Softer(n_hidden, 784))),
    (1, "Wider has its own call", dict(encoder_block=block_of(Wider))),
    (1, "Scaled has its own outputs", dict(encoder_block=block_of(Scaled))),
    (1, "Sharper has its own log_prob", dict(likelihood_block=lambda self, n_hidden, _: Sharper(n_hidden, 784))),
    (2, "Flipped has its own features", dict(encoder_block=block_of(Flipped))),  # q(z2|z1) reads z1
]


@pytest.mark.parametrize(("layers", "said", "methods"), OF_ANOTHER_MAKE)
def test_units_are_not_taken_out_of_what_is_made_in_another_way(layers, said, methods, binary_images):
    model = type("Other", (IWAE,), methods)((5,) * layers, (3,) * layers, 784)
    assert np.isfinite(model(binary_images, model.noise(2, 6, SEED)).log_w()).all()  # as a model it is whole
    with pytest.raises(NotImplementedError, match=said):
        model.without_units([np.array([True, False, True])] * layers, [np.zeros(3)] * layers)


@pytest.mark.parametrize(("name", "layers"), [(name, layers) for name in MODELS for layers in MODELS[name].sizes])
def test_every_model_of_the_table_is_what_the_interface_says(name, layers, binary_images):
    model = session.build_model(Config(model=name, stochastic_layers=layers).resolved(), np.full(784, 0.03))
    noise = model.noise(4, 6, SEED)
    output = model(binary_images, noise)
    at_its_points = model.log_weights(binary_images, output.z)  # log q and log p are functions of z
    np.testing.assert_allclose(at_its_points.log_w(), output.log_w(), rtol=1e-4)
    image = tfd.Independent(tfd.Bernoulli(probs=model.mean_image(output.z[0])), 1)
    np.testing.assert_allclose(output.log_px_z, image.log_prob(binary_images), rtol=1e-3)
    whole = model.without_units([np.full(n, True) for n in model.n_latent], [np.zeros(n) for n in model.n_latent])
    np.testing.assert_allclose(whole(binary_images, noise).log_w(), output.log_w(), rtol=1e-4)
    assert [z.shape for z in model.sample_prior(model.noise(1, 6, SEED))] == [(1, 6, n) for n in model.n_latent]


class Unseen(IWAE):
    """Keras does not see a block that is put into a list later."""

    def __init__(self, *sizes, **settings):
        super().__init__(*sizes, **settings)
        self.encoder[0] = GaussianBlock(5, self.n_latent[0])
        self.encoder[0].build((None, self.n_pixels))


def test_a_model_whose_encoder_would_not_be_trained_is_refused(monkeypatch):
    monkeypatch.setattr(session, "model_class", lambda name: Unseen)
    with pytest.raises(TypeError, match="Unseen: p_variables and q_variables"):
        session.build_model(Config().resolved(), np.full(784, 0.5))
