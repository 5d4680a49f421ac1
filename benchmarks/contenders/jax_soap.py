"""SOAP in JAX, as an optax transformation, with the settings and the schedule of training/soap.py."""

import jax
import jax.numpy as jnp
import optax

from benchmarks.contenders import COVARIANCE_FREQUENCY, MAX_PRECONDITION_DIM, PRECONDITION_FREQUENCY


def project(matrix, Q_L, Q_R):
    matrix = matrix if Q_L is None else Q_L.T @ matrix
    return matrix if Q_R is None else matrix @ Q_R


def project_back(matrix, Q_L, Q_R):
    return project(matrix, *jax.tree.map(jnp.transpose, [Q_L, Q_R]))


def of_sides(parameter, make):
    """[make(m), make(n)] for a matrix [m, n], None for a side without a basis."""
    sides = parameter.shape if parameter.ndim == 2 else (None, None)
    return [make(n) if n is not None and n <= MAX_PRECONDITION_DIM else None for n in sides]


def updated_covariances(G, P, beta):
    squares = [[L if L is None else g @ g.T, R if R is None else g.T @ g] for g, (L, R) in zip(G, P)]
    return jax.tree.map(lambda old, new: beta * old + (1 - beta) * new, P, squares)


def updated_bases(M, V, P, Q):
    Q_new = jax.tree.map(lambda p, q: jnp.linalg.qr(p @ q)[0], P, Q)
    turns = jax.tree.map(lambda old, new: old.T @ new, Q, Q_new)
    M = [project(m, *turn) for m, turn in zip(M, turns)]
    return M, [project(v, *jax.tree.map(jnp.square, turn)) for v, turn in zip(V, turns)], Q_new


def soap(learning_rate, beta_1=0.95, beta_2=0.99, epsilon=1e-8, shampoo_beta=0.98):
    def init(parameters):
        leaves = jax.tree.leaves(parameters)
        M, V = ([jnp.zeros_like(leaf) for leaf in leaves] for _ in range(2))
        P = [of_sides(leaf, lambda n: jnp.zeros((n, n))) for leaf in leaves]  # L and R of each
        return jnp.int32(0), M, V, P, [of_sides(leaf, jnp.eye) for leaf in leaves]

    def update(gradients, state, parameters=None):
        (step, M, V, P, Q), (G, tree) = state, jax.tree.flatten(gradients)
        P = jax.lax.cond(
            step % COVARIANCE_FREQUENCY == 0, lambda: updated_covariances(G, P, shampoo_beta), lambda: P
        )  # fmt: skip
        updating = step >= PRECONDITION_FREQUENCY
        due = updating & (step % PRECONDITION_FREQUENCY == 0)
        M, V, Q = jax.lax.cond(due, lambda: updated_bases(M, V, P, Q), lambda: (M, V, Q))
        t = jnp.maximum(step - PRECONDITION_FREQUENCY + 1, 1)
        G = [project(g, *q) for g, q in zip(G, Q)]
        M = [m + updating * (1 - beta_1) * (g - m) for m, g in zip(M, G)]
        V = [v + updating * (1 - beta_2) * (g**2 - v) for v, g in zip(V, G)]
        N = [m / (1 - beta_1**t) / (jnp.sqrt(v / (1 - beta_2**t)) + epsilon) for m, v in zip(M, V)]
        updates = [-learning_rate * updating * project_back(n, *q) for n, q in zip(N, Q)]
        return jax.tree.unflatten(tree, updates), (step + 1, M, V, P, Q)

    return optax.GradientTransformation(init, update)
