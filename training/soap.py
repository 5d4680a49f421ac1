"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al., 2409.11321, Algorithm 3)."""

import math

import keras
from keras import ops


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
class SOAP(keras.optimizers.Adam):
    """For a weight matrix with gradient G [m, n], Adam runs in the bases Q_L [m, m] and Q_R [n, n]: the eigenvectors of
    L and R, the running means of G G^T and G^T G. Vectors get plain Adam. It differs from the paper's Algorithm 3:

    * A side longer than `max_precondition_dim` has no basis. A matrix with two such sides gets plain Adam.
    * L and R are updated before the step, at every `covariance_frequency`-th step, with a decay `shampoo_beta` of their
      own.
    * The first `precondition_frequency` steps update L and R alone. The weights stay until the bases are there.
    * New bases come from one QR iteration at every `precondition_frequency`-th step, as in the paper. The second moment
      V is projected into them as if the components of G' were uncorrelated; the paper leaves V as it is. The first
      moment M is stored in the bases, so it is projected too.
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
        self._covariances, self._bases = [], []  # (L, R) and (Q_L, Q_R) of each variable, None for a side without
        for variable in variables:
            sides = variable.shape if len(variable.shape) == 2 else (math.inf, math.inf)
            sides = [side if side <= self.max_precondition_dim else None for side in sides]
            self._covariances.append([n and self.add_variable((n, n), name="covariance") for n in sides])
            self._bases.append([n and self.add_variable((n, n), "identity", name="basis") for n in sides])

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        moments = self._momentums[index], self._velocities[index]
        covariances, bases = self._covariances[index], self._bases[index]
        if any(Q is not None for Q in bases):
            k, f = self.covariance_frequency, self.precondition_frequency
            self._every(k, 0, lambda: self._update_covariances(gradient, covariances))
            self._every(f, f, lambda: self._update_bases(moments, covariances, bases))
        self._adam(gradient, *moments, variable, learning_rate, bases)

    def _every(self, n, first, action):
        """action() at every n-th step from step `first` on, counted from 0."""

        def act():
            action()
            return 0

        due = ops.logical_and(ops.equal(self.iterations % n, 0), self.iterations >= first)
        ops.cond(due, act, lambda: 0)

    def _update_covariances(self, gradient, covariances):
        # L <- shampoo_beta L + (1 - shampoo_beta) G G^T
        # R <- shampoo_beta R + (1 - shampoo_beta) G^T G
        for covariance, g in zip(covariances, (gradient, ops.transpose(gradient))):
            if covariance is not None:
                square = ops.matmul(g, ops.transpose(g))
                covariance.assign_add((1 - self.shampoo_beta) * (square - covariance))

    def _update_bases(self, moments, covariances, bases):
        # Q_new = QR(L Q), T_L = Q^T Q_new, Q_L <- Q_new; T_R and Q_R likewise
        turns = []  # [T_L, T_R], from the old bases to the new ones
        for covariance, Q in zip(covariances, bases):
            if Q is None:
                turns.append(None)
                continue
            new, _ = ops.qr(ops.matmul(covariance, Q))
            turns.append(ops.matmul(ops.transpose(Q), new))
            Q.assign(new)
        # M <- T_L^T M T_R
        # V <- (T_L^2)^T V T_R^2, elementwise squares
        M, V = moments
        M.assign(project(M, *turns))
        V.assign(project(V, *(turn if turn is None else ops.square(turn) for turn in turns)))

    def _adam(self, gradient, M, V, variable, learning_rate, bases):
        updating = ops.cast(self.iterations >= self.precondition_frequency, "float32")
        t = ops.maximum(ops.cast(self.iterations - self.precondition_frequency + 1, "float32"), 1.0)
        # G' = Q_L^T G Q_R
        # M <- beta_1 M + (1 - beta_1) G'
        # V <- beta_2 V + (1 - beta_2) G'^2
        projected = project(gradient, *bases)
        M.assign_add(updating * (1 - self.beta_1) * (projected - M))
        V.assign_add(updating * (1 - self.beta_2) * (ops.square(projected) - V))
        # W <- W - rate Q_L N' Q_R^T, N' = M_hat / (sqrt(V_hat) + epsilon)
        unbiased = M / (1 - ops.power(self.beta_1, t))
        scale = ops.sqrt(V / (1 - ops.power(self.beta_2, t))) + self.epsilon
        variable.assign_sub(updating * learning_rate * project_back(unbiased / scale, *bases))

    def get_config(self):
        names = ("shampoo_beta", "covariance_frequency", "precondition_frequency", "max_precondition_dim")
        return super().get_config() | {name: getattr(self, name) for name in names}
