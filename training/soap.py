"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al., 2409.11321, Algorithm 3)."""

import math

import keras
from keras import ops

from training.replicas import LocalUpdates


def project(matrix, Q_L, Q_R):
    """Q_L^T matrix Q_R. matrix [m, n]; Q_L [m, m] and Q_R [n, n], or None for the identity."""
    if Q_L is not None:
        matrix = ops.matmul(ops.transpose(Q_L), matrix)
    return matrix if Q_R is None else ops.matmul(matrix, Q_R)


def project_back(matrix, Q_L, Q_R):
    """Q_L matrix Q_R^T, the inverse of `project` for orthogonal Q_L and Q_R."""
    if Q_L is not None:
        matrix = ops.matmul(Q_L, matrix)
    return matrix if Q_R is None else ops.matmul(matrix, ops.transpose(Q_R))


@keras.saving.register_keras_serializable("iwae")
class SOAP(LocalUpdates, keras.optimizers.Adam):
    """For a weight matrix with gradient G [m, n], Adam runs in the bases Q_L [m, m] and Q_R [n, n], which approach the
    eigenvectors of L and R, the running means of G G^T and G^T G. Vectors get plain Adam. It differs from the paper's
    Algorithm 3 and from its authors' code:

    * A side longer than `max_precondition_dim` has no basis. A matrix with two such sides gets plain Adam.
    * L and R are updated before the step, at every `covariance_frequency`-th step, with a decay `shampoo_beta` of their
      own.
    * The first `precondition_frequency` steps update L and R alone. The weights stay until the bases are there. The
      first bases are one QR iteration from the identity, where the authors' code has a full eigendecomposition; and
      that code sorts the columns by their eigenvalues before each iteration.
    * Into new bases (one QR iteration at every `precondition_frequency`-th step, as in the paper) the second moment V
      is projected as if the components of Q_L^T G Q_R were uncorrelated; the paper leaves V as it is. The first moment
      M is stored in the bases, so it is projected too.
    """

    def __init__(
        self,
        learning_rate=3e-3,
        beta_1=0.95,
        beta_2=0.99,
        epsilon=1e-8,
        shampoo_beta=0.98,
        covariance_frequency=4,
        precondition_frequency=20,
        max_precondition_dim=300,
        name="soap",
        **kwargs,
    ):
        super().__init__(learning_rate, beta_1, beta_2, epsilon, name=name, **kwargs)
        self.shampoo_beta, self.covariance_frequency = shampoo_beta, covariance_frequency
        self.precondition_frequency, self.max_precondition_dim = precondition_frequency, max_precondition_dim

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._L, self._R, self._Q_L, self._Q_R = [], [], [], []  # of each variable, None for a side without a basis
        for variable in variables:
            sides = variable.shape if len(variable.shape) == 2 else (math.inf, math.inf)
            sides = [side if side <= self.max_precondition_dim else None for side in sides]
            for n, covariances, name in zip(sides, (self._L, self._R), "LR"):
                covariances.append(n and self.add_variable((n, n), name=name))
            for n, bases, name in zip(sides, (self._Q_L, self._Q_R), ("Q_L", "Q_R")):
                bases.append(n and self.add_variable((n, n), "identity", name=name))

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        k, f = self.covariance_frequency, self.precondition_frequency
        self._every(k, 0, lambda: self._update_covariances(grads, trainable_variables))
        self._every(f, f, self._update_bases)
        super()._backend_update_step(grads, trainable_variables, learning_rate)  # update_step of each variable

    def _every(self, n, first, action):
        """action() at every n-th step from step `first` on, counted from 0.

        It is a loop of at most one round: XLA updates the variables of a loop in place, but copies those of a
        conditional at every step.
        """

        def act(_):
            action()
            return (False,)

        due = ops.logical_and(ops.equal(self.iterations % n, 0), self.iterations >= first)
        ops.while_loop(lambda due: due, act, (due,))

    def _update_covariances(self, gradients, variables):
        # L <- shampoo_beta L + (1 - shampoo_beta) G G^T
        # R <- shampoo_beta R + (1 - shampoo_beta) G^T G
        for G, i in zip(gradients, map(self._get_variable_index, variables)):
            for covariance, left in ((self._L[i], G), (self._R[i], ops.transpose(G))):
                if covariance is not None:
                    square = ops.matmul(left, ops.transpose(left))
                    covariance.assign_add((1 - self.shampoo_beta) * (square - covariance))

    def _update_bases(self):
        # Q_new = QR(P Q), T = Q^T Q_new, Q <- Q_new; for P, Q = L, Q_L and P, Q = R, Q_R
        P, Q = [*self._L, *self._R], [*self._Q_L, *self._Q_R]
        T = [None] * len(Q)  # from the old basis to the new one
        for n in sorted({q.shape[0] for q in Q if q is not None}):
            # One batched QR of all matrices of one size: XLA takes two thirds of the time of single ones.
            batch = [i for i, q in enumerate(Q) if q is not None and q.shape[0] == n]
            Q_new, _ = ops.qr(ops.stack([ops.matmul(P[i], Q[i]) for i in batch]))
            for i, q in zip(batch, ops.unstack(Q_new)):
                T[i] = ops.matmul(ops.transpose(Q[i]), q)
                Q[i].assign(q)
        # M <- T_L^T M T_R
        # V <- (T_L^2)^T V T_R^2, elementwise squares
        for M, V, *turns in zip(self._momentums, self._velocities, T, T[len(self._Q_L) :]):
            if any(turn is not None for turn in turns):
                M.assign(project(M, *turns))
                V.assign(project(V, *(turn if turn is None else ops.square(turn) for turn in turns)))

    def update_step(self, gradient, variable, learning_rate):
        i = self._get_variable_index(variable)
        M, V, Q = self._momentums[i], self._velocities[i], (self._Q_L[i], self._Q_R[i])
        updating = ops.cast(self.iterations >= self.precondition_frequency, "float32")
        t = ops.maximum(ops.cast(self.iterations - self.precondition_frequency + 1, "float32"), 1.0)
        # G' = Q_L^T G Q_R
        # M <- beta_1 M + (1 - beta_1) G'
        # V <- beta_2 V + (1 - beta_2) G'^2
        projected = project(gradient, *Q)
        M.assign_add(updating * (1 - self.beta_1) * (projected - M))
        V.assign_add(updating * (1 - self.beta_2) * (ops.square(projected) - V))
        # W <- W - rate Q_L N' Q_R^T, N' = M_hat / (sqrt(V_hat) + epsilon)
        unbiased = M / (1 - ops.power(self.beta_1, t))
        scale = ops.sqrt(V / (1 - ops.power(self.beta_2, t))) + self.epsilon
        variable.assign_sub(updating * learning_rate * project_back(unbiased / scale, *Q))

    def get_config(self):
        names = ("shampoo_beta", "covariance_frequency", "precondition_frequency", "max_precondition_dim")
        return super().get_config() | {name: getattr(self, name) for name in names}
