"""The bound with SOAP: the products of a training step and those of SOAP alone (Vyas et al., 2409.11321, Algorithm 3).

Every step projects each gradient into the bases, and the update back. Every 4th step updates L and R. Every 20th step
multiplies each of them with its basis, takes the QR decompositions, and moves the first moments into the new bases.
Nested loops take the place of conditions, so only whole periods of 20 steps are run.
"""

import math

import tensorflow as tf

from benchmarks.contenders import COVARIANCE_FREQUENCY, MAX_PRECONDITION_DIM, PRECONDITION_FREQUENCY
from benchmarks.contenders.products import gradients, start


def project(matrix, number, Q, back=False):
    """Q_L^T matrix Q_R, or Q_L matrix Q_R^T. Q: the bases by (number of the kernel, side)."""
    if (number, 0) in Q:
        matrix = tf.matmul(Q[number, 0], matrix, transpose_a=not back)
    return tf.matmul(matrix, Q[number, 1], transpose_b=back) if (number, 1) in Q else matrix


def orthogonal(matrices):
    """The orthogonal factor of each of a dict of matrices, by one QR for all of one size."""
    factors = {}
    for n in {matrix.shape[0] for matrix in matrices.values()}:
        same = [at for at, matrix in matrices.items() if matrix.shape[0] == n]
        factors |= zip(same, tf.unstack(tf.linalg.qr(tf.stack([matrices[at] for at in same]))[0]))
    return factors


def repeat(n, body, state):
    return tf.while_loop(lambda i, _: i < n, lambda i, state: (i + 1, body(*state)), (0, state))[1]


def build(spec, weights, images):
    inputs, kernels = start(spec, weights)
    shapes = [kernel.shape for kernel in tf.nest.flatten(kernels)]
    sides = {(i, j): n for i, shape in enumerate(shapes) for j, n in enumerate(shape) if n <= MAX_PRECONDITION_DIM}
    P = Q = {at: tf.eye(n) for at, n in sides.items()}  # P: L and R
    G = M = [tf.zeros(shape) for shape in shapes]

    def step(kernels, Q):
        G = tf.nest.flatten(gradients(spec, inputs, kernels))
        M = [project(g, i, Q) for i, g in enumerate(G)]
        updates = tf.nest.pack_sequence_as(kernels, [project(m, i, Q, back=True) for i, m in enumerate(M)])
        return tf.nest.map_structure(lambda kernel, update: kernel + 1e-12 * update, kernels, updates), G, M

    def steps_to_covariances(kernels, G, M, P, Q):
        kernels, G, M = repeat(COVARIANCE_FREQUENCY, lambda kernels, G, M: step(kernels, Q), (kernels, G, M))
        squares = {(i, j): tf.matmul(G[i], G[i], transpose_a=j == 1, transpose_b=j == 0) for i, j in P}
        return kernels, G, M, {at: 0.98 * P[at] + 0.02 * squares[at] for at in P}, Q

    def period(*state):
        kernels, G, M, P, Q = repeat(PRECONDITION_FREQUENCY // COVARIANCE_FREQUENCY, steps_to_covariances, state)
        M = [project(m, i, Q, back=True) for i, m in enumerate(M)]
        Q = orthogonal({at: tf.matmul(P[at], Q[at]) for at in P})
        return kernels, G, [project(m, i, Q) for i, m in enumerate(M)], P, Q

    loop = tf.function(lambda n, *state: repeat(n, period, state), jit_compile=True)

    def run(n_steps):
        periods = math.ceil(n_steps / PRECONDITION_FREQUENCY)
        loop(tf.constant(periods), kernels, G, M, P, Q)[0][0][0].numpy()
        return periods * PRECONDITION_FREQUENCY

    return None, run
