"""The latent spaces of two stochastic layers, of 4 and 2 units.

What does the upper layer know of an image that the lower one does not, and what is left to the lower one when the upper
one is given?
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # it can be run from anywhere

from experiment import command_line

DEFAULTS = dict(stochastic_layers=2, n_latent=(4, 2), n_samples=5, preset="fast")
FIXED = ("stochastic_layers", "conditional")


def work(session):
    """The posterior means of both layers, coloured by label, and z1 redrawn under a fixed z2."""
    session.train_or_load()
    session.report()
    session.draw_posterior_means(n_images=None, standardise=True)
    session.draw_z1_redrawn()
    print(f"posterior_pca.png and z1_redrawn.png are in {session.run.figures}")


if __name__ == "__main__":
    sys.exit(command_line(work, __doc__, defaults=DEFAULTS, fixed=FIXED))
