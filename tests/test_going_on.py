"""How a stopped run is gone on with, what a run can start from, and the command that a program says."""

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf

import main
from experiment import command_line, program, session
from experiment.flags import parse_flags
from experiment.run_folder import DRAWN, Run, load_config
from tests.helpers import TINY, go_on_line, in_process, newest_checkpoint, one_line, weights_in
from utils import write_csv


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ("vae_elbo", "has no checkpoint after its first 2 epochs"),
        ("dreg", "not dreg"),
        ("vae_elbo", "has no metrics.csv"),
        ("vae_elbo", "has no metrics.csv of its first epochs"),
    ],
)
def test_starting_from_a_run_with_no_such_beginning(objective, said, tmp_path, capfd):
    flags = "--epochs 4 --grow_samples 0.5 --objective".split()
    other = parse_flags([*flags, "iwae_elbo", "--run_dir", str(tmp_path / "other")])[0]
    run = Run(tmp_path / "other")
    run.begin(other)
    if "metrics.csv" in said:
        run.beginning.with_suffix(".index").touch()
    if "of its first epochs" in said:  # as where a damaged one was deleted, and the run gone on with
        write_csv(run.metrics, [{"epoch": 2, "step": 20} | dict.fromkeys(DRAWN, 0)])
    assert in_process(*flags, objective, "--start_from", run.path, "--run_dir", tmp_path / "new") == 2
    assert said in capfd.readouterr().err and not (tmp_path / "new").exists()


def test_a_run_that_has_no_whole_metrics_is_not_started_from(finished_copy, tmp_path, capfd):
    (finished_copy / "metrics.csv").write_text("epoch,step\n0,0\nx,1\n")
    flags = "--epochs 4 --grow_samples 0.5 --start_from".split()
    assert in_process(*flags, finished_copy, "--run_dir", tmp_path / "new") == 2
    one_line(capfd, f"--start_from: {finished_copy}/metrics.csv is damaged")
    assert not (tmp_path / "new").exists()


def test_a_run_with_damaged_arrays_is_not_started_from(finished_copy, tmp_path, capfd):
    (finished_copy / "arrays" / "prior_0000.npz").write_bytes(b"")
    flags = "--epochs 4 --grow_samples 0.5 --start_from".split()
    assert in_process(*flags, finished_copy, "--run_dir", tmp_path / "new") == 2
    assert f"--start_from: {finished_copy}/arrays/prior_0000.npz cannot be read" in capfd.readouterr().err
    assert not (tmp_path / "new").exists()


def test_resume_without_a_checkpoint(finished_copy, capfd):
    shutil.rmtree(finished_copy / "checkpoints")
    (finished_copy / "training.json").unlink()
    assert in_process("--resume", "--run_dir", finished_copy) == 2
    assert "--resume: no checkpoint in" in capfd.readouterr().err


def stopped(*flags):
    """Opens a run, and is stopped before it does anything."""

    def work(session):
        raise KeyboardInterrupt

    return command_line(work, main.DESCRIPTION, [str(flag) for flag in flags])


def test_a_folder_with_spaces_and_brackets_in_its_name(few_digits, no_figures, monkeypatch, capfd):
    """It is trained in, named so that a shell takes it as it is, gone on with, and measured."""
    monkeypatch.setattr(sys, "argv", ["my programs/main.py"])
    folder = few_digits / "a run [1] *? of 'mine'"
    assert in_process(*TINY, "--jit", "off", "--epochs", 1, "--run_dir", folder) == 0
    capfd.readouterr()
    for mode in ("--eval_only", "--resume"):
        if mode == "--resume":
            (folder / "model.weights.h5").unlink()
        assert stopped(mode, "--run_dir", folder) == 130
        words = go_on_line(capfd.readouterr().err)
        assert words == ["my programs/main.py", mode, "--run_dir", str(folder)]
        assert in_process(*words[1:]) == 0
        assert "test log likelihood (k=20)" in capfd.readouterr().out.splitlines()[-1]  # as it was measured at first


def test_what_to_go_on_with_names_the_data_s_folder_and_the_gpu(few_digits, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["main.py"])
    (few_digits / "data").mkdir()
    flags = ("--data_dir", few_digits / "data", "--gpu", "-1", "--run_dir", few_digits / "run")
    Run(few_digits / "run", lock=False).checkpoints.mkdir(parents=True)
    monkeypatch.setattr(Run, "has_checkpoints", lambda self: (self.checkpoints / "ckpt-0.index").exists())

    def work(session):
        (session.run.checkpoints / "ckpt-0.index").touch()
        raise KeyboardInterrupt

    assert command_line(work, main.DESCRIPTION, [*map(str, flags)]) == 130
    words = dict(zip(*[iter(go_on_line(capfd.readouterr().err)[2:])] * 2))
    assert words == {"--run_dir": f"{few_digits}/run", "--data_dir": f"{few_digits}/data", "--gpu": "-1"}


def test_what_to_go_on_with_does_not_start_from_another_run_again(finished_copy, capfd):
    config = dataclasses.replace(load_config(finished_copy), start_from="elsewhere")
    program._say_how_to_go_on(config, Run(finished_copy, lock=False))
    assert "--start_from" not in go_on_line(capfd.readouterr().err)


@pytest.mark.parametrize(
    "error", [MemoryError("no room"), tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")]
)
def test_too_little_memory_is_one_line_with_code_2_and_the_way_on(error, finished_copy, capfd):
    def work(session):
        raise error

    assert command_line(work, None, ["--eval_only", "--run_dir", str(finished_copy)]) == 2
    said = capfd.readouterr().err
    assert "there is not enough memory for so many samples" in said and said.count("\n") == 2
    assert go_on_line(said)[1] == "--eval_only"


def test_what_to_go_on_with_asks_for_the_same_measurement(finished_copy, capfd):
    flags = ["--eval_samples", "25", "--per_image", str(finished_copy / "each.csv"), "--gpu", "-1"]
    assert stopped("--eval_only", "--run_dir", finished_copy, *flags) == 130
    words = go_on_line(capfd.readouterr().err)[1:]
    assert sorted(words) == sorted(["--eval_only", "--run_dir", str(finished_copy), *flags])


def test_what_to_go_on_with_says_how_many_images_all_are_where_fewer_were_saved(finished_copy, capfd):
    config = dataclasses.replace(load_config(finished_copy), eval_images=None)
    program._say_how_to_go_on(config, Run(finished_copy))
    words = go_on_line(capfd.readouterr().err)
    assert words[words.index("--eval_images") + 1] == "10000"
    program._say_how_to_go_on(dataclasses.replace(config, held_out=150), Run(finished_copy, lock=False))
    words = go_on_line(capfd.readouterr().err)
    assert words[words.index("--eval_images") + 1] == "150"


def test_a_run_that_is_stopped_while_it_draws_is_resumed_and_draws(few_digits, monkeypatch, capfd):
    def stopped_here(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(session.Session, "draw", stopped_here)
        assert in_process(*TINY, "--jit", "off", "--epochs", 1, "--run_dir", few_digits / "run") == 130
    words = go_on_line(capfd.readouterr().err)[1:]
    drawn = []
    monkeypatch.setattr(session.Session, "draw", lambda self: drawn.append(self.run.is_trained()))
    assert "--resume" in words and in_process(*words) == 0
    assert drawn == [False] and Run(few_digits / "run").is_trained()


def test_hyperparameters_are_saved_named_and_resumed_with(few_digits, no_figures, capfd):
    flags = (*TINY, "--jit", "off", "--objective", "piwae", "--epochs", 1, "--n_samples", 4)
    assert in_process(*flags, "--groups", 2) == 0
    (folder,) = few_digits.glob("paper/*")
    assert folder.name.startswith("piwae-1l-k4") and "-groups-2" in folder.name
    assert json.loads((folder / "config.json").read_text())["experiment"]["hyperparameters"] == {"groups": 2}
    expected, settings = weights_in(folder), (folder / "config.json").read_bytes()
    (folder / "model.weights.h5").unlink()
    for path in (folder / "checkpoints").glob("ckpt-4.*"):  # the last one: it goes on from the first weights
        path.unlink()
    assert newest_checkpoint(folder) == 0
    assert in_process("--resume", "--run_dir", folder, "--eval_images", 20) == 0
    for a, b in zip(weights_in(folder), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (folder / "config.json").read_bytes() == settings  # as it was begun, with which versions
    assert in_process("--resume", "--run_dir", folder, "--groups", 4) == 2
    assert "--groups: 4, but" in capfd.readouterr().err


@pytest.mark.parametrize("mode", ["--resume", "--eval_only"])
def test_a_run_of_a_preset_that_meant_something_else_is_gone_on_with_as_it_was(mode, finished_copy, no_figures, capfd):
    saved = json.loads((finished_copy / "config.json").read_text())
    assert saved["preset"] == "paper" and saved["experiment"]["epochs"] == 2
    (finished_copy / "config.json").write_text(json.dumps(saved | {"preset": "fast"}))
    before = weights_in(finished_copy)
    assert load_config(finished_copy).preset == "fast" and load_config(finished_copy).optimizer == "adam"
    assert in_process(mode, "--run_dir", finished_copy) == 0
    assert "50 images, 20 samples each" in capfd.readouterr().out  # the evaluation's settings, too
    for a, b in zip(weights_in(finished_copy), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert in_process(mode, "--run_dir", finished_copy, "--preset", "fast") == 2
    assert "--preset: fast has epochs 328, but" in capfd.readouterr().err


def test_new_weights_that_are_not_drawn_yet_are_no_trained_run(copied, monkeypatch, capfd):
    def stopped(self):
        raise KeyboardInterrupt

    (copied / "model.weights.h5").write_bytes(b"damaged")
    monkeypatch.setattr(session.Session, "draw", stopped)
    assert in_process("--resume", "--run_dir", copied) == 130
    assert go_on_line(capfd.readouterr().err)[1] == "--resume"
