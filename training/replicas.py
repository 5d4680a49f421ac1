"""A training step on one device, or on several with tf.distribute.

A program that uses several devices runs within the scope of its strategy. A replica is a device with its own copy of
the weights and of the optimiser's variables. It takes the gradients on its share of each batch's images, and updates
its copies with the mean over all replicas. The copies start equal and get equal updates, so they stay equal.
"""

import tensorflow as tf


def n_replicas():
    """Of the tf.distribute strategy in whose scope this is called; 1 without one."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def on_each_device(array):
    """The array as a tensor, on each device that trains."""
    if not tf.distribute.has_strategy():
        return tf.convert_to_tensor(array)
    devices = tf.distribute.get_strategy().extended.worker_devices  # of this worker

    def copy(context):
        with tf.device(devices[context.replica_id_in_sync_group % len(devices)]):
            return tf.identity(array)

    return tf.distribute.get_strategy().experimental_distribute_values_from_function(copy)


def make_step(share, optimizer, variables, jit):
    """Returns step(i, *data) -> (value, bound), which updates the variables once.

    share(i, replica, *data) -> (value, bound, gradients) of this replica's share of the images of step i, replica from
    0, where `value` is maximised; data: as from on_each_device.
    """
    if tf.distribute.has_strategy():
        return _replicated_step(share, optimizer, variables, jit)

    def step(i, *data):
        value, bound, ascent = share(i, 0, *data)
        optimizer.apply([-g for g in ascent], variables)
        return value, bound

    return step


def _replicated_step(share, optimizer, variables, jit):
    """XLA cannot compile a sum over the replicas of MirroredStrategy. So what comes before it and what comes after it
    are compiled apart, and all numbers to be averaged go by as one vector.
    """
    strategy = tf.distribute.get_strategy()
    sizes = [variable.shape.num_elements() for variable in variables]

    @tf.function(jit_compile=jit)
    def flat_share(i, replica, *data):
        value, bound, ascent = share(i, replica, *data)
        return tf.concat([[value, bound], *(tf.reshape(g, [-1]) for g in ascent)], axis=0)

    @tf.function(jit_compile=jit)
    def update(flat):
        parts = tf.split(flat, [2, *sizes])[1:]
        optimizer.update_here([-tf.reshape(g, v.shape) for g, v in zip(parts, variables)], variables)

    def on_replica(i, *data):
        context = tf.distribute.get_replica_context()
        replica = int(tf.get_static_value(context.replica_id_in_sync_group))
        flat = context.all_reduce(tf.distribute.ReduceOp.MEAN, flat_share(i, replica, *data))
        update(flat)
        return flat[0], flat[1]

    def step(i, *data):
        value, bound = strategy.run(on_replica, args=(i, *data))
        optimizer.iterations.assign_add(1)
        return tuple(strategy.experimental_local_results(mean)[0] for mean in (value, bound))

    return step


class LocalUpdates:
    """For a Keras optimiser: its update is that of one replica, with gradients that are averaged already.

    Keras's own sums them over the replicas, variable by variable, in the middle of the update, which then cannot be
    compiled; and an optimiser that uses the gradients before that would see those of one replica.
    """

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        for gradient, variable in zip(grads, trainable_variables):
            self.update_step(gradient, variable, learning_rate)

    def update_here(self, gradients, variables):
        """As `apply`, for this replica's copies; `iterations`, which has one value for all, is left as it is."""
        self._backend_apply_gradients(gradients, variables)


def agree(steps_per_call, stop):
    """(steps in the next call, whether to stop), the same for all workers, who must take the same steps together."""
    strategy = tf.distribute.get_strategy()
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return steps_per_call, stop
    mean_steps, stopping = _mean_over_replicas(tf.constant([steps_per_call, stop], tf.float32)).numpy()
    return max(1, int(mean_steps)), stopping > 0


@tf.function
def _mean_over_replicas(values):
    strategy = tf.distribute.get_strategy()

    def mean(values):
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, tf.identity(values))

    return strategy.experimental_local_results(strategy.run(mean, args=(values,)))[0]
