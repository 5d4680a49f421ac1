"""The training loop: what a step does, and that nothing but the seed decides what comes out."""

import concurrent.futures
import csv
import dataclasses
import os
import pathlib
import shutil
import signal
import time
import types

import numpy as np
import pytest
import tensorflow as tf

from experiment.run_folder import Run
from experiment.session import build_model
from tests.trainings import TINY, run_training, same
from training import loop
from training.loop import Interrupted, TrainingDiverged, train
from training.schedule import make_optimizer
from training.soap import SOAP
from training.steps import make_steps
from utils import sheet


def test_same_seed_same_weights_bit_for_bit_however_steps_are_divided(tmp_path, digits, uninterrupted, monkeypatch):
    monkeypatch.setattr(loop, "SECONDS_PER_CALL", 0.002)
    assert same(run_training(tmp_path / "again", digits), uninterrupted)


def test_another_seed_gives_other_weights(tmp_path, digits, uninterrupted):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:  # where Python allows no handlers of signals
        other = pool.submit(run_training, tmp_path / "other", digits, dataclasses.replace(TINY, seed=6)).result()
    assert not np.allclose(other[0][0], uninterrupted[0][0])


COMPILED = dict(jit="on", optimizer="soap", schedule="cosine", lr_warmup=0.5)
CHANGES = {"paper": {}, "averaged, growing k": {"ema": 0.9, "grow_samples": 0.4}, "soap, compiled": COMPILED}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_stopped_by_a_signal_and_resumed_ends_the_same(tmp_path, digits, uninterrupted, monkeypatch, changes):
    config = dataclasses.replace(TINY, **changes)
    expected = uninterrupted if not changes else run_training(tmp_path / "whole", digits, config)
    monkeypatch.setattr(loop, "SECONDS_PER_CALL", 0.0)  # one step a call
    report = loop._Training._report

    def report_then_interrupt(self, step, *args):
        report(self, step, *args)
        self.steps_per_call = 1  # so that it stops within an epoch, in which k has grown
        if step >= 27:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(loop._Training, "_report", report_then_interrupt)
    with pytest.raises(Interrupted, match=r"stopped at step \d+ \(epoch 2 of 3\)"):
        run_training(tmp_path / "run", digits, config)
    monkeypatch.setattr(loop._Training, "_report", report)
    beginning = tmp_path / "run/checkpoints/beginning.index"
    before = beginning.stat().st_mtime_ns if beginning.exists() else None
    assert same(run_training(tmp_path / "run", digits, config, resume=True), expected)
    assert before is None or beginning.stat().st_mtime_ns == before  # other runs start from it


def test_signals_are_the_program_s_again_after_training(tmp_path, digits):
    def mine(number, frame):
        pass

    before = {number: signal.signal(number, mine) for number in (signal.SIGINT, signal.SIGTERM)}
    run_training(tmp_path / "run", digits, dataclasses.replace(TINY, epochs=1))
    found = [signal.signal(number, handler) for number, handler in before.items()]
    assert found == [mine, mine]


def test_stopped_after_the_last_step_it_ends_there(tmp_path, digits, monkeypatch):
    """And does not go on to the pictures and the evaluation; resumed, it has nothing left to train."""
    look = loop._Training._look

    def look_then_interrupt(self, epochs):
        look(self, epochs)
        if epochs == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop._Training, "_look", look_then_interrupt)
    with pytest.raises(Interrupted, match="stopped after the last step, 60, which is saved"):
        run_training(tmp_path / "run", digits)
    assert (tmp_path / "run/checkpoints/ckpt-60.index").exists()


def test_resumed_amid_an_epoch_without_its_log_it_keeps_no_wrong_weights(tmp_path, digits, saved_often):
    folder = pathlib.Path(shutil.copytree(saved_often, tmp_path / "run"))
    (folder / "metrics.csv").unlink()
    kept = (folder / "arrays/after_0002.weights.h5").read_bytes()
    _, metrics = run_training(folder, digits, resume=True)  # from step 59, in the epoch after the second
    assert (folder / "arrays/after_0002.weights.h5").read_bytes() == kept
    assert [row["epoch"] for row in csv.DictReader(metrics.splitlines())] == ["3"]


def test_the_averaged_weights_are_monitored_and_tested_and_leave_training_alone(tmp_path, digits, uninterrupted):
    averaged, _ = run_training(tmp_path, digits, dataclasses.replace(TINY, ema=0.9))
    model = build_model(TINY.resolved(), digits.pixel_means)
    model.load_weights(Run(tmp_path, lock=False).weights_after(3))  # as they were while the last epoch was monitored
    for weights, kept, plain in zip(averaged, model.trainable_variables, uninterrupted[0], strict=True):
        np.testing.assert_array_equal(weights, kept)
        assert not np.array_equal(weights, plain)
    saved = tf.train.load_checkpoint(str(tmp_path / "checkpoints" / "ckpt-60"))
    for i, plain in enumerate(uninterrupted[0]):  # averaging changes nothing in the weights that are trained
        stored = saved.get_tensor(f"optimizer/_trainable_variables/{i}/.ATTRIBUTES/VARIABLE_VALUE")
        np.testing.assert_allclose(stored, plain, atol=1e-6)


def test_every_epoch_and_seed_has_an_order_of_its_own(tmp_path, digits, monkeypatch):
    orders = set()

    def make_steps_and_note(config, *args):
        run = make_steps(config, *args)
        return lambda *data: (orders.add(tuple(data[2].numpy())), run(*data))[1]

    monkeypatch.setattr(loop, "make_steps", make_steps_and_note)
    for seed in (5, 6):  # batches of 30 leave out ten images, others in each epoch
        run_training(tmp_path / str(seed), digits, dataclasses.replace(TINY, epochs=2, seed=seed, batch_size=30))
    assert len(orders) == 4 and all(sorted(order) == list(range(400)) for order in orders)


@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_the_schedule_and_the_averaging_reach_either_optimizer(tmp_path, digits, optimizer):
    config = dataclasses.replace(TINY, schedule="cosine", lr_warmup=1.0, optimizer=optimizer, ema=0.7)
    rows = csv.DictReader(run_training(tmp_path / "run", digits, config)[1].splitlines())
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx([0, 1e-3, 5.05e-4, 1e-5], rel=1e-4)
    made = make_optimizer(config.resolved(), 20, build_model(config.resolved(), digits.pixel_means))
    assert made.use_ema and made.ema_momentum == 0.7
    assert isinstance(made, SOAP) == (optimizer == "soap") and made.epsilon == {"adam": 1e-4, "soap": 1e-8}[optimizer]
    assert (made.beta_1, made.beta_2) == {"adam": (0.9, 0.999), "soap": (0.95, 0.99)}[optimizer]


def test_seconds_are_those_that_training_took(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(loop, "SECONDS_PER_CALL", 0.0)
    monkeypatch.setattr(loop, "SECONDS_PER_CHECKPOINT", 0.0)  # a checkpoint after each call
    config = dataclasses.replace(TINY, epochs=1).resolved()
    model, began = build_model(config, digits.pixel_means), time.monotonic()
    seconds = train(config, run := Run(tmp_path), digits, model)
    assert 0.1 * (time.monotonic() - began) < seconds < time.monotonic() - began
    first, last = (float(row["seconds"]) for row in csv.DictReader(run.metrics.read_text().splitlines()))
    assert 0 <= first <= last <= seconds + 0.1  # rounded to tenths


def test_a_checkpoint_is_saved_a_minute_after_the_last(tmp_path, digits, monkeypatch):
    now, saved, save, told = [0.0], [], loop._Training._save, []
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(monotonic=lambda: now[0]))

    def make_steps_that_take_time(*args):
        run = make_steps(*args)

        def take(*data):  # each call takes 20.2 seconds
            now[0] += 20.2
            return run(*data)

        return take

    def report(self, step, bound, seconds_per_step):
        told.append(seconds_per_step)
        self.steps_per_call = 1

    monkeypatch.setattr(loop, "make_steps", make_steps_that_take_time)

    monkeypatch.setattr(loop._Training, "_report", report)
    monkeypatch.setattr(loop._Training, "_save", lambda self: (saved.append(self.checkpoints.step), save(self)))
    run_training(tmp_path / "run", digits, dataclasses.replace(TINY, epochs=1))
    assert saved == [0, 4, 7, 10, 13, 16, 19, 20]  # the first call takes two steps
    assert told == pytest.approx([10.1] + 18 * [20.2])


def test_samples_grow_from_the_first_ones(tmp_path, digits, monkeypatch):
    taken, samples = [], set()

    def make_steps_and_note(config, *args):
        run = make_steps(config, *args)
        samples.add((config.n_samples, config.backward_samples, config.beta_warmup))
        return lambda *data: (taken.append((config.n_samples, int(data[-1] - data[-2]))), run(*data))[1]

    monkeypatch.setattr(loop, "make_steps", make_steps_and_note)
    growing = dict(grow_samples=0.5, first_samples=1, backward_samples=2, beta_warmup=3)
    config = dataclasses.replace(TINY, n_samples=11, epochs=4, **growing)
    rows = list(csv.DictReader(run_training(tmp_path / "run", digits, config)[1].splitlines()))
    assert [row["n_samples"] for row in rows] == ["1", "1", "11", "11", "11"]
    assert [row["test_iwae_elbo"] == row["test_vae_elbo"] for row in rows] == [True, True, False, False, False]
    assert [k for k, _ in taken] == sorted(k for k, _ in taken)
    assert {k: sum(n for samples, n in taken if samples == k) for k in (1, 11)} == {1: 40, 11: 40}
    assert samples == {(1, None, 3), (11, 2, 3)}


def test_a_second_ctrl_c_does_not_wait_for_the_step(tmp_path, digits):
    config = dataclasses.replace(TINY, run_dir=str(tmp_path)).resolved()
    one = loop._Training(config, Run(tmp_path), digits, build_model(config, digits.pixel_means), False, None)
    one._on_signal(2, None)
    with pytest.raises(KeyboardInterrupt):
        one._on_signal(2, None)


def test_divergence_stops_with_step_value_and_checkpoint(tmp_path, digits):
    with pytest.raises(TrainingDiverged, match=r"was (nan|-?inf) at step 1 \(epoch 1 of 3\); the last .* is .*ckpt-0"):
        run_training(tmp_path / "run", digits, dataclasses.replace(TINY, learning_rate=1e30))


def test_weights_that_are_not_finite_after_the_last_step_end_no_run_as_trained(tmp_path, digits):
    """Where its objective still was."""
    config = dataclasses.replace(TINY, run_dir=str(tmp_path)).resolved()
    one = loop._Training(config, Run(tmp_path), digits, build_model(config, digits.pixel_means), False, None)
    one._save()
    one.model.trainable_variables[1].assign(one.model.trainable_variables[1] * np.nan)
    with pytest.raises(TrainingDiverged, match="weights are not finite at step 0; the last good .*ckpt-0"):
        one._save()


def test_tensorboard_has_train_and_test_under_the_same_tags_and_the_settings(copy_of_whole, uninterrupted):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.metadata import PLUGIN_NAME
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    rows = list(csv.DictReader(uninterrupted[1].splitlines()))
    read = {split: EventAccumulator(str(copy_of_whole / "tensorboard" / split)).Reload() for split in ("train", "test")}
    for split, events in read.items():
        shown = [(e.step, tf.make_ndarray(e.tensor_proto)) for e in events.Tensors("iwae_elbo")]
        assert [step for step, _ in shown] == [int(row["step"]) for row in rows]
        np.testing.assert_allclose([v for _, v in shown], [float(row[f"{split}_iwae_elbo"]) for row in rows], rtol=1e-5)
    assert "learning_rate" in read["train"].Tags()["tensors"] and "learning_rate" not in read["test"].Tags()["tensors"]
    assert [event.step for event in read["test"].Tensors("prior means")] == [0, 20, 40, 60]
    with np.load(copy_of_whole / "arrays" / "prior_0003.npz") as arrays:
        ink = sheet(arrays["means"], 10)
    *_, png = tf.make_ndarray(read["test"].Tensors("prior means")[-1].tensor_proto)  # width, height, picture
    np.testing.assert_allclose(tf.io.decode_png(png).numpy()[..., 0] / 255, 1 - ink, atol=0.01)
    settings = read["test"].SummaryMetadata("_hparams_/session_start_info").plugin_data
    assert settings.plugin_name == PLUGIN_NAME
    start = HParamsPluginData.FromString(settings.content).session_start_info
    assert start.group_name == "whole"  # a trial for each run, called as its folder was
    numbers = start.hparams
    assert (numbers["learning_rate"].number_value, numbers["n_samples"].number_value) == (1e-3, 3)
    assert "hyperparameters" not in numbers  # each is a setting of its own
