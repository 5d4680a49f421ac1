"""One training step: the images, noise, gradients, weights and rates that it takes."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from experiment.session import build_model
from experiment.settings import Config
from models.catalogue import objective_function
from models.gradients import estimate_and_gradients
from models.iwae import IWAE
from models.objectives import iwae_elbo, vae_elbo
from models.random import Stream, stateless_seed
from tests.trainings import TINY
from training import steps
from training.images import as_tensor
from training.schedule import learning_rate, make_optimizer
from training.steps import binarise, make_gradients, make_steps, n_microbatches, resample, take_samples


def test_cosine_schedule_warms_up_and_comes_down():
    config = Config(epochs=10, schedule="cosine", learning_rate=1e-2, lr_warmup=2).resolved()
    rate = learning_rate(config, steps_per_epoch=50)
    assert float(rate(0)) == 0 and float(rate(50)) == pytest.approx(5e-3) and float(rate(100)) == pytest.approx(1e-2)
    assert float(rate(300)) == pytest.approx(1e-2 * 0.505) and float(rate(500)) == pytest.approx(1e-4)
    rate = learning_rate(dataclasses.replace(config, lr_warmup=0.0), steps_per_epoch=50)
    assert [float(rate(step)) for step in (0, 250, 500)] == pytest.approx([1e-2, 1e-2 * 0.505, 1e-4])
    rate = learning_rate(dataclasses.replace(config, lr_warmup=0.5), steps_per_epoch=50)  # less than an epoch
    assert [float(rate(step)) for step in (0, 5, 25)] == pytest.approx([0, 2e-3, 1e-2])


@pytest.mark.parametrize("conditional", ["no", "learned_prior"])
def test_one_step_is_adam_on_the_right_images(digits, conditional):
    """One step of the loop against Adam by hand on the gradient of the same objective."""
    config = dataclasses.replace(TINY, jit="off", conditional=conditional).resolved()
    context = digits.context("train", conditional != "no")
    model = build_model(config, digits.pixel_means)
    before = [v.numpy() for v in model.trainable_variables]
    order = np.random.default_rng(3).permutation(400).astype(np.int32)
    rows = order[140:160]
    x = binarise(tf.gather(digits.train_images, rows), stateless_seed(5, Stream.BINARISE, 7), "philox")
    noise = model.noise(3, 20, stateless_seed(5, Stream.NOISE, 7), "philox")
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(iwae_elbo(model(x, noise, context[rows])).surrogate)
    gradients = [g.numpy() for g in tape.gradient(value, model.trainable_variables)]

    run = make_steps(config, model, make_optimizer(config, 20, model), steps_per_epoch=20)
    images = tf.constant(digits.train_images)
    stopped, bound, last = run(images, tf.constant(context), tf.constant(order), tf.constant(7), tf.constant(8))
    assert int(stopped) == 8 and float(bound) == pytest.approx(float(value), abs=1e-3) == float(last)
    for variable, old, g in zip(model.trainable_variables, before, gradients):
        # the first step: m = (1 - b1) g and v = (1 - b2) g^2; TensorFlow's Adam adds epsilon before the correction
        expected = old + 1e-3 * np.sqrt(1 - 0.999) / (1 - 0.9) * 0.1 * g / (np.sqrt(0.001 * g**2) + 1e-4)
        np.testing.assert_allclose(variable, expected, atol=2e-6)


def test_the_bound_is_the_mean_over_the_steps_of_a_call(digits):
    config, found = dataclasses.replace(TINY, jit="off").resolved(), []
    data = tf.constant(digits.train_images), tf.zeros([400, 0]), tf.range(400)
    for calls in ([(0, 1), (1, 2), (2, 3)], [(0, 3)]):
        model = build_model(config, digits.pixel_means)
        run = make_steps(config, model, make_optimizer(config, 20, model), 20)
        found.append(np.mean([float(run(*data, tf.constant(a), tf.constant(b))[1]) for a, b in calls]))
    assert found[0] == pytest.approx(found[1], abs=1e-3)


def test_a_step_whose_value_is_not_finite_is_not_counted_as_taken(digits):
    config = dataclasses.replace(TINY, jit="off").resolved()
    model = build_model(config, digits.pixel_means)
    model.trainable_variables[0].assign(model.trainable_variables[0] * np.nan)
    run = make_steps(config, model, make_optimizer(config, 20, model), steps_per_epoch=20)
    data = tf.constant(digits.train_images), tf.zeros([400, 0]), tf.range(400)
    stopped, _, value = run(*data, tf.constant(7), tf.constant(8))
    assert int(stopped) == 7 and np.isnan(value)


def test_batches_larger_than_the_cache_go_by_in_microbatches():
    sizes = {(20, 50): 1, (100, 50): 5, (100, 5): 1, (20, 512): 20, (97, 50): 97, (1, 5000): 1}
    for (batch, k), expected in sizes.items():
        assert n_microbatches(dataclasses.replace(TINY, batch_size=batch, n_samples=k)) == expected


def test_a_gpu_takes_a_batch_whole_and_has_the_images_in_its_own_memory(digits, monkeypatch):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["a GPU"] * (kind == "GPU"))
    made, constant = [], tf.constant
    monkeypatch.setattr(tf, "constant", lambda value, *how: made.append(value) or constant(value, *how))
    assert n_microbatches(dataclasses.replace(TINY, batch_size=100, n_samples=50)) == 1
    assert as_tensor(digits.train_images).shape == (400, 784) and len(made) == 1


@pytest.mark.parametrize(
    "settings",
    [dict(objective="iwae_elbo"), dict(objective="vae_elbo_kl"), dict(objective="dreg"),
     dict(conditional="standard_prior"), dict(objective="miwae", hyperparameters={"groups": 3})],
)  # fmt: skip
def test_microbatches_add_up_to_the_batch(digits, monkeypatch, settings):
    """With noise that does not depend on the microbatch, the gradient in microbatches is that of the whole batch; which
    is that of the objective, with its hyperparameters and the images' labels.
    """
    config = dataclasses.replace(TINY, jit="off", **settings).resolved()
    model = build_model(config, digits.pixel_means)
    x = binarise(tf.constant(digits.train_images[:20]), tf.constant([1, 2]), "philox")
    fixed = tf.range(1.0, 4.0)[:, tf.newaxis, tf.newaxis] / 3
    monkeypatch.setattr(model, "noise", lambda n, batch, *_: (fixed * tf.ones([n, batch, 4]),))
    y = tf.constant(digits.context("train", config.is_conditional)[:20])
    whole = make_gradients(config, model)(x, y, tf.constant(3), 0.5)
    objective = objective_function(config.objective, config.hyperparameters)
    expected = estimate_and_gradients(model, objective, x, model.noise(3, 20), y, 0.5)
    for a, b in zip(tf.nest.flatten(whole), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    monkeypatch.setattr(steps, "ROWS_IN_CACHE", 15)
    assert n_microbatches(config) == 4
    for a, b in zip(tf.nest.flatten(make_gradients(config, model)(x, y, tf.constant(3), 0.5)), tf.nest.flatten(whole)):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_every_draw_of_a_run_has_a_seed_of_its_own(digits, monkeypatch):
    """Over steps, epochs, microbatches and seeds of the run; binarisation, noise and resampling."""
    monkeypatch.setattr(steps, "ROWS_IN_CACHE", 30)  # two microbatches

    def seeds(run_seed):
        drawn = []

        def noted(*args):
            keep = tf.numpy_function(lambda s: (drawn.append(tuple(s)), s)[1], [stateless_seed(*args)], tf.int32)
            return tf.ensure_shape(keep, [2])

        monkeypatch.setattr(steps, "stateless_seed", noted)
        config = dataclasses.replace(TINY, jit="off", backward_samples=2, seed=run_seed).resolved()
        model = build_model(config, digits.pixel_means)
        run = make_steps(config, model, make_optimizer(config, 20, model), steps_per_epoch=20)
        data = tf.constant(digits.train_images), tf.zeros([400, 0]), tf.range(400)
        for first in (0, 20):
            run(*data, tf.constant(first), tf.constant(first + 2))
        return drawn

    a, b = seeds(5), seeds(6)
    assert len(a) == len(b) == 4 * (1 + 2 * 2) == len({*a, *b}) / 2


def test_samples_are_resampled_by_the_weights_that_are_followed(digits, monkeypatch):
    """Those with beta; and those drawn are what is followed, all alike."""
    config = dataclasses.replace(TINY, jit="off", backward_samples=2).resolved()
    model = build_model(config, digits.pixel_means)
    x, y = binarise(tf.constant(digits.train_images[:20]), tf.constant([1, 2]), "philox"), tf.zeros([20, 0])
    noise, given, drawn = model.noise(3, 20, [3, 4]), [], []

    def noted(log_w, u, n):
        assert len(set(u.numpy())) == 20  # each image has a draw of its own
        given.append(log_w)
        drawn.append(resample(log_w, u, n))
        return drawn[-1]

    monkeypatch.setattr(model, "noise", lambda *_: noise)
    monkeypatch.setattr(steps, "resample", noted)
    value, bound, gradients = make_gradients(config, model)(x, y, tf.constant(0), 0.25)
    of_all = iwae_elbo(model(x, noise), 0.25)  # what is reported is of all samples
    assert (float(value), float(bound)) == pytest.approx([float(tf.reduce_mean(of)) for of in of_all[1::-1]])
    expected = estimate_and_gradients(model, vae_elbo, x, take_samples(noise, drawn[0]), y, 0.25)[2]
    for a, b in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(given[0], model(x, noise).log_w(0.25), rtol=1e-6)
    assert not np.allclose(given[0], model(x, noise).log_w())


def test_systematic_resampling_draws_each_sample_in_proportion_to_its_weight():
    log_w = tf.constant(np.random.default_rng(0).normal(0, 2, (6, 3)), tf.float32)
    expected = 4 * tf.nn.softmax(log_w, axis=0).numpy()
    u = (np.arange(2000) + 0.5) / 2000  # in place of random numbers: the expectation itself, almost exactly
    drawn = resample(tf.tile(log_w, [1, 2000]), np.repeat(u, 3).astype(np.float32), 4).numpy()
    assert drawn.shape == (4, 2000 * 3)
    counts = np.array([(drawn == sample).sum(axis=0) for sample in range(6)]).reshape(6, 2000, 3)
    counts = counts.transpose(1, 0, 2)  # [u, sample, image]
    np.testing.assert_allclose(counts.mean(axis=0), expected, atol=2e-3)
    assert (np.abs(counts - expected) < 1 + 1e-3).all()  # systematic: never more than one away


def test_resampling_draws_no_sample_that_is_not_there():
    """Where the sum of the weights is rounded to less than 1."""
    log_w = tf.constant(np.random.default_rng(0).normal(0, 2, (1000, 3000)), tf.float32)
    assert int(tf.reduce_max(resample(log_w, np.full(3000, np.nextafter(np.float32(1), 0)), 4))) == 999


@pytest.mark.parametrize("layers", [1, 2])
def test_gradient_through_resampled_samples_is_unbiased(layers, binary_images):
    """Averaged over the resampling, it is the gradient of the IWAE bound for the same noise."""
    model = IWAE((10, 8)[:layers], (4, 3)[:layers], 784)
    noise = model.noise(6, 6, tf.constant([1, 2]))

    def gradients(objective, noise, x=binary_images):
        return [g.numpy() for g in estimate_and_gradients(model, objective, x, noise)[2]]

    log_w = model(binary_images, noise).log_w()
    u = ((np.arange(100) + 0.5) / 100).repeat(6).astype(np.float32)  # of 100 draws for each of the six images
    many = tuple(tf.tile(e, [1, 100, 1]) for e in noise)
    drawn = take_samples(many, resample(tf.tile(log_w, [1, 100]), u, 2))
    mean = gradients(vae_elbo, drawn, np.tile(binary_images, (100, 1)))  # over the images, and so over the draws
    one = gradients(vae_elbo, tuple(e[:, :6] for e in drawn))
    error_of_one = []
    for exact, of_mean, of_one in zip(gradients(iwae_elbo, noise), mean, one, strict=True):
        assert np.abs(of_mean - exact).max() < 0.03 * np.abs(exact).max()
        error_of_one.append(np.abs(of_one - exact).max() / np.abs(exact).max())
    assert max(error_of_one) > 0.2  # one draw alone is far from it


def test_beta_warms_up_linearly_and_ends_at_one(digits):
    """Over 2 epochs of 10 steps, of 20 images each."""
    config = dataclasses.replace(TINY, jit="off", objective="vae_elbo", beta_warmup=2).resolved()
    images, order = tf.constant(digits.train_images), tf.range(400)

    def make_value_at(config):
        model = build_model(config, digits.pixel_means)
        run, first = make_steps(config, model, make_optimizer(config, 10, model), 10), model.get_weights()

        def value_at(step):
            model.set_weights(first)
            return map(float, run(images, tf.zeros([400, 0]), order, tf.constant(step), tf.constant(step + 1))[1:])

        return value_at

    at = {epochs: make_value_at(dataclasses.replace(config, beta_warmup=epochs)) for epochs in (2, 0.5, 0, 1e9)}
    for epochs, step, beta in (
        (2, 0, 1 / 20), (2, 9, 0.5), (2, 18, 0.95), (2, 19, 1.0), (2, 25, 1.0), (0.5, 1, 0.4), (0.5, 4, 1.0),
    ):  # fmt: skip
        (bound, value), (full_bound, full), (_, none) = (at[warmup](step) for warmup in (epochs, 0, 1e9))
        assert bound == full_bound == pytest.approx(full)  # the bound shown always has beta 1
        assert value - full == pytest.approx((1 - beta) * (none - full), abs=1e-3) and none > full + 0.3


def test_weights_are_averaged_with_the_decay_asked_for(digits):
    config = dataclasses.replace(TINY, jit="off", ema=0.7).resolved()
    model = build_model(config, digits.pixel_means)
    optimizer = make_optimizer(config, 20, model)
    run = make_steps(config, model, optimizer, steps_per_epoch=20)
    average = None
    for i in range(4):
        run(tf.constant(digits.train_images), tf.zeros([400, 0]), tf.range(400), tf.constant(i), tf.constant(i + 1))
        weights = [v.numpy() for v in model.trainable_variables]
        average = weights if average is None else [0.7 * a + 0.3 * w for a, w in zip(average, weights)]
    optimizer.finalize_variable_values(model.trainable_variables)
    for variable, expected in zip(model.trainable_variables, average):
        np.testing.assert_allclose(variable, expected, atol=1e-6)


def test_the_paper_s_schedule():
    config = Config().resolved()
    assert config.n_epochs == 3280
    rate = learning_rate(config, steps_per_epoch=3000)
    first_epoch = 0
    for i in range(8):
        expected = 1e-3 * 10 ** (-i / 7)
        for step in (first_epoch * 3000, (first_epoch + 3**i) * 3000 - 1):  # the first and the last step of the stage
            assert float(rate(step)) == pytest.approx(expected, rel=1e-5), (i, step)
        first_epoch += 3**i
    assert first_epoch == 3280


def test_binarisation_has_the_bytes_as_means_and_is_drawn_anew():
    means = np.tile(np.array([[0, 51, 128, 255]], np.uint8), (20000, 1))
    x = binarise(means, tf.constant([1, 2]), "philox").numpy()
    assert set(np.unique(x)) == {0.0, 1.0}
    np.testing.assert_allclose(x.mean(axis=0), [0, 0.2, 128 / 255, 1], atol=0.02)
    assert x[:, 0].sum() == 0 and x[:, 3].sum() == 20000
    assert not np.array_equal(x, binarise(means, tf.constant([1, 3]), "philox"))
