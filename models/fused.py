"""A gradient made by hand, for speed."""

import tensorflow as tf

MOST_FACTORS = 100  # of a product, each in (1, 2]: 2**100 is still a float32


@tf.custom_gradient
def sum_softplus_dense(h, kernel, bias):
    """sum_d softplus((h kernel + bias)_d): the log normaliser of independent Bernoullis with those logits.

    h [rows, n_hidden], kernel [n_hidden, n_pixels], bias [n_pixels] -> [rows].

    With e = exp(-|l|), softplus(l) = max(l, 0) + log(1 + e) and sigmoid(l) = (1 or e) / (1 + e): one exponential serves
    both ways. The sum of logarithms is taken as few logarithms of long products. The incoming gradient g [rows] is
    folded into the narrow factors, so that the logits and their sigmoid are all there is of size [rows, n_pixels].
    """
    logits = tf.matmul(h, kernel) + bias
    e = tf.exp(-tf.abs(logits))
    n_pixels = kernel.shape[-1]
    length = next(n for n in range(MOST_FACTORS, 0, -1) if n_pixels % n == 0)
    products = tf.reduce_prod(tf.reshape(1.0 + e, [-1, n_pixels // length, length]), axis=-1)
    total = tf.reduce_sum(tf.maximum(logits, 0.0), axis=-1) + tf.reduce_sum(tf.math.log(products), axis=-1)

    def gradient(g):
        sigmoid = tf.where(logits >= 0, 1.0, e) / (1.0 + e)  # [rows, n_pixels]
        g = g[:, tf.newaxis]
        d_h = g * tf.matmul(sigmoid, kernel, transpose_b=True)
        d_kernel = tf.matmul(g * h, sigmoid, transpose_a=True)
        d_bias = tf.squeeze(tf.matmul(g, sigmoid, transpose_a=True), axis=0)
        return d_h, d_kernel, d_bias

    return total, gradient
