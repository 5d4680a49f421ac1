"""main.py as a user meets it: wrong input, interruption, evaluation, and the files it leaves."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import data.mnist_sources
import data.published
from experiment import command_line, program, session, survey
from experiment.opening import open_folder
from experiment.run_folder import ROOT, Run
from experiment.settings import Config
from experiment.startup import hardware
from tests.helpers import TINY, in_process, newest_checkpoint, one_line
from utils import UsageError


def start(*flags, program=("main.py",), **kwargs):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *program, *map(str, flags)], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs,
    )  # fmt: skip


def test_a_finished_run_has_its_files_and_last_line(finished_copy, capfd):
    names = "config.json metrics.csv training.json model.weights.h5 test_llh.json checkpoints tensorboard figures"
    assert all((finished_copy / name).exists() for name in names.split())
    figures = "learning_curves.png posterior_pca.png posterior_pca.gif prior.png prior.gif reconstructions.png"
    figures += " epochs/prior_0000.png epochs/prior_0002.png"
    assert all((finished_copy / "figures" / name).stat().st_size > 5000 for name in figures.split())
    assert not (finished_copy / "figures/z1_redrawn.png").exists()  # which is of several layers
    assert not list(finished_copy.rglob(".writing-*"))
    llh = json.loads((finished_copy / "test_llh.json").read_text())
    assert {"test_llh", "standard_error", "mc_error", "n_samples", "n_images", "seconds"} <= set(llh)
    training = json.loads((finished_copy / "training.json").read_text())
    assert training["epochs"] == 2
    for record in (training, llh):
        assert record["device"].startswith("CPU, ") and record["threads"] == hardware(0)["threads"]
    saved = json.loads((finished_copy / "config.json").read_text())
    assert saved["experiment"]["n_hidden"] == [12] and saved["versions"]["tensorflow"]

    assert in_process("--eval_only", "--run_dir", finished_copy, "--eval_samples", 20, "--eval_images", 50) == 0
    out, err = capfd.readouterr()
    assert f"run:    {finished_copy}\n" in out
    value, error = llh["test_llh"], llh["standard_error"]
    assert out.splitlines()[-1] == f"test log likelihood (k=20): {value:.2f} ± {error:.2f} nats"
    assert f"Monte Carlo error on these images: {llh['mc_error']:.3f} nats" in out and err == ""


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("", "already holds a finished run: --eval_only measures it, and another --run_dir starts anew"),
        ("--resume --n_samples 3", "--n_samples: 3, but"),
        ("--eval_only --objective vae_elbo", "--objective: vae_elbo, but"),
    ],
)
def test_a_run_is_not_begun_twice_or_continued_as_another(flags, said, finished_copy, capfd):
    assert in_process("--run_dir", finished_copy, *flags.split()) == 2
    assert said in capfd.readouterr().err


def test_a_finished_run_that_is_resumed_is_only_measured(finished_copy, capfd, monkeypatch):
    before = {
        path: path.read_bytes() for path in finished_copy.rglob("*") if path.is_file() and path.name != "test_llh.json"
    }
    monkeypatch.setattr(session.Session, "train", lambda *_: pytest.fail("it was trained"))
    assert in_process("--resume", "--eval_samples", 30, "--run_dir", finished_copy) == 0
    assert "test log likelihood (k=30): " in capfd.readouterr().out
    assert [path.name for path, content in before.items() if path.read_bytes() != content] == []


def test_two_runs_cannot_write_into_one_folder(finished_copy, capfd):
    run = Run(finished_copy)
    assert in_process("--resume", "--run_dir", finished_copy) == 2
    one_line(capfd, "another process is writing")
    del run


def test_all_streams_may_be_closed():
    """Else a file would get the number of one, and the program's messages."""
    code = "import os, sys; from experiment.program import _without_tracebacks as frame;"
    code += "sys.exit(frame(lambda: os.open(os.devnull, os.O_RDONLY))())"
    words = ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code]
    assert subprocess.run(words, cwd=ROOT).returncode >= 3


def test_a_folder_is_free_when_the_command_has_ended(few_digits, tmp_path):
    kept = []  # as long as there is something that knows the run
    assert command_line(kept.append, None, ["--jit", "off", "--gpu", "-1", "--run_dir", str(tmp_path / "run")]) == 0
    Run(tmp_path / "run").release()
    with pytest.raises(UsageError, match="no checkpoint in") as kept_too:  # and with it the frames that know the run
        open_folder(Config(run_dir=str(tmp_path / "run")).resolved(), resume=True)
    Run(tmp_path / "run").release()
    assert kept_too


def test_folders_are_free_when_a_survey_is_at_the_next_and_when_it_has_ended(finished, few_digits, results, tmp_path):
    for name in "ab":
        shutil.copytree(finished, results / name)
    settings = (results / "a/config.json").read_bytes()
    saved, kept = json.loads((results / "b/config.json").read_text()), []
    saved["experiment"]["held_out"] = 150
    (results / "b/config.json").write_text(json.dumps(saved))

    def look(_, sessions):
        for _, one in sessions:
            for earlier in kept:
                Run(earlier.run.path).release()
            with pytest.raises(UsageError, match="another process is writing"):
                Run(one.run.path)
            kept.append(one)

    assert survey(look, None, ["--gpu", "-1", "--eval_samples", "7", "--data_dir", str(tmp_path)]) == 0
    assert (results / "a/config.json").read_bytes() == settings  # the run's own
    assert {session.config.data_dir for session in kept} == {str(tmp_path)}
    assert [session.config.eval_samples for session in kept] == [7, 7]  # as the flag says, not as was saved
    assert [session.run.path.name for session in kept] == ["a", "b"]
    assert [len(session.dataset.test_images) for session in kept] == [200, 150]  # each has its own split
    Run(results / "b").release()


def test_each_run_of_a_survey_has_its_own_data(finished, few_digits, results, monkeypatch):
    loaded, load = [], program.load_data
    monkeypatch.setattr(
        program, "load_data",
        lambda config: (loaded.append((config.dataset, config.binarise, config.own_data)), load(config))[1],
    )  # fmt: skip
    mine = dict(n_train=400, n_test=200, image_shape=[28, 28], n_labels=10, crc32=1)  # and later, at the same path,
    later = mine | dict(crc32=2)  # others
    fashion = {"dataset": "fashion_mnist"}
    threshold = fashion | {"binarise": "threshold"}
    own = [{"dataset": "/pictures", "own_data": facts} for facts in (mine, later)]
    for name, changes in zip("abcdef", ({}, fashion, threshold, threshold, *own)):
        shutil.copytree(finished, results / name)
        saved = json.loads((results / name / "config.json").read_text())
        saved["experiment"] |= changes
        (results / name / "config.json").write_text(json.dumps(saved))
    opened = []
    assert survey(lambda _, sessions: opened.extend(sessions), None, ["--gpu", "-1"]) == 0
    assert [name for name, _ in opened] == [*"abcdef"]
    assert loaded == [
        ("mnist", "dynamic", None), ("fashion_mnist", "dynamic", None), ("fashion_mnist", "threshold", None),
        ("/pictures", "dynamic", mine), ("/pictures", "dynamic", later),
    ]  # fmt: skip


def test_divergence_is_one_line_and_code_1(few_digits, tmp_path, capfd):
    flags = ("--jit", "off", "--epochs", 1, "--learning_rate", 1e30, "--run_dir", tmp_path / "run")
    assert in_process(*TINY, *flags) == 1
    one_line(capfd, "the objective was", "ckpt-0")


def test_eval_only_without_weights(finished_copy, capfd):
    (finished_copy / "model.weights.h5").unlink()
    assert in_process("--eval_only", "--run_dir", finished_copy) == 2
    assert "--eval_only: no trained model in" in capfd.readouterr().err


@pytest.mark.parametrize("damage", ["other architecture", "other depth"])
def test_weights_that_do_not_fit(damage, finished_copy, capfd):
    saved = json.loads((finished_copy / "config.json").read_text())
    if damage == "other depth":
        saved["experiment"] |= {"stochastic_layers": 2, "n_hidden": [12, 12], "n_latent": [3, 3]}
    else:
        saved["experiment"]["n_latent"] = [4]
    (finished_copy / "config.json").write_text(json.dumps(saved))
    assert in_process("--eval_only", "--run_dir", finished_copy) == 2
    one_line(capfd, "model.weights.h5 does not fit this model, or is damaged")


def test_weights_that_give_no_number_are_an_error_and_nothing_is_written(finished_copy, capfd):
    import h5py

    with h5py.File(finished_copy / "model.weights.h5", "r+") as file:
        arrays = []
        file.visititems(lambda name, item: arrays.append(item) if isinstance(item, h5py.Dataset) else None)
        arrays[-1][...] = np.nan
    (finished_copy / "test_llh.json").unlink()
    (finished_copy / "training.json").write_text('{"epochs": 2, "seconds": 1}')  # which knew the bytes of the weights
    assert in_process("--eval_only", "--run_dir", finished_copy) == 2
    out, err = capfd.readouterr()
    assert err.count("\n") == 1 and f"the weights of {finished_copy} give a log likelihood of nan" in err
    assert not (finished_copy / "test_llh.json").exists() and "nats" not in out


def test_config_of_another_version_is_refused(finished_copy, capfd):
    saved = json.loads((finished_copy / "config.json").read_text())
    saved["experiment"]["n_wings"] = 2
    (finished_copy / "config.json").write_text(json.dumps(saved))
    assert in_process("--eval_only", "--run_dir", finished_copy) == 2
    assert "settings this version does not know: n_wings" in capfd.readouterr().err


def test_idx_file_cut_short_is_one_line(tmp_path, capfd):
    for name in data.mnist_sources.IDX_NAMES.values():
        (tmp_path / name).write_bytes(b"\0\0\x08\x01\0\0\0\x05abc")
    assert in_process(*TINY, "--epochs", 1, "--run_dir", tmp_path / "run", "--data_dir", tmp_path) == 2
    one_line(capfd, "ubyte is cut short")


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
    (row,) = [line for line in out.splitlines() if line.endswith("| yes |")]
    assert sum(map(int, row.split("|")[2:6])) == 3


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
