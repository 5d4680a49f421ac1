"""Pure helpers that every room uses: log-mean-exp, seeds, the progress bar."""

import enum
import sys
import time

import keras
import numpy as np
import tensorflow as tf


def logmeanexp(log_w, axis=0):
    """log of the mean of exp(log_w) along `axis`, max-shifted so that it never overflows."""
    n = tf.cast(tf.shape(log_w)[axis], log_w.dtype)
    return tf.reduce_logsumexp(log_w, axis=axis) - tf.math.log(n)


class Stream(enum.IntEnum):
    """What random numbers are drawn for. Each use has a stream of its own, so none can shift another."""

    SHUFFLE = 0
    BINARISE = 1
    NOISE = 2
    MONITOR = 3
    TEST = 4
    PICTURE = 5
    RESAMPLE = 6
    UNITS = 7


def stateless_seed(seed, stream, index):
    """The [2] int32 seed of draw number `index` of `stream`: a function of its arguments, with no state to save.

    seed: int, 0 <= seed < 2**27; index: int or scalar int tensor.
    """
    return tf.stack([tf.constant(seed * 16 + int(stream), tf.int32), tf.cast(index, tf.int32)])


def random_algorithm(jit):
    """Threefry is the faster one in code compiled by XLA, and exists only there."""
    return "threefry" if jit else "philox"


def standard_normal(shape, seed, algorithm):
    """N(0, 1) float32 of the given shape: tf.random.stateless_normal's own recipe (the inverse error function of a
    uniform number), which XLA turns into code three to five times as fast on CPUs where the two stand apart."""
    above_minus_one = np.nextafter(np.float32(-1), np.float32(0))  # at -1 the normal number would be infinite
    u = tf.random.stateless_uniform(shape, seed, minval=above_minus_one, maxval=1.0, alg=algorithm)
    return np.float32(np.sqrt(2)) * tf.math.erfinv(u)


def duration(seconds):
    """Seconds as people say them: 42 s, 3 min, 2 h 10 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class ProgressBar:
    """Keras's progress bar, with the time left; where no one watches (a log file), a plain line every half minute."""

    def __init__(self, total, unit, label):
        self.total, self.unit, self.label = total, unit, label
        self.began = self.printed = time.monotonic()
        self.bar = None
        if sys.stdout.isatty():
            self.bar = keras.utils.Progbar(total, unit_name=unit, stateful_metrics=[label], interval=0.2)

    def update(self, done, value):
        """`done` of `total` units are done, and `value` is where the labelled quantity stands."""
        if self.bar is not None:
            self.bar.update(done, [(self.label, value)])
            return
        now = time.monotonic()
        if now - self.printed > 30 or done == self.total:
            left = (now - self.began) * (self.total - done) / done
            print(f"{self.unit} {done}/{self.total}, {self.label} {value:.2f}, {duration(left)} left", flush=True)
            self.printed = now
