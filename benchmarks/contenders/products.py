"""The bound: the matrix products of a training step alone, in the shapes of the model, as one compiled loop.

Three products for every weight matrix (forward; gradient of the weights; gradient of the inputs), chained as in a step,
so that none can be left out or done once for all. No nonlinearity, no densities, no random numbers, no optimiser. The
first layer's inputs need no gradient, so that one product is not done, here or in any step. The same products by NumPy
(OpenBLAS) are timed too, and the faster of the two is the bound.
"""

import numpy as np
import tensorflow as tf

from benchmarks.contenders import split


def chains(spec):
    """[(rows, widths, whether the inputs need a gradient)]: q(z1|x) sees each image once, all else a sample."""
    batch, rows = spec["batch_size"], spec["batch_size"] * spec["n_samples"]
    if spec["layers"] == 1:
        return [(batch, [784, 200, 200, (100, 100)], False), (rows, [100, 200, 200, (784,)], True)]
    return [
        (batch, [784, 200, 200, (100, 100)], False),
        (rows, [100, 100, 100, (50, 50)], True),
        (rows, [50, 100, 100, (100, 100)], True),
        (rows, [100, 200, 200, (784,)], True),
    ]


def build(spec, weights, images):
    if spec.get("numpy"):
        return None, numpy_products(spec)
    inputs, kernels = start(spec, weights)

    @tf.function(jit_compile=True)
    def loop(kernels, n):
        def body(i, kernels):
            updates = gradients(spec, inputs, kernels)
            return i + 1, tf.nest.map_structure(lambda kernel, g: kernel + 1e-12 * g, kernels, updates)

        return tf.while_loop(lambda i, _: i < n, body, (0, kernels))[1]

    def run(n_steps):
        loop(kernels, tf.constant(n_steps))[0][0].numpy()

    return None, run


def start(spec, weights):
    """Inputs of each chain, and its kernels: [tensor], [[tensor]]."""
    inputs = [tf.random.normal([rows, widths[0]]) for rows, widths, _ in chains(spec)]
    return inputs, [[tf.constant(kernel) for kernel, _ in block] for block in split(weights, spec["layers"])]


def gradients(spec, inputs, kernels):
    """All products of a step: [[a gradient of each kernel]]."""
    computed = []
    for block, x, (_, _, need) in zip(kernels, inputs, chains(spec)):
        first, second, *heads = block
        h1 = tf.matmul(x, first)
        h2 = tf.matmul(h1, second)
        outs = [tf.matmul(h2, head) for head in heads]
        d2 = tf.add_n([tf.matmul(out, head, transpose_b=True) for out, head in zip(outs, heads)])
        d1 = tf.matmul(d2, second, transpose_b=True)
        of_first, of_second = tf.matmul(x, d1, transpose_a=True), tf.matmul(h1, d2, transpose_a=True)
        if need:
            of_first += tf.reduce_sum(tf.matmul(d1, first, transpose_b=True))
        computed.append([of_first, of_second, *[tf.matmul(h2, out, transpose_a=True) for out in outs]])
    return computed


def numpy_products(spec):
    """The same products into arrays that are already there."""
    rng, work = np.random.default_rng(0), []
    for rows, widths, need in chains(spec):
        layers = [(widths[0], widths[1]), (widths[1], widths[2]), *[(widths[2], head) for head in widths[3]]]
        for number, (n_in, n_out) in enumerate(layers):
            x, w, g = (rng.normal(size=s).astype(np.float32) for s in ((rows, n_in), (n_in, n_out), (rows, n_out)))
            work += [(x, w, np.empty_like(g)), (x.T, g, np.empty_like(w))]
            if need or number:
                work.append((g, w.T, np.empty_like(x)))

    def run(n_steps):
        for _ in range(n_steps):
            for a, b, out in work:
                np.matmul(a, b, out=out)

    return run
