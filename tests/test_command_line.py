"""main.py as a user meets it: wrong input, interruption, evaluation, and the files it leaves."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from config import ROOT, Config, parse_flags

import data
import main
from experiment import command_line
from experiment.run_folder import Run
from tests.test_training import without_seconds

TINY = "--n_samples 2 --n_hidden 12 --n_latent 3 --batch_size 100 --eval_samples 20 --eval_images 50 --gpu -1".split()
# main.py with a checkpoint after every call into the graph, and calls of a few steps: many places to be killed at.
CHECKPOINT_OFTEN = """
import sys
from training import loop
loop.SECONDS_PER_CHECKPOINT, loop.SECONDS_PER_CALL = 0, 0.01
import main
sys.exit(main.command_line(main.work, main.DESCRIPTION))
"""


def start(*flags, program=("main.py",), **kwargs):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *program, *map(str, flags)], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs,
    )  # fmt: skip


def in_process(*flags):
    return command_line(main.work, main.DESCRIPTION, [str(flag) for flag in flags])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run's folder; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert in_process(*TINY, "--epochs", 2, "--run_dir", folder) == 0
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    return pathlib.Path(shutil.copytree(finished, tmp_path / "copied"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--objective elbo", "--objective: elbo is not allowed; one of iwae_elbo, vae_elbo, vae_elbo_kl, iwae_eq14"),
        ("--n_samples 0", "--n_samples: 0 is not allowed; at least 1"),
        ("--n_samples five", "argument --n_samples: invalid int value: 'five'"),
        ("--batch_size 70000", "--batch_size: 70000 is not allowed; there are 60000 images"),
        ("--epochs 0", "--epochs: 0 is not allowed; a number of passes, or -1"),
        ("--epochs -2", "--epochs: -2 is not allowed; at least -1"),
        ("--stochastic_layers 3", "--stochastic_layers: 3 is not allowed; one of 1, 2"),
        ("--stochastic_layers 2 --n_latent 10", "--n_latent: one number per stochastic layer, 2 in all"),
        ("--n_hidden 200 0 --stochastic_layers 2", "--n_hidden: 0 is not allowed; at least 1"),
        ("--epochs 1 --learning_rate nan", "--learning_rate: nan is not allowed; more than 0"),
        ("--learning_rate 0.1", "--learning_rate: only with --epochs N"),
        ("--schedule cosine", "--schedule: cosine does not go with --epochs -1"),
        ("--objective vae_elbo --backward_samples 2", "--backward_samples: only with iwae_elbo or iwae_eq14"),
        ("--backward_samples 9", "--backward_samples: 9 is not allowed; at most --n_samples"),
        ("--ema 1", "--ema: 1.0 is not allowed; less than 1"),
        ("--beta_warmup inf", "--beta_warmup: inf is not allowed; at least 0"),
        ("--dataset cifar10", "--dataset: cifar10 is not allowed; one of mnist"),
        ("--preset slow", "--preset: slow is not allowed; one of fast, quick"),
        ("--gpu x", "argument --gpu: invalid int value: 'x'"),
        ("--gpu -2", "--gpu: -2 is not allowed; at least -1"),
        ("--eval_images 10001", "--eval_images: 10001 is not allowed; there are 10000 images"),
        ("--held_out 500 --eval_images 501", "--eval_images: 501 is not allowed; there are 500 images"),
        ("--held_out 60000", "--held_out: 60000 leaves no images of mnist to train on"),
        ("--optimizer muon", "--optimizer: muon is not allowed; one of adam, soap"),
        ("--start_from {tmp} --epochs 3", "--start_from: only with --grow_samples"),
        ("--start_from {tmp}/none --preset fast --run_dir {tmp}/new", "--start_from: no run in"),
        ("--start_from {tmp} --resume", "--start_from: for a new run only"),
        ("--lr_warmup 1 --epochs 3", "--lr_warmup: only with --schedule cosine"),
        ("--lr_warmup 3 --epochs 3 --schedule cosine", "--lr_warmup: 3.0 is not allowed; less than the 3 passes"),
        ("--grow_samples 1", "--grow_samples: 1.0 is not allowed; less than 1"),
        ("--nonsense", "unrecognized arguments: --nonsense"),
        ("--n_sample 5", "unrecognized arguments: --n_sample 5"),
        ("--resume --eval_only", "--eval_only: not together with --resume"),
        ("--resume --run_dir {tmp}/none", "--run_dir: no run in {tmp}/none"),
        ("--eval_only --run_dir {tmp}/none", "--run_dir: no run in {tmp}/none"),
        ("--run_dir {tmp}/file/below", "--run_dir: {tmp}/file/below cannot be written (Not a directory)"),
    ],
)
def test_wrong_flags_are_one_line_and_code_2_before_tensorflow_starts(flags, said, tmp_path):
    (tmp_path / "file").write_text("")
    # a module in TensorFlow's place, which fails when it is imported
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow was imported')")
    folders = {*(ROOT / "results").iterdir(), *tmp_path.iterdir()}
    process = subprocess.run(
        [sys.executable, "main.py", *flags.format(tmp=tmp_path).split()], cwd=ROOT, text=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert process.returncode == 2, process.stderr
    assert process.stderr.startswith("main.py: error: ") and process.stderr.count("\n") == 1
    assert said.format(tmp=tmp_path) in process.stderr
    assert process.stdout == ""
    # no folder is left of a run that never was
    assert {*(ROOT / "results").iterdir(), *tmp_path.iterdir()} == folders


def test_help_names_every_flag():
    process = subprocess.run([sys.executable, "main.py", "--help"], cwd=ROOT, text=True, capture_output=True)
    assert process.returncode == 0 and process.stderr == ""
    for name in [*Config.__dataclass_fields__, "resume", "eval_only"]:
        assert f"--{name} " in process.stdout or f"--{name}\n" in process.stdout


def test_a_finished_run_has_its_files_and_last_line(copied, capfd):
    names = "config.json metrics.csv training.json model.weights.h5 test_llh.json checkpoints tensorboard figures"
    assert all((copied / name).exists() for name in names.split())
    figures = "learning_curves.png posterior_pca.png prior.png prior.gif passes/prior_0000.png passes/prior_0002.png"
    assert all((copied / "figures" / name).stat().st_size > 5000 for name in figures.split())
    assert not list(copied.rglob(".writing-*"))
    llh = json.loads((copied / "test_llh.json").read_text())
    assert {"test_llh", "standard_error", "mc_error", "n_samples", "n_images", "seconds"} <= set(llh)
    assert json.loads((copied / "training.json").read_text())["passes"] == 2
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
        ("", "already holds a run"),
        ("--resume --n_samples 3", "--n_samples: 3, but"),
        ("--eval_only --objective vae_elbo", "--objective: vae_elbo, but"),
    ],
)
def test_a_run_is_not_begun_twice_or_continued_as_another(flags, said, copied, capfd):
    assert in_process("--run_dir", copied, *flags.split()) == 2
    assert said in capfd.readouterr().err


def test_two_runs_cannot_write_into_one_folder(copied, capfd):
    run = Run(copied)
    assert in_process("--resume", "--run_dir", copied) == 2
    error = capfd.readouterr().err
    assert "another process is writing" in error and error.count("\n") == 1
    del run


@pytest.mark.parametrize(
    ("objective", "said"), [("vae_elbo", "has no checkpoint after its 2 such passes"), ("dreg", "not dreg")]
)
def test_starting_from_a_run_with_no_such_beginning(objective, said, tmp_path, capfd):
    flags = "--epochs 4 --grow_samples 0.5 --objective".split()
    other = parse_flags([*flags, "iwae_elbo", "--run_dir", str(tmp_path / "other")])[0]
    Run(tmp_path / "other").begin(other)
    assert in_process(*flags, objective, "--start_from", tmp_path / "other", "--run_dir", tmp_path / "new") == 2
    assert said in capfd.readouterr().err


def test_eval_only_without_weights(copied, capfd):
    (copied / "model.weights.h5").unlink()
    assert in_process("--eval_only", "--run_dir", copied) == 2
    assert "--eval_only: no model.weights.h5" in capfd.readouterr().err


def test_resume_without_a_checkpoint(copied, capfd):
    shutil.rmtree(copied / "checkpoints")
    assert in_process("--resume", "--run_dir", copied) == 2
    assert "--resume: no checkpoint in" in capfd.readouterr().err


@pytest.mark.parametrize("damage", ["other architecture", "other depth", "cut short"])
def test_weights_that_do_not_fit(damage, copied, capfd):
    saved = json.loads((copied / "config.json").read_text())
    if damage == "cut short":
        weights = copied / "model.weights.h5"
        weights.write_bytes(weights.read_bytes()[:-2000])
    elif damage == "other depth":
        saved["experiment"] |= {"stochastic_layers": 2, "n_hidden": [12, 12], "n_latent": [3, 3]}
    else:
        saved["experiment"]["n_latent"] = [4]
    (copied / "config.json").write_text(json.dumps(saved))
    assert in_process("--eval_only", "--run_dir", copied) == 2
    error = capfd.readouterr().err
    assert "model.weights.h5 does not fit this model, or is damaged" in error and error.count("\n") == 1


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
    monkeypatch.setattr(data, "CACHE", tmp_path)
    (tmp_path / "mnist.npz").write_bytes(b"PK\3\4 but no archive")
    assert in_process(*TINY, "--epochs", 1, "--run_dir", tmp_path / "run") == 2
    error = capfd.readouterr().err
    assert "mnist.npz is damaged" in error and error.count("\n") == 1


def test_idx_file_cut_short_is_one_line(tmp_path, capfd):
    for name in data.sources.IDX_NAMES.values():
        (tmp_path / name).write_bytes(b"\0\0\x08\x01\0\0\0\x05abc")
    assert in_process(*TINY, "--epochs", 1, "--run_dir", tmp_path / "run", "--data_dir", tmp_path) == 2
    error = capfd.readouterr().err
    assert "ubyte is cut short" in error and error.count("\n") == 1


def test_gpu_that_is_not_there_is_said_and_the_cpu_used(copied, capfd):
    process = start("--eval_only", "--run_dir", copied, "--eval_samples", 2, "--eval_images", 5, "--gpu", 7)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "CPU, for there is no GPU 7" in out
    assert err == ""  # none of TensorFlow's start-up noise


def test_flags_build_presets_names_and_sessions(tmp_path):
    config, resume, eval_only = parse_flags(["--preset", "quick", "--n_samples", "50", "--epochs", "3"])
    assert (config.n_samples, config.epochs, config.batch_size, config.eval_images) == (50, 3, 100, 1000)
    assert pathlib.Path(config.run_dir).name == "1L_iwae_elbo_k50_quick_epochs3"
    assert not resume and not eval_only
    names = [
        pathlib.Path(parse_flags(flags.split())[0].run_dir).name
        for flags in ("", "--seed 1", "--n_latent 50", "--stochastic_layers 2", "--stochastic_layers 2 --n_latent 10 5")
    ]
    assert len(set(names)) == 5 and names[0] == "1L_iwae_elbo_k5"
    reference = Config().resolved()  # the reference implementation's defaults
    assert (reference.n_samples, reference.objective, reference.stochastic_layers) == (5, "iwae_elbo", 1)
    assert (reference.batch_size, reference.epochs, reference.learning_rate) == (20, -1, 1e-4)


def test_killed_at_any_moment_and_resumed_ends_the_same(tmp_path):
    """kill -9 at random moments until the run gets through; weights and metrics equal those of a run left in peace."""
    flags = (*TINY, "--epochs", 6, "--ema", "0.9")
    quiet = start(*flags, "--run_dir", tmp_path / "quiet")
    rng, kills = random.Random(0), 0
    program = ("-c", CHECKPOINT_OFTEN)
    process = start(*flags, "--run_dir", tmp_path / "killed", program=program)
    while kills < 3:
        deadline = time.monotonic() + 120
        before = newest_checkpoint(tmp_path / "killed")
        while newest_checkpoint(tmp_path / "killed") == before and process.poll() is None:  # it is training again
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.6))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
        resumed = ("--resume", "--run_dir", tmp_path / "killed", "--eval_samples", 20, "--eval_images", 50)
        process = start(*resumed, program=program)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    expected, _ = quiet.communicate(timeout=200)
    assert out.splitlines()[-1] == expected.splitlines()[-1]
    killed, quiet = (without_seconds((tmp_path / name / "metrics.csv").read_text()) for name in ("killed", "quiet"))
    assert killed == quiet
    for a, b in zip(weights_in(tmp_path / "killed"), weights_in(tmp_path / "quiet"), strict=True):
        np.testing.assert_array_equal(a, b)


def newest_checkpoint(folder):
    steps = [int(path.stem.split("-")[1]) for path in (folder / "checkpoints").glob("ckpt-*.index")]
    return max(steps, default=None)


def weights_in(folder):
    import h5py

    found = []
    with h5py.File(folder / "model.weights.h5") as file:
        file.visititems(lambda name, item: found.append(item[()]) if isinstance(item, h5py.Dataset) else None)
    assert found
    return found


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    process = start(*TINY, "--epochs", 2000, "--run_dir", tmp_path / "run")
    while "training:" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "which is saved" in err and f"main.py --resume --run_dir {tmp_path}/run" in err
    assert newest_checkpoint(tmp_path / "run") > 0
