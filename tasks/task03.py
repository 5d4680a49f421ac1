"""The latent spaces of two stochastic layers, of 4 and 2 units.

What does the upper layer know of an image that the lower one does not, and what is left to the lower one when the upper
one is given?
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # it can be run from anywhere

from experiment import command_line  # noqa: E402

DEFAULTS = dict(stochastic_layers=2, n_latent=(4, 2), n_samples=5, preset="fast")
FIXED = ("stochastic_layers", "conditional")
ROWS, COLUMNS = 8, 12  # values of z2, and draws of z1 for each


def redrawn(session):
    """Mean images [ROWS * COLUMNS, height, width]: ROWS draws of z2 from the prior, and COLUMNS of z1 given each."""
    import tensorflow as tf

    from models.random import Stream, stateless_seed

    noise_1, noise_2 = session.model.noise(1, ROWS * COLUMNS, stateless_seed(session.config.seed, Stream.PICTURE, 0))
    means = session.model.decode((noise_1, tf.repeat(noise_2[:, :ROWS], COLUMNS, axis=1)))
    return session.as_images(means)


def work(session):
    """The posterior means of both layers, coloured by label, and z1 redrawn under a fixed z2."""
    from plots.tasks import redrawn_samples

    session.train_or_load()
    session.report()
    session.draw_posterior_means(n_images=None, standardise=True)
    redrawn_samples(redrawn(session), COLUMNS, session.run.figures / "z1_redrawn.png")
    print(f"posterior_pca.png and z1_redrawn.png are in {session.run.figures}")


if __name__ == "__main__":
    sys.exit(command_line(work, __doc__, defaults=DEFAULTS, fixed=FIXED))
