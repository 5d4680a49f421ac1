"""What training looks at, keeps and says along the way."""

import csv
import dataclasses

import numpy as np
import pytest

from evaluation import make_bounds
from experiment.run_folder import Run
from experiment.session import build_model
from models.iwae import IWAE
from models.random import Stream, stateless_seed
from tests.trainings import TINY, run_training
from training import loop
from training.loop import train
from utils import read_csv


@pytest.mark.parametrize(("monitored", "every"), [(50, {"train": 8, "test": 4}), (500, {"train": 1, "test": 1})])
def test_images_are_monitored_with_their_own_labels(monitored, every, tmp_path, digits, monkeypatch):
    if monitored < loop.MONITORED:
        monkeypatch.setattr(loop, "MONITORED", monitored)  # spread over the 400 and the 200
    config = dataclasses.replace(TINY, epochs=1, conditional="learned_prior").resolved()
    run, model, active = Run(tmp_path), build_model(config, digits.pixel_means), []
    units = np.array([1, 0.005, 0.02, 0])
    monkeypatch.setattr(loop, "make_activity", lambda *_, **__: lambda *of: active.append(of) or [units])
    train(config, run, digits, model)
    x, y, seed = active[-1]
    np.testing.assert_array_equal(x, digits.binarised_test_images()[:: every["test"]])
    np.testing.assert_array_equal(y, digits.context("test", True)[:: every["test"]])
    assert seed == 5
    (*_, row) = csv.DictReader(run.metrics.read_text().splitlines())
    assert row["active_z1"] == "2"  # of the four
    means = digits.train_images[:: every["train"]] / 255
    train_x = (np.random.default_rng([5, Stream.MONITOR]).random(means.shape) < means).astype(np.float32)
    for split, x in (("train", train_x), ("test", digits.binarised_test_images()[:: every["test"]])):
        y, seed = digits.context(split, True)[:: every[split]], stateless_seed(5, Stream.MONITOR, 0)
        bounds = make_bounds(model, 3, jit=False)(x, y, seed)
        assert float(row[f"{split}_iwae_elbo"]) == pytest.approx(bounds["iwae_elbo"], abs=1e-3)


def test_of_many_labels_ten_are_pictured_in_a_row_each_with_one_noise_a_column():
    config = dataclasses.replace(TINY, conditional="standard_prior").resolved()
    (noise,), y = loop._for_pictures(config, IWAE((4,), (2,), 12, n_context=25))
    assert noise.shape == (1, 100, 2) and y.shape == (100, 25)
    labels, noise = y.argmax(axis=1).reshape(10, 10), noise.numpy().reshape(10, 10, 2)
    assert (labels == labels[:, :1]).all() and (noise == noise[:1]).all()
    assert labels[:, 0].tolist() == [0, 2, 5, 7, 10, 12, 15, 17, 20, 22]
    (other,), _ = loop._for_pictures(dataclasses.replace(config, seed=6), IWAE((4,), (2,), 12, n_context=25))
    assert not np.array_equal(other.numpy().reshape(10, 10, 2), noise)  # as the seed decides


def test_the_call_that_compiles_is_not_what_the_time_left_goes_by(capsys):
    one = loop._Training.__new__(loop._Training)
    one.config, one.phase, one.steps_per_epoch, one.total = TINY.resolved(), None, 20, 60
    one._enter_phase(0)
    one._report(2, -100.0, 50.0)
    assert one.steps_per_call == 20 and capsys.readouterr().out == ""
    one._report(22, -100.0, 0.1)
    assert one.steps_per_call == 5
    assert capsys.readouterr().out == "training: 38 steps left with k=3, about 4 s\n"
    one._report(60, -90.0, 0.1)
    assert capsys.readouterr().out == "step 38/38, bound -90.00, 0 s left\n"


def test_where_k_grows_the_time_left_is_of_the_steps_with_this_k(capsys):
    one = loop._Training.__new__(loop._Training)
    one.config, one.phase = dataclasses.replace(TINY, grow_samples=0.4, first_samples=1).resolved(), None
    one.steps_per_epoch, one.total = 20, 60
    one._enter_phase(0)
    one._report(2, -100.0, 50.0)
    one._report(12, -100.0, 0.1)
    assert capsys.readouterr().out == "training: 8 steps left with k=1, about 1 s; then 40 with k=3\n"
    one._enter_phase(1)
    assert one.steps_per_call == 2  # another compiled step, whose speed is not known
    one._report(22, -100.0, 50.0)
    one._report(30, -100.0, 0.1)
    assert capsys.readouterr().out == "training: 30 steps left with k=3, about 3 s\n"


def test_weights_are_this_run_s_own_again_where_looking_at_averages_fails(tmp_path, digits):
    config = dataclasses.replace(TINY, ema=0.9, run_dir=str(tmp_path)).resolved()
    one = loop._Training(config, Run(tmp_path), digits, build_model(config, digits.pixel_means), False, None)
    one.optimizer.iterations.assign(1)
    before = one.model.get_weights()
    with pytest.raises(OSError), one._weights_to_test():
        assert not all(map(np.array_equal, one.model.get_weights(), before))
        raise OSError
    assert all(map(np.array_equal, one.model.get_weights(), before))


def test_weights_and_pictures_are_kept_after_powers_of_two_and_the_last_epoch(tmp_path, digits):
    config = dataclasses.replace(TINY, epochs=10, run_dir=str(tmp_path)).resolved()
    run = Run(tmp_path)
    one = loop._Training(config, run, digits, build_model(config, digits.pixel_means), False, None)
    for epochs in range(11):
        one.optimizer.iterations.assign(20 * epochs)
        one._look(epochs)
    for name in ("after", "prior"):
        assert [done for done, _ in run.kept(name)] == [0, 1, 2, 4, 8, 10]


def test_before_the_first_step_there_is_no_average_to_look_at(tmp_path, digits):
    config = dataclasses.replace(TINY, ema=0.9, run_dir=str(tmp_path)).resolved()
    one = loop._Training(config, Run(tmp_path), digits, build_model(config, digits.pixel_means), False, None)
    before = one.model.get_weights()
    with one._weights_to_test():
        assert all(map(np.array_equal, one.model.get_weights(), before))


@pytest.fixture(scope="module")
def averaged(tmp_path_factory, digits):
    """(the Run of a training that averages its weights, its settings, a model with the averages of its end)."""
    folder, config = tmp_path_factory.mktemp("averaged"), dataclasses.replace(TINY, ema=0.9).resolved()
    run_training(folder, digits, config)
    run, model = Run(folder, lock=False), build_model(config, digits.pixel_means)
    model.load_weights(run.weights_after(3))
    return run, config, model


def test_active_units_along_training_are_those_of_the_averaged_weights(tmp_path, digits, monkeypatch):
    config, seen = dataclasses.replace(TINY, ema=0.9, epochs=1).resolved(), []
    run, model = Run(tmp_path), build_model(config, digits.pixel_means)
    noted = lambda *_: seen.append(model.get_weights()) or [np.ones(4)]  # noqa: E731
    monkeypatch.setattr(loop, "make_activity", lambda *_, **__: noted)
    train(config, run, digits, model)  # which leaves the model with the averages
    assert all(map(np.array_equal, seen[-1], model.get_weights()))


def test_bounds_along_training_are_those_of_the_averaged_weights(averaged, digits):
    run, _, model = averaged
    (*_, row) = read_csv(run.metrics)
    x, seed = digits.binarised_test_images(), stateless_seed(5, Stream.MONITOR, 0)
    bounds = make_bounds(model, 3, jit=False)(x, None, seed)
    assert float(row["test_iwae_elbo"]) == pytest.approx(bounds["iwae_elbo"], abs=1e-3)


def test_pictures_of_the_prior_are_those_of_the_averaged_weights(averaged):
    run, config, model = averaged
    means = model.decode(*loop._for_pictures(config, model))
    with np.load(run.arrays / "prior_0003.npz") as arrays:
        np.testing.assert_allclose(arrays["means"].reshape(100, -1), means, atol=1e-6)
