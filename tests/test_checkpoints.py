"""Checkpoints: what they hold, which are used, and that a run goes on from them to the same result."""

import contextlib
import csv
import dataclasses
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from experiment.session import build_model
from tests.trainings import TINY, run_training, same
from training.checkpoints import CheckpointError, Checkpoints
from training.schedule import make_optimizer
from utils import write_csv


def test_checkpoints_are_newest_by_number_and_never_of_weights_that_are_not_finite(tmp_path, digits):
    config = TINY.resolved()
    model = build_model(config, digits.pixel_means)
    checkpoints = Checkpoints(tmp_path, "", "", model, make_optimizer(config, 20, model))
    model.trainable_variables[1].assign(model.trainable_variables[1] * np.nan)
    assert not checkpoints.save() and checkpoints.last_good is None
    for step in (9, 10):
        (tmp_path / f"ckpt-{step}.index").touch()
    assert checkpoints._on_disk()[0] == str(tmp_path / "ckpt-10")


@pytest.mark.parametrize("pattern", ["[1]", "\\1", "* ?"])  # to TensorFlow; the first two do not match themselves
def test_a_checkpoint_has_the_seconds_so_far_in_a_folder_of_any_name(pattern, tmp_path, digits):
    (folder := tmp_path / f"run {pattern}").mkdir()
    config = TINY.resolved()
    model = build_model(config, digits.pixel_means)
    checkpoints, again = (Checkpoints(folder, "", "", model, make_optimizer(config, 20, model)) for _ in range(2))
    checkpoints.seconds.assign(7200.0)
    assert checkpoints.save() and checkpoints.last_good == str(folder / "ckpt-0")
    assert again.restore() == again.last_good == checkpoints.last_good and float(again.seconds.numpy()) == 7200


def test_a_full_disk_is_an_error_of_files(tmp_path, digits, monkeypatch):
    config = TINY.resolved()
    model = build_model(config, digits.pixel_means)
    checkpoints = Checkpoints(tmp_path, "", "", model, make_optimizer(config, 20, model))

    def full(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.train.Checkpoint, "write", full)
    with pytest.raises(OSError, match="No space left on device"):
        checkpoints.save_beginning(tmp_path / "beginning")


def test_rows_beyond_the_last_checkpoint_are_replaced(tmp_path, digits, uninterrupted, saved_often):
    """A process killed after it logged an epoch, and before its next checkpoint, leaves such a row."""
    folder = pathlib.Path(shutil.copytree(saved_often, tmp_path / "run"))
    *rows, last = (folder / "metrics.csv").read_text().splitlines()
    wrong = ["3", "60", *["9999"] * (last.count(",") - 1)]
    (folder / "metrics.csv").write_text("\n".join([*rows, ",".join(wrong)]))
    assert same(run_training(folder, digits, resume=True), uninterrupted)


def test_a_log_of_an_earlier_version_is_gone_on_with(tmp_path, digits, saved_often):
    """Which had a column less."""
    folder = pathlib.Path(shutil.copytree(saved_often, tmp_path / "run"))
    rows = [dict(row) for row in csv.DictReader((folder / "metrics.csv").read_text().splitlines())][:3]
    write_csv(folder / "metrics.csv", [{name: row[name] for name in row if name != "active_z1"} for row in rows])
    run_training(folder, digits, resume=True)
    units = [row["active_z1"] for row in csv.DictReader((folder / "metrics.csv").read_text().splitlines())]
    assert units[:3] == ["", "", ""] and int(units[3]) >= 0


def test_damaged_checkpoint_is_named_and_the_one_before_used(copy_of_whole, digits, uninterrupted, capsys):
    (newest,) = (copy_of_whole / "checkpoints").glob("ckpt-60.data*")
    newest.write_bytes(newest.read_bytes()[:-500])
    assert same(run_training(copy_of_whole, digits, resume=True), uninterrupted)
    assert "ckpt-60 is not used: it is damaged" in capsys.readouterr().err


def test_flipped_byte_in_a_checkpoint_is_found(copy_of_whole, digits, uninterrupted, capsys):
    (newest,) = (copy_of_whole / "checkpoints").glob("ckpt-60.data*")
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    newest.write_bytes(content)
    assert same(run_training(copy_of_whole, digits, resume=True), uninterrupted)  # nothing of it is left in the run
    assert "ckpt-60 is not used: it is damaged" in capsys.readouterr().err


def test_checkpoint_of_another_experiment_is_refused(copy_of_whole, digits, capsys):
    with pytest.raises(CheckpointError):
        run_training(copy_of_whole, digits, dataclasses.replace(TINY, n_samples=4), resume=True)
    assert "belongs to another experiment" in capsys.readouterr().err


def test_a_run_can_start_from_the_beginning_of_another(tmp_path, digits, capsys):
    """It ends as if it had been trained by itself, bit for bit, what was logged included."""
    config = dataclasses.replace(TINY, n_samples=5, epochs=3, grow_samples=0.4, ema=0.9)  # k grows after 1 epoch
    run_training(tmp_path / "other", digits, dataclasses.replace(config, n_samples=3))
    expected = run_training(tmp_path / "whole", digits, config)
    started = dataclasses.replace(config, start_from=str(tmp_path / "other"))
    assert same(run_training(tmp_path / "started", digits, started), expected)
    capsys.readouterr()
    assert same(run_training(tmp_path / "started", digits, started, resume=True), expected)
    assert "resuming at step 60" in capsys.readouterr().out  # and not from the beginning again
    first, last = (tf.train.load_checkpoint(str(tmp_path / f"started/checkpoints/ckpt-{step}")) for step in (20, 60))
    settings = "settings/.ATTRIBUTES/VARIABLE_VALUE"  # both have those of this run
    assert first.get_tensor(settings) == last.get_tensor(settings) == started.resolved().fingerprint().encode()
    assert (tmp_path / "started/arrays/prior_0000.npz").exists()
    seconds = [float(row["seconds"]) for row in csv.DictReader(open(tmp_path / "started/metrics.csv"))]
    assert seconds == sorted(seconds)  # the time of the beginning is this run's, too


def test_a_beginning_of_other_settings_is_refused(tmp_path, digits):
    config = dataclasses.replace(TINY, epochs=2, grow_samples=0.5, first_samples=3, n_samples=4).resolved()
    model = build_model(config, digits.pixel_means)

    def checkpoints_of(config):
        fingerprints = config.fingerprint(), config.beginning_fingerprint()
        return Checkpoints(tmp_path, *fingerprints, model, make_optimizer(config, 20, model))

    checkpoints = checkpoints_of(config)
    checkpoints.save()
    checkpoints.save_beginning(tmp_path / "beginning")
    for changes, refused in (
        (dict(n_samples=7), False), (dict(objective="dreg"), True), (dict(backward_samples=3), False),
        (dict(backward_samples=2), True), (dict(first_samples=2), True),
    ):  # fmt: skip
        checkpoints = checkpoints_of(dataclasses.replace(config, **changes))
        said = "--start_from: checkpoint .* is not used: .*another experiment"
        with pytest.raises(CheckpointError, match=said) if refused else contextlib.nullcontext():
            checkpoints.start_from(tmp_path / "beginning")


def test_a_checkpoint_that_lacks_the_optimiser_is_refused(tmp_path, digits):
    """Else a run would go on with moments of zero, and from the first step."""
    config = dataclasses.replace(TINY, run_dir=str(tmp_path)).resolved()
    model = build_model(config, digits.pixel_means)
    checkpoints = Checkpoints(tmp_path, config.fingerprint(), "", model, make_optimizer(config, 20, model))
    without = {"model": model, "seconds": checkpoints.seconds, "settings": checkpoints.settings}
    tf.train.Checkpoint(**without).write(str(tmp_path / "ckpt-7"))
    with pytest.raises(CheckpointError, match="no usable checkpoint"):
        checkpoints.restore()
