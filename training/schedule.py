"""How many passes over the data, and the learning rate at each step."""

import keras

from config import PAPER_STAGES


def learning_rate(config, steps_per_pass):
    """The learning rate as a Keras schedule, or a number where it is constant.

    The paper's is 8 stages: stage i = 0 ... 7 is 3**i passes at 1e-3 * 10**(-i/7) (Burda et al., sec. 5).
    """
    if config.schedule == "paper":
        stages = range(PAPER_STAGES)
        # Keras takes values[i] up to and including step boundaries[i], and steps count from 0.
        boundaries = [steps_per_pass * (3 ** (i + 1) - 1) // 2 - 1 for i in stages[:-1]]
        return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, [1e-3 * 10 ** (-i / 7) for i in stages])
    if config.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(config.learning_rate, config.passes * steps_per_pass, alpha=0.01)
    return config.learning_rate


def make_optimizer(config, steps_per_pass, model):
    """Adam as in the paper (beta 0.9 and 0.999, epsilon 1e-4), averaging the weights too if `config.ema` says so."""
    optimizer = keras.optimizers.Adam(
        learning_rate(config, steps_per_pass),
        epsilon=1e-4,
        use_ema=config.ema > 0,
        ema_momentum=config.ema or 0.99,
        ema_overwrite_frequency=None,
    )
    optimizer.build(model.trainable_variables)
    return optimizer
