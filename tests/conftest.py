import numpy as np
import pytest

from experiment import run_folder, session
from experiment.startup import start_tensorflow

start_tensorflow(gpu=-1)


@pytest.fixture(scope="session")
def mnist():
    """MNIST through the project's own loader, from wherever it finds it."""
    from data import load

    return load("mnist")


@pytest.fixture(scope="session")
def digits(mnist):
    """A small data set of real digits, for training runs of seconds: 400 training and 200 test images."""
    return mnist._replace(
        train_images=mnist.train_images[:400],
        train_labels=mnist.train_labels[:400],
        test_images=mnist.test_images[:200],
        test_labels=mnist.test_labels[:200],
        entry=mnist.entry._replace(n_train=400, n_test=200),
    )


@pytest.fixture
def few_digits(digits, monkeypatch, tmp_path):
    """Programs in this process find 400 training images, and results/ in a temporary folder."""
    monkeypatch.setattr(session, "load", lambda *_: digits)
    monkeypatch.setattr(run_folder, "RESULTS", tmp_path)
    return tmp_path


@pytest.fixture
def binary_images():
    """[6, 784] of 0 and 1."""
    return (np.random.default_rng(0).random((6, 784)) < 0.03).astype(np.float32)
