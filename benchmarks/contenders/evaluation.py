"""Evaluation of the k-sample test log likelihood; spec["style"] says whose, and a "step" is an image."""

import numpy as np
import tensorflow as tf

from benchmarks.contenders import split
from benchmarks.contenders.ours import assign
from benchmarks.contenders.tf_reference import one_image
from evaluation.likelihood import BATCH, DRAWS, make_log_likelihood
from models import blocks
from models.catalogue import MODELS
from models.iwae import IWAE
from models.random import Stream, stateless_seed


def build(spec, weights, images):
    x = (np.random.default_rng(1).random((10000, 784)) * 255 < images[:10000]).astype(np.float32)
    run = {"products": _products, "reference": _reference}.get(spec["style"], _ours)(spec, weights, x)
    return None, run


def _ours(spec, weights, x):
    """As it is, or without parts of it, to tell what they take: the drawing of noise; and the pixels' exponentials too,
    with the sum of the logits in their place.
    """
    model = IWAE(*MODELS["iwae"].sizes[spec["layers"]], n_pixels=x.shape[1])
    assign(model, weights)
    if spec["style"] != "ours":
        noise = model.noise(DRAWS, BATCH, stateless_seed(0, Stream.TEST, 0))
        # with a vanishing part of what changes in the seed from draw to draw, so that nothing is done once for all
        model.noise = lambda _n, _batch, seed, _how: [e + 1e-9 * tf.cast(seed[1], tf.float32) for e in noise]
    if spec["style"] == "logits summed":
        blocks.sum_softplus_dense = lambda h, kernel, bias: tf.reduce_sum(tf.matmul(h, kernel) + bias, axis=-1)
    estimate = make_log_likelihood(model, spec["n_samples"])

    def run(n_images):
        estimate(x[:n_images])

    return run


def _reference(spec, weights, x):
    one = one_image(weights, spec["layers"], spec["n_samples"])

    def run(n_images):
        for image in x[:n_images]:
            float(one(image[np.newaxis]))

    return run


def _products(spec, weights, x):
    """The forward products alone, in the portions that this project takes; each result goes into the next inputs."""
    blocks = [[kernel for kernel, _ in block] for block in split(weights, spec["layers"])]
    latent = [np.random.default_rng(i).normal(size=(BATCH * DRAWS, b[0].shape[0])) for i, b in enumerate(blocks)]
    latent = [tf.constant(z, tf.float32) for z in latent]

    @tf.function(jit_compile=True)
    def loop(latent, n):
        def body(i, latent):
            changed = []
            for z, kernels in zip(latent[1:], blocks[1:]):
                h = tf.matmul(tf.matmul(z, kernels[0]), kernels[1])
                outs = [tf.matmul(h, head) for head in kernels[2:]]
                changed.append(z + 1e-12 * tf.add_n([tf.matmul(out, tf.ones([out.shape[1], 1])) for out in outs]))
            return i + 1, [latent[0], *changed]

        return tf.while_loop(lambda i, _: i < n, body, (0, latent))[1]

    def run(n_images):
        loop(latent, tf.constant(n_images * spec["n_samples"] // (BATCH * DRAWS)))[-1].numpy()

    return run
