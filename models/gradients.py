"""The one place where gradients of an objective are taken."""

import tensorflow as tf


def estimate_and_gradients(model, objective, x, noise, y=None, beta=1.0):
    """The objective's value and bound on a batch, and the gradients that p and q follow.

    x [batch, n_pixels] in {0, 1}, noise as from model.noise, y [batch, n_context] or None; objective(output, beta) ->
    models.objectives.Estimate. Returns (value, bound, gradients): the means over the batch of the surrogate and of the
    bound, in nats, and a gradient for each of model.trainable_variables, of the surrogates' means.

    Densities are given z_l = stop(sample_l), so that d/dz_l and dsample_l/dq are taken apart. With s the mean of the
    surrogate over the batch, s_q that of the q_surrogate (s where there is none), and c the objective's z_weights,

        p follows  ds/dp;
        q follows  ds_q/dq at fixed z (the score; and q's parameters in a KL divergence in closed form)
                   +  sum_l c ds_q/dz_l dsample_l/dq,  where ds_q/dz_l goes through the layers drawn after l too,

    each part of q's only where the objective asks for it (`score`, `through_samples`).
    XLA merges what the parts have in common: where p and q follow one surrogate, there is one pass back through the
    decoder.
    """

    def cut(sample):
        z = tf.stop_gradient(sample)
        tape.watch(z)
        return z

    with tf.GradientTape(persistent=True) as tape:
        output = model(x, noise, y, cut=cut)
        estimate = objective(output, beta)
        surrogate = tf.reduce_mean(estimate.surrogate)  # over the images
        q_surrogate = surrogate if estimate.q_surrogate is None else tf.reduce_mean(estimate.q_surrogate)
    p_gradients = tape.gradient(surrogate, model.p_variables)
    targets, upstream = [], []
    if estimate.through_samples:
        targets, upstream = list(output.samples), _through_samples(tape, q_surrogate, output, model.drawn)
    if estimate.z_weights is not None:
        upstream = [estimate.z_weights[..., tf.newaxis] * g for g in upstream]
    if estimate.score:
        targets, upstream = [q_surrogate, *targets], [tf.ones_like(q_surrogate), *upstream]
    q_gradients = tape.gradient(targets, model.q_variables, output_gradients=upstream)
    return surrogate, tf.reduce_mean(estimate.bound), _in_order(model, p_gradients, q_gradients)


def _through_samples(tape, surrogate, output, drawn):
    """ds/dsample_l for each layer l, [n_samples, batch, n_latent]: directly, and through the layers drawn after it."""
    targets, upstream, found = [surrogate], [tf.ones_like(surrogate)], {}
    for layer in reversed(drawn):
        found[layer] = tape.gradient(  # zeros where an objective does not reach a layer
            targets, output.z[layer], output_gradients=upstream, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        targets, upstream = [*targets, output.samples[layer]], [*upstream, found[layer]]
    return [found[layer] for layer in sorted(found)]


def _in_order(model, p_gradients, q_gradients):
    """The gradients in the order of model.trainable_variables; zeros where an objective does not reach a variable.

    (TensorFlow's `unconnected_gradients` cannot make zeros of Keras's variables.)
    """
    variables = [*model.p_variables, *model.q_variables]
    found = {id(v): g for v, g in zip(variables, [*p_gradients, *q_gradients])}
    return [tf.zeros(v.shape) if found[id(v)] is None else found[id(v)] for v in model.trainable_variables]
