"""main.py as a user meets it: wrong input, interruption, evaluation, and the files it leaves."""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

import data.mnist_sources
import data.published
import main
from experiment import command_line, program, session, survey
from experiment.errors import UsageError
from experiment.flags import parse_flags
from experiment.opening import open_folder
from experiment.run_folder import DRAWN, ROOT, Run, load_config
from experiment.settings import Config
from experiment.startup import hardware, start_tensorflow
from tests.helpers import TINY, go_on_line, in_process, newest_checkpoint, weights_in
from utils import write_csv


def start(*flags, program=("main.py",), **kwargs):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *program, *map(str, flags)], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(digits, tmp_path_factory):
    """A finished run's folder; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "load", lambda *_: digits)
        assert in_process(*TINY, "--jit", "off", "--epochs", 2, "--run_dir", folder) == 0
    return folder


@pytest.fixture
def copied(finished, few_digits, tmp_path):
    return pathlib.Path(shutil.copytree(finished, tmp_path / "copied"))


def test_a_finished_run_has_its_files_and_last_line(copied, capfd):
    names = "config.json metrics.csv training.json model.weights.h5 test_llh.json checkpoints tensorboard figures"
    assert all((copied / name).exists() for name in names.split())
    figures = "learning_curves.png posterior_pca.png posterior_pca.gif prior.png prior.gif reconstructions.png"
    figures += " epochs/prior_0000.png epochs/prior_0002.png"
    assert all((copied / "figures" / name).stat().st_size > 5000 for name in figures.split())
    assert not (copied / "figures/z1_redrawn.png").exists()  # which is of several layers
    assert not list(copied.rglob(".writing-*"))
    llh = json.loads((copied / "test_llh.json").read_text())
    assert {"test_llh", "standard_error", "mc_error", "n_samples", "n_images", "seconds"} <= set(llh)
    training = json.loads((copied / "training.json").read_text())
    assert training["epochs"] == 2
    for record in (training, llh):
        assert record["device"].startswith("CPU, ") and record["threads"] == os.cpu_count()
    saved = json.loads((copied / "config.json").read_text())
    assert saved["experiment"]["n_hidden"] == [12] and saved["versions"]["tensorflow"]

    assert in_process("--eval_only", "--run_dir", copied, "--eval_samples", 20, "--eval_images", 50) == 0
    out, err = capfd.readouterr()
    value, error = llh["test_llh"], llh["standard_error"]
    assert out.splitlines()[-1] == f"test log likelihood (k=20): {value:.2f} ± {error:.2f} nats"
    assert err == ""


def test_a_better_measurement_replaces_a_lesser_one(copied):
    assert in_process("--eval_only", "--run_dir", copied, "--eval_samples", 30, "--eval_images", 60) == 0
    again = json.loads((copied / "test_llh.json").read_text())
    assert (again["n_samples"], again["n_images"]) == (30, 60)


def test_a_lesser_measurement_does_not_replace_a_better_one(copied, capfd):
    before = (copied / "test_llh.json").read_text()
    assert in_process("--eval_only", "--run_dir", copied, "--eval_samples", 5, "--eval_images", 50) == 0
    assert (copied / "test_llh.json").read_text() == before
    assert "(k=20, 50 images)" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("", "already holds a finished run: --eval_only measures it, and another --run_dir starts anew"),
        ("--resume --n_samples 3", "--n_samples: 3, but"),
        ("--eval_only --objective vae_elbo", "--objective: vae_elbo, but"),
    ],
)
def test_a_run_is_not_begun_twice_or_continued_as_another(flags, said, copied, capfd):
    assert in_process("--run_dir", copied, *flags.split()) == 2
    assert said in capfd.readouterr().err


def test_a_finished_run_that_is_resumed_is_only_measured(copied, capfd, monkeypatch):
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file() and path.name != "test_llh.json"}
    monkeypatch.setattr(session.Session, "train", lambda *_: pytest.fail("it was trained"))
    assert in_process("--resume", "--eval_samples", 30, "--run_dir", copied) == 0
    assert "test log likelihood (k=30): " in capfd.readouterr().out
    assert [path.name for path, content in before.items() if path.read_bytes() != content] == []


def test_two_runs_cannot_write_into_one_folder(copied, capfd):
    run = Run(copied)
    assert in_process("--resume", "--run_dir", copied) == 2
    error = capfd.readouterr().err
    assert "another process is writing" in error and error.count("\n") == 1
    del run


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ("vae_elbo", "has no checkpoint after its 2 such epochs"),
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


def test_a_run_that_has_no_whole_metrics_is_not_started_from(copied, tmp_path, capfd):
    (copied / "metrics.csv").write_text("epoch,step\n0,0\nx,1\n")
    flags = "--epochs 4 --grow_samples 0.5 --start_from".split()
    assert in_process(*flags, copied, "--run_dir", tmp_path / "new") == 2
    error = capfd.readouterr().err
    assert f"--start_from: {copied}/metrics.csv is damaged" in error and error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_run_with_damaged_arrays_is_not_started_from(copied, tmp_path, capfd):
    (copied / "arrays" / "prior_0000.npz").write_bytes(b"")
    flags = "--epochs 4 --grow_samples 0.5 --start_from".split()
    assert in_process(*flags, copied, "--run_dir", tmp_path / "new") == 2
    assert f"--start_from: {copied}/arrays/prior_0000.npz cannot be read" in capfd.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_folder_is_free_when_the_command_has_ended(few_digits, tmp_path):
    kept = []  # as long as there is something that knows the run
    assert command_line(kept.append, None, ["--jit", "off", "--gpu", "-1", "--run_dir", str(tmp_path / "run")]) == 0
    Run(tmp_path / "run").release()
    with pytest.raises(UsageError, match="no checkpoint in") as kept_too:  # and with it the frames that know the run
        open_folder(Config(run_dir=str(tmp_path / "run")).resolved(), resume=True)
    Run(tmp_path / "run").release()
    assert kept_too


def test_folders_are_free_when_a_survey_is_at_the_next_and_when_it_has_ended(finished, few_digits, results):
    for name in "ab":
        shutil.copytree(finished, results / name)
    saved, kept = json.loads((results / "b/config.json").read_text()), []
    saved["experiment"]["held_out"] = 150
    (results / "b/config.json").write_text(json.dumps(saved))

    def look(_, sessions):
        kept.extend(open_session() for _, open_session in sessions)
        Run(results / "a").release()
        with pytest.raises(UsageError, match="another process is writing"):
            Run(results / "b")

    assert survey(look, None, ["--gpu", "-1"]) == 0
    assert [session.run.path.name for session in kept] == ["a", "b"]
    assert [len(session.dataset.test_images) for session in kept] == [200, 150]  # each has its own split
    Run(results / "b").release()


def test_divergence_is_one_line_and_code_1(few_digits, tmp_path, capfd):
    flags = ("--jit", "off", "--epochs", 1, "--learning_rate", 1e30, "--run_dir", tmp_path / "run")
    assert in_process(*TINY, *flags) == 1
    error = capfd.readouterr().err
    assert "the objective was" in error and "ckpt-0" in error and error.count("\n") == 1


def test_the_device_is_the_one_asked_for(monkeypatch, few_digits, tmp_path):
    asked = []
    monkeypatch.setattr(program, "start_tensorflow", lambda *device: asked.append(device) or sys.exit())
    for number, flags in enumerate(((), ("--gpu", 3, "--threads", 2), ("--gpu", "0,1", "--strategy", "mirrored"))):
        with pytest.raises(SystemExit):
            in_process(*flags, "--run_dir", tmp_path / str(number))
    assert asked == [(None, 0, "one"), ((3,), 2, "one"), ((0, 1), 0, "mirrored")]


@pytest.mark.parametrize(
    ("gpu", "strategy", "visible", "line"),
    [
        (None, "one", "a", "GPU 0 of 3"),
        (None, "mirrored", "abc", "GPU 0, 1, 2 of 3"),
        (2, "one", "c", "GPU 2 of 3"),
        ((1,), "one", "b", "GPU 1 of 3"),
        ((-1,), "one", "", "CPU"),
        ((0, 5), "mirrored", "a", "GPU 0 of 3, for there is no GPU 5 (3 found)"),
    ],
)
def test_the_gpus_asked_for_are_the_visible_ones(gpu, strategy, visible, line, monkeypatch):
    seen = {}
    config = tf.config
    monkeypatch.setattr(config, "list_physical_devices", lambda kind: [*"abc"])
    monkeypatch.setattr(config, "set_visible_devices", lambda devices, kind: seen.update({kind: "".join(devices)}))
    monkeypatch.setattr(config.experimental, "set_memory_growth", lambda device, grows: seen.update({device: grows}))
    monkeypatch.setattr(config.threading, "set_intra_op_parallelism_threads", lambda n: seen.update(threads=n))
    monkeypatch.setattr(config, "list_logical_devices", lambda kind: [])
    assert start_tensorflow(gpu, 3, strategy) == (line, None)
    assert seen == {"GPU": visible, "threads": 3} | {device: True for device in visible}


def test_records_name_the_gpus_in_use_and_the_threads(monkeypatch):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [*"ab"])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"device_name": f"card {gpu}"})
    assert hardware(3) == {"device": "card a, card b", "threads": 3}


def test_a_gpu_that_is_not_there_is_told_and_what_tensorflow_says_of_it(monkeypatch, capfd):
    def none_found(kind):
        os.write(2, b"I0000 oneDNN is on\nI0000 no driver for a GPU\nE0001 cuInit failed\n")
        return []

    monkeypatch.setattr(tf.config, "list_physical_devices", none_found)
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *_: None)
    for gpu, line, said in (
        ((0,), "CPU, for there is no GPU 0 (0 found)", True),
        ((-1,), "CPU", False),
        (None, "CPU", False),
    ):
        assert start_tensorflow(gpu) == (line, None)
        assert capfd.readouterr().err == "I0000 no driver for a GPU\nE0001 cuInit failed\n" * said


def test_eval_only_without_weights(copied, capfd):
    (copied / "model.weights.h5").unlink()
    assert in_process("--eval_only", "--run_dir", copied) == 2
    assert "--eval_only: no trained model in" in capfd.readouterr().err


def test_resume_without_a_checkpoint(copied, capfd):
    shutil.rmtree(copied / "checkpoints")
    (copied / "training.json").unlink()
    assert in_process("--resume", "--run_dir", copied) == 2
    assert "--resume: no checkpoint in" in capfd.readouterr().err


@pytest.mark.parametrize("damage", ["other architecture", "other depth", "cut short"])
def test_weights_that_do_not_fit(damage, copied, capfd):
    saved = json.loads((copied / "config.json").read_text())
    if damage == "cut short":
        weights = copied / "model.weights.h5"
        weights.write_bytes(weights.read_bytes()[:-2000])
        (copied / "training.json").write_text('{"epochs": 2, "seconds": 1}')  # which knew the bytes of the weights
    elif damage == "other depth":
        saved["experiment"] |= {"stochastic_layers": 2, "n_hidden": [12, 12], "n_latent": [3, 3]}
    else:
        saved["experiment"]["n_latent"] = [4]
    (copied / "config.json").write_text(json.dumps(saved))
    assert in_process("--eval_only", "--run_dir", copied) == 2
    error = capfd.readouterr().err
    assert "model.weights.h5 does not fit this model, or is damaged" in error and error.count("\n") == 1


def test_weights_that_give_no_number_are_an_error_and_nothing_is_written(copied, capfd):
    import h5py

    with h5py.File(copied / "model.weights.h5", "r+") as file:
        arrays = []
        file.visititems(lambda name, item: arrays.append(item) if isinstance(item, h5py.Dataset) else None)
        arrays[-1][...] = np.nan
    (copied / "test_llh.json").unlink()
    (copied / "training.json").write_text('{"epochs": 2, "seconds": 1}')  # which knew the bytes of the weights
    assert in_process("--eval_only", "--run_dir", copied) == 2
    out, err = capfd.readouterr()
    assert err.count("\n") == 1 and f"the weights of {copied} give a log likelihood of nan" in err
    assert not (copied / "test_llh.json").exists() and "nats" not in out


def test_config_of_another_version_is_refused(copied, capfd):
    saved = json.loads((copied / "config.json").read_text())
    saved["experiment"]["n_wings"] = 2
    (copied / "config.json").write_text(json.dumps(saved))
    assert in_process("--eval_only", "--run_dir", copied) == 2
    assert "settings this version does not know: n_wings" in capfd.readouterr().err
    (copied / "config.json").write_text("{")
    assert in_process("--eval_only", "--run_dir", copied) == 2
    assert "config.json cannot be read" in capfd.readouterr().err


def test_corrupt_cache_is_one_line(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(data.published, "CACHE", tmp_path)
    (tmp_path / "mnist.npz").write_bytes(b"PK\3\4 but no archive")
    assert in_process(*TINY, "--epochs", 1, "--run_dir", tmp_path / "run") == 2
    error = capfd.readouterr().err
    assert "mnist.npz is damaged" in error and error.count("\n") == 1


def test_idx_file_cut_short_is_one_line(tmp_path, capfd):
    for name in data.mnist_sources.IDX_NAMES.values():
        (tmp_path / name).write_bytes(b"\0\0\x08\x01\0\0\0\x05abc")
    assert in_process(*TINY, "--epochs", 1, "--run_dir", tmp_path / "run", "--data_dir", tmp_path) == 2
    error = capfd.readouterr().err
    assert "ubyte is cut short" in error and error.count("\n") == 1


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


def test_what_to_go_on_with_asks_for_the_same_measurement(copied, capfd):
    flags = ["--eval_samples", "25", "--per_image", str(copied / "each.csv"), "--gpu", "-1"]
    assert stopped("--eval_only", "--run_dir", copied, *flags) == 130
    words = go_on_line(capfd.readouterr().err)[1:]
    assert sorted(words) == sorted(["--eval_only", "--run_dir", str(copied), *flags])


def test_what_to_go_on_with_says_how_many_images_all_are_where_fewer_were_saved(copied, capfd):
    config = dataclasses.replace(load_config(copied), eval_images=None)
    program._say_how_to_go_on(config, Run(copied))
    words = go_on_line(capfd.readouterr().err)
    assert words[words.index("--eval_images") + 1] == "10000"


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
    expected = weights_in(folder)
    (folder / "model.weights.h5").unlink()
    for path in (folder / "checkpoints").glob("ckpt-4.*"):  # the last one: it goes on from the first weights
        path.unlink()
    assert newest_checkpoint(folder) == 0
    assert in_process("--resume", "--run_dir", folder) == 0
    for a, b in zip(weights_in(folder), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert in_process("--resume", "--run_dir", folder, "--groups", 4) == 2
    assert "--groups: 4, but" in capfd.readouterr().err


@pytest.mark.parametrize("mode", ["--resume", "--eval_only"])
def test_a_run_of_a_preset_that_meant_something_else_is_gone_on_with_as_it_was(mode, copied, no_figures, capfd):
    saved = json.loads((copied / "config.json").read_text())
    assert saved["preset"] == "paper" and saved["experiment"]["epochs"] == 2
    (copied / "config.json").write_text(json.dumps(saved | {"preset": "fast"}))
    before = weights_in(copied)
    assert load_config(copied).preset == "fast" and load_config(copied).optimizer == "adam"
    assert in_process(mode, "--run_dir", copied) == 0
    assert "50 images, 20 samples each" in capfd.readouterr().out  # the evaluation's settings, too
    for a, b in zip(weights_in(copied), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert in_process(mode, "--run_dir", copied, "--preset", "fast") == 2
    assert "--epochs: 328, but" in capfd.readouterr().err


def test_killed_at_any_moment_and_resumed_ends_the_same():
    """kill -9 at random moments until the run gets through: weights, metrics and result are those of a quiet run."""
    kills = ("--kills", 3, "--only", "soap, averaged weights")
    process = start(*kills, program=("-m", "tests.kills"), start_new_session=True)
    try:
        out, err = process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the run that it was killing, too
        raise
    assert process.returncode == 0 and out.count("| yes |") == 1, out + err


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    """And before that on what it computes: a GPU that is not there is said, and the CPU is used."""
    process, out = start(*TINY, "--epochs", 2000, "--run_dir", tmp_path / "run", "--gpu", 7), ""
    while "training:" not in (line := process.stdout.readline()):
        assert process.poll() is None
        out += line
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "CPU, for there is no GPU 7" in out
    of_gpus = re.compile(r".*GPU|[WE]\d{4} ")  # why there is none; else none of TensorFlow's start-up noise
    assert len([line for line in err.splitlines() if line and not of_gpus.match(line)]) == 2
    assert "which is saved" in err and f"main.py --resume --run_dir {tmp_path}/run" in err
    assert newest_checkpoint(tmp_path / "run") > 0
