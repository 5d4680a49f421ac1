"""Annealed importance sampling where log p(x) is known, in closed form or by many samples of the prior."""

import functools
import inspect
import types

import numpy as np
import pytest
import tensorflow as tf

from evaluation import ais
from evaluation.ais import make_ais, make_bracket, temperatures
from models.iwae import IWAE
from models.random import Stream, stateless_seed
from tests.oracles import LinearGaussian


def small_iwae(n_latent, scale=1.6, **context):
    """An IWAE with first weights made larger, so that its posteriors differ from its prior."""
    tf.keras.utils.set_random_seed(5)
    model = IWAE((8,) * len(n_latent), n_latent, 12, **context)
    for variable in model.trainable_variables:
        variable.assign(variable * scale if variable.shape.rank == 2 else variable)
    return model


def test_temperatures_go_from_0_to_1_in_small_steps_at_both_ends():
    beta = temperatures(50)
    steps = np.diff(beta)
    assert beta[0] == 0 and beta[-1] == 1 and len(beta) == 51 and (steps > 0).all()
    assert steps[0] < 0.2 * steps[25] > steps[-1]


def test_it_is_unbiased_however_few_the_temperatures():
    """E[w] = p(x), in closed form. With few temperatures the chains are far from every density they pass through, and
    so a transition that does not leave its density as it is shows.
    """
    model = LinearGaussian(std=0.5, seed=2)
    estimate = make_ais(model, 20, 4096, binary=False)(model.x[:8], seed=1)
    assert 0.2 < estimate.accepted < 0.99
    off = (estimate.log_px - model.log_px[:8]) / estimate.mc_error
    assert np.abs(off).max() < 4 and estimate.mc_error.max() < 0.15


def test_chains_come_closer_with_more_temperatures():
    model = LinearGaussian(std=0.3, seed=2)
    few, many = (make_ais(model, n, jit=False, binary=False)(model.x[:20]).mc_error.mean() for n in (10, 100))
    assert many < 0.5 * few


def test_step_sizes_come_to_the_acceptance_that_is_aimed_at():
    model = LinearGaussian(std=0.3, seed=2)
    assert 0.55 < make_ais(model, 500, 16, binary=False)(model.x[:8]).accepted < 0.75


def test_the_seed_decides_chains_and_drawn_images(monkeypatch):
    monkeypatch.setattr(ais, "_make_anneal", lambda *_: lambda x, y, seed, start=None: (
        tf.random.stateless_normal([2, len(x)], seed).numpy(), 1.0
    ))  # fmt: skip
    model = small_iwae((2,))
    drawn = [make_bracket(model, n_chains=2)(6, seed=seed).x for seed in (1, 1, 2)]
    found = [make_ais(model, n_chains=2)(drawn[0], seed=seed).log_px for seed in (1, 1, 2)]
    for one, again, other in (drawn, found):
        assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_step_sizes_of_the_way_back_are_those_of_the_same_temperatures():
    beta = temperatures(6)
    of_forward = tf.constant(beta[1:])  # in the place of its size, each transition's temperature
    np.testing.assert_array_equal(ais._backwards(of_forward), [*beta[::-1][1:-1], beta[1]])


def by_the_prior(model, x, y=None):
    """log p(x) as the mean of p(x|z) over many samples of the prior: enough where z has few units."""
    n = 20000
    z = model.sample_prior(model.noise(n, len(x), [4, 2]), y)
    return tf.reduce_logsumexp(model.log_weights(x, z, y).log_px_z, axis=0).numpy() - np.log(n)


def test_weights_are_averaged_from_below_and_their_inverses_from_above(monkeypatch):
    """log E[w] of the chains from the prior, -log E[1/w] of those from the z that an image was drawn from."""
    log_w = np.log([[2.0] * ais.BATCH, [6.0] * ais.BATCH])  # of two chains
    monkeypatch.setattr(ais, "_make_anneal", lambda *_: lambda x, y, seed, start=None: (log_w, 1.0))
    drawn = make_bracket(small_iwae((2,)), n_chains=2)(3)
    np.testing.assert_allclose(np.exp([drawn.lower, drawn.upper]), [[4.0] * 3, [3.0] * 3])


def test_every_batch_has_images_and_chains_of_its_own(monkeypatch):
    seeds, model, uniform, streams = [], small_iwae((2,)), tf.random.stateless_uniform, []

    def note(*_):
        return lambda x, y, seed, start=None: (seeds.append(tuple(seed.numpy())), (np.zeros((2, len(x))), 1.0))[1]

    def noted(shape, seed, **how):
        seeds.append(tuple(seed.numpy()))
        return uniform(shape, seed, **how)

    monkeypatch.setattr(ais, "_make_anneal", note)
    monkeypatch.setattr(tf.random, "stateless_uniform", noted)
    monkeypatch.setattr(ais, "stateless_seed", lambda *of: streams.append(of[1]) or stateless_seed(*of))
    x = make_bracket(model, n_chains=2)(2 * ais.BATCH).x
    assert not np.array_equal(x[: ais.BATCH], x[ais.BATCH :])
    make_ais(model, n_chains=2)(x)
    assert streams == [Stream.SIMULATE] * 2 + [Stream.ANNEAL] * 2
    assert len(seeds) == len(set(seeds)) == 2 * 4 + 2  # z, pixels and two ways of chains in a batch; and the estimate's


def test_every_step_of_pilot_and_chains_has_noise_of_its_own(monkeypatch):
    """Else the step sizes would be found from the noise they are used with. A fifth of the temperatures finds them; the
    chains take them as they are, and those that go back in the other order.
    """
    noted, at, sizes = [], set(), []

    class Stays:
        def __init__(self, density, size, steps):
            self.size = size

        def bootstrap_results(self, z):
            pass

        def one_step(self, z, results, seed):
            def note(seed, z, size):
                noted.append(tuple(seed.numpy()))
                at.add(z.numpy().tobytes())
                sizes.append(float(size[0, 0, 0]))

            tf.py_function(note, [seed, z[0], self.size], [])
            return z, types.SimpleNamespace(log_accept_ratio=tf.zeros(z[0].shape[:2]))

    monkeypatch.setattr(ais.mcmc, "HamiltonianMonteCarlo", Stays)
    model = LinearGaussian()
    anneal = ais._make_anneal(model, 10, 2, False)
    first, grown = ais.FIRST_STEP_SIZE, ais.FIRST_STEP_SIZE * np.exp(ais.ADAPTATION * (1 - ais.ACCEPTED))
    of_chains = [first] * 5 + [grown] * 5, [grown] * 4 + [first] * 6  # all proposals are accepted
    for start, expected in zip((None, (tf.zeros([1, 3, 2]),)), of_chains):
        for found in (noted, at, sizes):
            found.clear()
        anneal(model.x[:3], np.zeros((3, 0), np.float32), tf.constant([1, 2]), start)
        assert len(noted) == len(set(noted)) == 2 + 10 and len(at) == 2  # pilot and chains begin at other points
        np.testing.assert_allclose(sizes, [first, grown, *expected], rtol=1e-6)


@pytest.mark.parametrize("n_latent", [(3,), (4, 3)])
def test_estimate_and_bracket_are_given_the_labels(n_latent, monkeypatch):
    """In one layer and in two, with a prior that is learned for each label; 23 images are not a whole batch."""
    monkeypatch.setattr(ais, "_make_anneal", functools.cache(ais._make_anneal))  # traced once for both
    model = small_iwae(n_latent, n_context=4, learned_prior=True)
    y = np.eye(4, dtype=np.float32)[np.arange(23) % 4]
    drawn = make_bracket(model, 60, 16, jit=False)(23, y, seed=3)
    assert drawn.x.shape == (23, 12) and set(np.unique(drawn.x)) == {0, 1}
    truth, other = by_the_prior(model, drawn.x, y), by_the_prior(model, drawn.x, np.roll(y, 1, axis=1))
    assert np.mean(np.abs(other - truth)) > 0.3  # so the labels matter here
    assert -0.2 < np.mean(drawn.lower - truth) < 0.1 and -0.1 < np.mean(drawn.upper - truth) < 0.2
    estimate = make_ais(model, 60, 16, jit=False)(drawn.x, y, seed=2)
    assert len(estimate.log_px) == 23 and np.mean(np.abs(estimate.log_px - truth)) < 0.2


def test_a_signal_is_answered_between_two_calls_and_calls_change_nothing(monkeypatch):
    """Chains of 10 temperatures in calls of 4, 4 and 2, and in one; each call is waited for."""
    model, calls, constant = LinearGaussian(), [], tf.constant
    monkeypatch.setattr(
        ais.tf, "constant", lambda value, *args, **how: calls.append(value) or constant(value, *args, **how)
    )
    log_px = []
    for steps in (50, 4):
        monkeypatch.setattr(ais, "STEPS_PER_CALL", steps)
        calls.clear()
        log_px.append(make_ais(model, 10, 2, jit=False, binary=False)(model.x[:3], seed=1).log_px)
        of_pilot_and_chains = [0, 2, 0, 10] if steps == 50 else [0, 2, 0, 4, 4, 8, 8, 10]
        assert [value for value in calls if type(value) is int][1:] == of_pilot_and_chains  # the first is of the seed
    np.testing.assert_array_equal(*log_px)


def test_what_is_accepted_is_the_mean_over_all_batches(monkeypatch):
    shares = iter((0.2, 0.6))
    monkeypatch.setattr(ais, "_make_anneal", lambda *_: lambda x, y, seed: (np.zeros((2, len(x))), next(shares)))
    assert make_ais(small_iwae((2,)), n_chains=2)(np.zeros((2 * ais.BATCH, 12))).accepted == pytest.approx(0.4)


def test_step_sizes_are_found_for_the_images_and_labels_that_they_are_used_for(monkeypatch):
    given = []

    def note(x, y, seed, noise, beta, step_sizes, rate):
        given.append((x, y))
        return tf.zeros([2, 3]), tf.ones([len(beta) - 1, 3]), tf.ones(3)

    monkeypatch.setattr(ais, "_make_run", lambda *_: note)
    x, y = np.ones((3, 12), np.float32), np.eye(3, dtype=np.float32)
    ais._make_anneal(small_iwae((2,), n_context=3), 10, 2, False)(x, y, tf.constant([1, 2]))
    assert len(given) == 2 and all(a is x and b is y for a, b in given)


def test_images_that_are_not_binary_and_chains_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="not 0 and 1 alone"):
        make_ais(small_iwae((2,)), 10)(np.full((2, 12), 0.5, np.float32))
    for n_chains in (0, 1, 6):
        with pytest.raises(ValueError, match=f"n_chains: {n_chains} is not allowed; a power of two"):
            make_ais(small_iwae((2,)), 10, n_chains)


def test_defaults_are_those_that_the_task_says():
    for function in (make_ais(small_iwae((2,))), make_bracket(small_iwae((2,)))):
        assert inspect.signature(function).parameters["seed"].default == 0
    for make in (make_ais, make_bracket):  # alike, so that the two can be compared
        assert [one.default for one in inspect.signature(make).parameters.values()][1:4] == [4000, 16, True]


def test_progress_is_counted_in_images(monkeypatch, capsys):
    monkeypatch.setattr(ais, "_make_anneal", lambda *_: lambda x, y, seed, start=None: (np.zeros((2, len(x))), 1.0))
    x = make_bracket(small_iwae((2,)), n_chains=2)(23, show_progress=True).x
    make_ais(small_iwae((2,)), n_chains=2)(x, show_progress=True)
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == ["image 23/23"] * 2
