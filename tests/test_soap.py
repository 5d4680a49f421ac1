"""SOAP against Adam, and what its bases are for."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.soap import SOAP, project_back


def steps(optimizer, gradient_of, first, n, jit=False):
    """Where n steps from `first` lead. gradient_of(weights, step number)."""
    weights = keras.Variable(np.float32(first))
    optimizer.build([weights])
    step = tf.function(lambda g: optimizer.apply([g], [weights]), jit_compile=jit)
    for i in range(n):
        step(tf.cast(gradient_of(weights.numpy(), i), tf.float32))
    return weights.numpy()


def soap_in_numpy(gradients, rate=0.01, beta_1=0.95, beta_2=0.99, shampoo_beta=0.98, k=4, f=20):
    """Where float64 steps lead one weight matrix from 0, with k = covariance_frequency, f = precondition_frequency."""
    m, n = gradients[0].shape
    W, M, V, L, R, Q_L, Q_R = *np.zeros((3, m, n)), np.zeros((m, m)), np.zeros((n, n)), np.eye(m), np.eye(n)
    for step, G in enumerate(gradients):
        if step % k == 0:
            L, R = (shampoo_beta * old + (1 - shampoo_beta) * new for old, new in ((L, G @ G.T), (R, G.T @ G)))
        if step < f:
            continue
        if step % f == 0:
            new_L, new_R = np.linalg.qr(L @ Q_L)[0], np.linalg.qr(R @ Q_R)[0]
            T_L, T_R = Q_L.T @ new_L, Q_R.T @ new_R
            M, V, Q_L, Q_R = T_L.T @ M @ T_R, (T_L**2).T @ V @ T_R**2, new_L, new_R
        projected, t = Q_L.T @ G @ Q_R, step - f + 1
        M, V = beta_1 * M + (1 - beta_1) * projected, beta_2 * V + (1 - beta_2) * projected**2
        W = W - rate * Q_L @ (M / (1 - beta_1**t) / (np.sqrt(V / (1 - beta_2**t)) + 1e-8)) @ Q_R.T
    return W


def quadratic(seed, n=12, condition=1e4):
    """(value, gradient) of tr(W^T H W) / 2 with the eigenvectors of H nowhere near the axes."""
    generator = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(generator.normal(size=(n, n)))
    hessian = vectors * np.geomspace(1, 1 / condition, n) @ vectors.T
    return lambda w: np.trace(w.T @ hessian @ w) / 2, lambda w, _: hessian @ w


@pytest.mark.parametrize("jit", [False, True])
def test_with_the_identity_for_a_basis_it_is_adam(jit):
    generator = np.random.default_rng(0)
    gradients, first = generator.normal(size=(21, 5, 3)), generator.normal(size=(5, 3)).astype(np.float32)
    soap = SOAP(0.01, 0.9, 0.99, 1e-9, max_precondition_dim=0, precondition_frequency=1)  # its first step only gathers
    adam = keras.optimizers.Adam(0.01, 0.9, 0.99, 1e-9)
    by_soap = steps(soap, lambda _, i: gradients[i], first, 21, jit)
    by_adam = steps(adam, lambda _, i: gradients[i + 1], first, 20, jit)
    np.testing.assert_allclose(by_soap, by_adam, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_its_steps_are_those_of_the_algorithm(jit):
    generator = np.random.default_rng(5)
    shapes = (6, 4), (4, 4), (4, 6)
    gradients = [[generator.normal(size=shape) for shape in shapes] for _ in range(65)]
    weights = [keras.Variable(np.zeros(shape, np.float32)) for shape in shapes]
    optimizer = SOAP(0.01)
    optimizer.build(weights)
    step = tf.function(lambda *g: optimizer.apply(g, weights), jit_compile=jit)
    for of_step in gradients:
        step(*(tf.constant(g, tf.float32) for g in of_step))
    for weight, of_weight in zip(weights, zip(*gradients)):
        np.testing.assert_allclose(weight.numpy(), soap_in_numpy(of_weight), atol=1e-5)


def test_vectors_and_wide_sides_have_no_basis():
    optimizer = SOAP(max_precondition_dim=4)
    optimizer.build([keras.Variable(np.zeros(shape)) for shape in ((3, 4), (3, 5), (5, 5), (3,))])
    assert [basis is not None for basis in optimizer._Q_L] == [True, True, False, False]
    assert [basis is not None for basis in optimizer._Q_R] == [True, False, False, False]


def test_bases_become_the_eigenvectors_of_the_covariances():
    generator = np.random.default_rng(1)
    left, right = (np.linalg.qr(generator.normal(size=(n, n)))[0] for n in (6, 4))
    scales = np.geomspace(1, 0.05, 6)[:, None] * np.geomspace(1, 0.1, 4)
    optimizer = SOAP(1e-3, shampoo_beta=0.99, covariance_frequency=1, precondition_frequency=5)
    steps(optimizer, lambda *_: left @ (scales * generator.normal(size=(6, 4))) @ right.T, np.zeros((6, 4)), 1000)
    for covariance, basis in (optimizer._L[0], optimizer._Q_L[0]), (optimizer._R[0], optimizer._Q_R[0]):
        rotated = basis.numpy().T @ covariance.numpy() @ basis.numpy()
        size = np.sqrt(np.diag(rotated))
        correlation = rotated / size / size[:, None] - np.eye(len(size))
        assert np.abs(correlation).max() < 0.2
        np.testing.assert_allclose(basis.numpy().T @ basis.numpy(), np.eye(len(size)), atol=1e-5)
    # and in them the second moments are what they are in the true ones
    np.testing.assert_allclose(np.sqrt(optimizer._velocities[0].numpy()), scales, rtol=0.6)


def test_new_bases_project_the_first_moment_exactly_and_the_second_as_if_uncorrelated():
    generator = np.random.default_rng(2)
    optimizer = SOAP(1e-3, precondition_frequency=100)
    steps(optimizer, lambda *_: generator.normal(size=(6, 4)), np.zeros((6, 4)), 120)
    moments, bases = (optimizer._momentums[0], optimizer._velocities[0]), (optimizer._Q_L[0], optimizer._Q_R[0])
    before = project_back(moments[0], *bases).numpy()
    old_bases, old_velocity = [basis.numpy() for basis in bases], moments[1].numpy()
    optimizer._update_bases()
    assert np.abs(bases[0].numpy() - old_bases[0]).max() > 0.01
    np.testing.assert_allclose(project_back(moments[0], *bases).numpy(), before, atol=1e-6)
    left, right = (np.square(old.T @ new.numpy()) for old, new in zip(old_bases, bases))
    np.testing.assert_allclose(moments[1].numpy(), left.T @ old_velocity @ right, rtol=1e-3)
    assert np.abs(moments[1].numpy() - old_velocity).max() > 1e-3 * old_velocity.max()


@pytest.mark.parametrize("jit", [False, True])
def test_it_goes_down_a_rotated_valley_where_adam_zigzags(jit):
    value, gradient = quadratic(3)
    first = np.random.default_rng(4).normal(size=(12, 2)).astype(np.float32)
    optimizers = SOAP(0.02, precondition_frequency=10, covariance_frequency=1), keras.optimizers.Adam(0.02)
    by_soap, by_adam = (value(steps(optimizer, gradient, first, 400, jit)) for optimizer in optimizers)
    assert by_soap < 0.3 * by_adam < 0.3 * value(first)


def test_it_is_saved_and_rebuilt_with_its_settings():
    optimizer = SOAP(0.01, precondition_frequency=7, max_precondition_dim=50)
    assert SOAP.from_config(optimizer.get_config()).get_config() == optimizer.get_config()
    assert float(SOAP().learning_rate.numpy()) == pytest.approx(3e-3)
