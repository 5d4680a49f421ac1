"""SOAP: Adam in the eigenbasis of each weight matrix's gradient covariances (Vyas et al., 2409.11321)."""

import math

import keras
from keras import ops


def rotate(matrix, left, right, back=False):
    """left^T matrix right, into the basis of the columns of `left` and `right`; or back out of it.

    matrix [m, n]; left [m, m] and right [n, n] orthogonal, or None for a side that stays as it is.
    """
    if left is not None:
        matrix = ops.matmul(left if back else ops.transpose(left), matrix)
    if right is not None:
        matrix = ops.matmul(matrix, ops.transpose(right) if back else right)
    return matrix


@keras.saving.register_keras_serializable("iwae")
class SOAP(keras.optimizers.Adam):
    """Adam on rotated gradients: for a weight matrix with gradient G the axes are the eigenvectors of the running means
    of G G^T and G^T G, those of them with at most `largest_side` rows. Vectors get plain Adam.

    Every `refresh_every` steps one QR iteration turns the bases towards the eigenvectors. What has been gathered turns
    with them: the first moment exactly, the second as if its components were uncorrelated, so that a basis that still
    moves does not meet second moments of another one. Until the first refresh the covariances are gathered and
    nothing is updated; they are then updated at every `covariance_every`-th step with weight 1 - `covariance_decay`.
    """

    def __init__(
        self,
        learning_rate=3e-3,
        beta_1=0.95,
        beta_2=0.99,
        epsilon=1e-8,
        covariance_decay=0.98,
        covariance_every=4,
        refresh_every=20,
        largest_side=300,
        name="soap",
        **kwargs,
    ):
        super().__init__(learning_rate, beta_1, beta_2, epsilon, name=name, **kwargs)
        self.covariance_decay, self.covariance_every = covariance_decay, covariance_every
        self.refresh_every, self.largest_side = refresh_every, largest_side

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._covariances, self._bases = [], []  # of each variable: (of its rows, of its columns), None where unused
        for variable in variables:
            sides = variable.shape if len(variable.shape) == 2 else (math.inf, math.inf)
            sides = [side if side <= self.largest_side else None for side in sides]
            self._covariances.append([n and self.add_variable((n, n), name="covariance") for n in sides])
            self._bases.append([n and self.add_variable((n, n), "identity", name="basis") for n in sides])

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        moments = self._momentums[index], self._velocities[index]
        covariances, bases = self._covariances[index], self._bases[index]
        if any(basis is not None for basis in bases):
            self._every(self.covariance_every, 0, lambda: self._gather(gradient, covariances))
            self._every(self.refresh_every, self.refresh_every, lambda: self._refresh(moments, covariances, bases))
        self._adam(rotate(gradient, *bases), *moments, variable, learning_rate, bases)

    def _every(self, n, first, action):
        """action() at every n-th step from step `first` on, counted from 0."""

        def act():
            action()
            return 0

        due = ops.logical_and(ops.equal(self.iterations % n, 0), self.iterations >= first)
        ops.cond(due, act, lambda: 0)

    def _gather(self, gradient, covariances):
        for covariance, g in zip(covariances, (gradient, ops.transpose(gradient))):
            if covariance is not None:
                square = ops.matmul(g, ops.transpose(g))
                covariance.assign_add((1 - self.covariance_decay) * (square - covariance))

    def _refresh(self, moments, covariances, bases):
        turns = []  # from the old basis to the new one
        for covariance, basis in zip(covariances, bases):
            if basis is None:
                turns.append(None)
                continue
            new, _ = ops.qr(ops.matmul(covariance, basis))
            turns.append(ops.matmul(ops.transpose(basis), new))
            basis.assign(new)
        momentum, velocity = moments
        momentum.assign(rotate(momentum, *turns))
        velocity.assign(rotate(velocity, *(turn if turn is None else ops.square(turn) for turn in turns)))

    def _adam(self, gradient, momentum, velocity, variable, learning_rate, bases):
        updating = ops.cast(self.iterations >= self.refresh_every, "float32")
        t = ops.maximum(ops.cast(self.iterations - self.refresh_every + 1, "float32"), 1.0)
        momentum.assign_add(updating * (1 - self.beta_1) * (gradient - momentum))
        velocity.assign_add(updating * (1 - self.beta_2) * (ops.square(gradient) - velocity))
        unbiased = momentum / (1 - ops.power(self.beta_1, t))
        scale = ops.sqrt(velocity / (1 - ops.power(self.beta_2, t))) + self.epsilon
        variable.assign_sub(updating * learning_rate * rotate(unbiased / scale, *bases, back=True))

    def get_config(self):
        names = ("covariance_decay", "covariance_every", "refresh_every", "largest_side")
        return super().get_config() | {name: getattr(self, name) for name in names}
