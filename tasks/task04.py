"""The conditional IWAE with a learned prior p(z|y): prior, encoder and decoder are given the label y.

How many nats does the label save, and does z come to mean the same for every label?
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # it can be run from anywhere

from experiment import command_line

DEFAULTS = dict(conditional="learned_prior", n_samples=5, preset="fast")
FIXED = ("conditional",)


def work(session):
    """Trains, draws (the images from the prior with one label in each row), and measures log p(x|y)."""
    session.train_or_load()
    session.report()
    print(f"learning_curves.png, prior.png and posterior_pca.png are in {session.run.figures}")


if __name__ == "__main__":
    sys.exit(command_line(work, __doc__, defaults=DEFAULTS, fixed=FIXED))
