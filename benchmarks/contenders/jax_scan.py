"""JAX: a jitted lax.scan over many steps, with optax's Adam or with SOAP."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.contenders import EPSILON, LEARNING_RATE, jax_soap, split

STEPS_PER_SCAN = 60  # a multiple of the steps between two updates of SOAP's bases


def log_normal(z, mean, log_std):
    return jnp.sum(-0.5 * math.log(2 * math.pi) - log_std - 0.5 * ((z - mean) * jnp.exp(-log_std)) ** 2, -1)


def apply(block, x):
    (w1, b1), (w2, b2), *heads = block
    h = jnp.tanh(jnp.tanh(x @ w1 + b1) @ w2 + b2)
    return [h @ w + b for w, b in heads]


def bound_of(blocks, x, noise):
    *gaussians, likelihood = blocks
    k, batch = noise[0].shape[:2]
    mean, log_std = apply(gaussians[0], x)
    z1 = z = mean + jnp.exp(log_std) * noise[0]
    log_w = -log_normal(z1, mean, log_std)
    if len(gaussians) > 1:
        mean, log_std = apply(gaussians[1], z1)
        z = mean + jnp.exp(log_std) * noise[1]
        log_w += log_normal(z1, *apply(gaussians[2], z)) - log_normal(z, mean, log_std)
    log_w += log_normal(z, 0.0, 0.0)
    (logits,) = apply(likelihood, z1.reshape(k * batch, -1))
    logits = logits.reshape(k, batch, -1)
    log_w += jnp.sum(x * logits - jax.nn.softplus(logits), -1)
    return jnp.mean(jax.nn.logsumexp(log_w, 0) - math.log(k))


def build(spec, weights, images):
    layers, batch, k = spec["layers"], spec["batch_size"], spec["n_samples"]
    blocks = [[(jnp.array(w), jnp.array(b)) for w, b in block] for block in split(weights, layers)]
    optimizer, data = optax.adam(LEARNING_RATE, eps=EPSILON), jnp.array(images)
    if spec.get("optimizer") == "soap":
        optimizer = jax_soap.soap(LEARNING_RATE)
    widths = [100] if layers == 1 else [100, 50]

    def step(carry, key):
        blocks, state = carry
        rows, pixels, *latents = jax.random.split(key, 2 + len(widths))
        means = data[jax.random.randint(rows, (batch,), 0, len(data))].astype(jnp.float32) / 255
        x = jax.random.bernoulli(pixels, means).astype(jnp.float32)
        noise = [jax.random.normal(key, (k, batch, width)) for key, width in zip(latents, widths)]
        value, gradients = jax.value_and_grad(lambda b: -bound_of(b, x, noise))(blocks)
        updates, state = optimizer.update(gradients, state)
        return (optax.apply_updates(blocks, updates), state), value

    scan = jax.jit(lambda carry, key: jax.lax.scan(step, carry, jax.random.split(key, STEPS_PER_SCAN)))
    carry, key = (blocks, optimizer.init(blocks)), jax.random.key(0)

    def run(n_steps):
        nonlocal carry, key
        calls = math.ceil(n_steps / STEPS_PER_SCAN)
        for _ in range(calls):
            key, now = jax.random.split(key)
            carry, values = scan(carry, now)
        values.block_until_ready()
        return calls * STEPS_PER_SCAN

    return lambda x, noise: float(bound_of(blocks, jnp.array(x), [jnp.array(np.array(e)) for e in noise])), run
