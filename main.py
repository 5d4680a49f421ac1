"""Trains an importance weighted autoencoder and reports its test log likelihood."""

import sys

from experiment import command_line

DESCRIPTION = (
    "Importance Weighted Autoencoders (Burda, Grosse, Salakhutdinov 2016): trains a model with one or two stochastic"
    " layers and reports its test log likelihood. Without flags it follows the paper's schedule, which takes hours or"
    " days; --preset quick takes minutes."
)


def work(session):
    """Trains unless there is only to evaluate; then measures."""
    session.train_or_load()
    session.measure()


if __name__ == "__main__":
    sys.exit(command_line(work, DESCRIPTION))
