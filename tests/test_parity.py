"""The program is the reference's experiment: after one pass over MNIST it stands where the reference stood."""

import pytest
import tensorflow as tf

from evaluation import make_bounds
from experiment.run_folder import Run
from experiment.session import build_model
from experiment.settings import Config
from training.loop import train


@pytest.mark.parametrize(("n_samples", "reference"), [(1, -164.0), (5, -156.5)])
def test_one_pass_reaches_the_reference_s_test_bound(n_samples, reference, mnist, tmp_path):
    """3,000 steps of 20 images, Adam at 1e-4; within 2 nats, for the reference's own value is one noisy reading."""
    config = Config(n_samples=n_samples, epochs=1, run_dir=str(tmp_path)).resolved()
    model = build_model(config, mnist.pixel_means)
    train(config, Run(tmp_path), mnist, model)
    bound = make_bounds(model, n_samples)(mnist.binarised_test_images(), None, tf.constant([0, 0]))["iwae_elbo"]
    assert bound == pytest.approx(reference, abs=2)
