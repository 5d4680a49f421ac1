"""Random numbers: each use has a stream of its own, and no two draws share their numbers."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from models.random import Stream, random_algorithm, standard_normal, stateless_seed


def test_no_two_streams_seeds_or_indices_give_the_same_numbers():
    draws = {}
    for seed, stream, index in itertools.product((0, 1, 2, 2**27 - 1), Stream, (0, 1, 7)):
        numbers = standard_normal([6], stateless_seed(seed, stream, index), random_algorithm(jit=False)).numpy()
        assert tuple(numbers) not in draws.values(), (seed, stream, index)
        draws[seed, stream, index] = tuple(numbers)
    assert len(draws) == 4 * len(Stream) * 3


@pytest.mark.parametrize("seed", [-1, 2**27, 2**28])
def test_seeds_beyond_those_that_differ_are_refused(seed):
    with pytest.raises(ValueError, match=f"seed {seed} is not allowed"):
        stateless_seed(seed, Stream.NOISE, 0)


def test_streams_fit_into_their_share_of_the_seed():
    """A seed has room for 16 of them; one more would be the first stream of the next seed."""
    assert (
        0 <= min(Stream)
        and max(Stream) < 16
        and len({int(stream) for stream in Stream.__members__.values()}) == len(Stream.__members__)
    )
    seeds = [stateless_seed(seed, stream, 3).numpy() for seed in (0, 1, 5) for stream in Stream]
    assert len({tuple(seed) for seed in seeds}) == len(seeds)


def test_the_same_seed_stream_and_index_give_the_same_numbers():
    a, b = (standard_normal([5, 2], stateless_seed(3, Stream.NOISE, i), "philox") for i in (4, tf.constant(4)))
    np.testing.assert_array_equal(a, b)
