"""The learning rate at each step, and the optimiser."""

import keras

from training.replicas import LocalUpdates
from training.soap import SOAP
from training.stages import PAPER_STAGES


class Adam(LocalUpdates, keras.optimizers.Adam):
    """Keras's, which several replicas can share; on one device it is the same."""


def learning_rate(config, steps_per_epoch):
    """The learning rate as a Keras schedule, or a number where it is constant.

    The paper's is 8 stages: stage i = 0 ... 7 is 3**i epochs at 1e-3 * 10**(-i/7) (Burda et al., sec. 5).
    """
    if config.schedule == "paper":
        stages = range(PAPER_STAGES)
        # Keras takes values[i] up to and including step boundaries[i], and steps count from 0.
        boundaries = [steps_per_epoch * (3 ** (i + 1) - 1) // 2 - 1 for i in stages[:-1]]
        return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, [1e-3 * 10 ** (-i / 7) for i in stages])
    if config.schedule == "cosine":
        warmup = int(config.lr_warmup * steps_per_epoch)
        return keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else config.learning_rate,
            config.n_epochs * steps_per_epoch - warmup,
            alpha=0.01,
            warmup_target=config.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    return config.learning_rate


def make_optimizer(config, steps_per_epoch, model):
    """Adam as in the paper (beta 0.9 and 0.999, epsilon 1e-4), or SOAP; averaging the weights too if `config.ema`.

    Keras adds epsilon to sqrt(v) before v's bias is corrected, as the reference does. PyTorch adds it after the
    correction, so in the first steps epsilon has more effect here.
    """
    averaging = dict(use_ema=config.ema > 0, ema_momentum=config.ema)
    rate = learning_rate(config, steps_per_epoch)
    soap = config.optimizer == "soap"
    optimizer = SOAP(rate, **averaging) if soap else Adam(rate, epsilon=1e-4, **averaging)
    optimizer.build(model.trainable_variables)
    return optimizer
