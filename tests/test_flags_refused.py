"""Wrong flags: one line that names the flag and what is allowed, exit code 2, before TensorFlow is there."""

import json
import os
import subprocess
import sys

import pytest

from experiment.run_folder import ROOT
from experiment.settings import flag_fields
from models.catalogue import hyperparameters

# Command lines, one after another, through main.py's command line: [exit code, stdout, stderr] of each.
ONE_AFTER_ANOTHER = """
import contextlib, io, json, pathlib, sys
import main
from experiment import run_folder
sys.argv[0] = "main.py"
tmp, commands = json.load(sys.stdin)
run_folder.RESULTS = pathlib.Path(tmp, "results")
for flags in commands:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = main.command_line(main.work, main.DESCRIPTION, flags)
        except SystemExit as stop:
            code = stop.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""
WRONG = [
    ("--objective elbo", "--objective: elbo is not allowed; one of iwae_elbo, vae_elbo, vae_elbo_kl, iwae_eq14"),
    ("--n_samples 0", "--n_samples: 0 is not allowed; at least 1"),
    ("--n_samples five", "argument --n_samples: invalid int value: 'five'"),
    ("--batch_size 70000", "--batch_size: 70000 is not allowed; there are 60000 images"),
    ("--epochs 0", "--epochs: 0 is not allowed; a number of epochs, or -1"),
    ("--epochs -2", "--epochs: -2 is not allowed; at least -1"),
    ("--stochastic_layers 3", "--stochastic_layers: 3 is not allowed; one of 1, 2"),
    ("--stochastic_layers 2 --n_latent 10", "--n_latent: one number per stochastic layer, 2 in all"),
    ("--n_hidden 200 0 --stochastic_layers 2", "--n_hidden: 0 is not allowed; at least 1"),
    ("--epochs 1 --learning_rate nan", "--learning_rate: nan is not allowed; more than 0"),
    ("--learning_rate 0.1", "--learning_rate: only with --epochs N"),
    ("--schedule cosine", "--schedule: cosine does not go with --epochs -1"),
    (
        "--objective vae_elbo --backward_samples 2",
        "--backward_samples: only with iwae_elbo or iwae_eq14, not with vae_elbo",
    ),
    ("--backward_samples 9", "--backward_samples: 9 is not allowed; at most --n_samples"),
    ("--ema 1", "--ema: 1.0 is not allowed; less than 1"),
    ("--beta_warmup inf", "--beta_warmup: inf is not allowed; at least 0"),
    ("--beta_warmup 3 --epochs 3", "--beta_warmup: 3.0 is not allowed; less than the 3 epochs"),
    ("--dataset cifar10", "--dataset: cifar10 is not allowed; one of mnist"),
    ("--preset slow", "--preset: slow is not allowed; one of paper, fast, long, quick"),
    ("--gpu x", "argument --gpu: x is not allowed; a GPU's number, several such as 0,1, or -1"),
    ("--gpu 0,,1", "argument --gpu: 0,,1 is not allowed; a GPU's number, several"),
    ("--gpu 1,1 --strategy mirrored", "--gpu: 1,1 is not allowed; different numbers from 0, or -1 alone"),
    ("--gpu 0,-1 --strategy mirrored", "--gpu: 0,-1 is not allowed; different numbers from 0, or -1 alone"),
    ("--gpu 0,1", "--gpu: 0,1 needs --strategy mirrored or multi_worker; one uses one device"),
    ("--gpu 0,1,2 --strategy mirrored", "--batch_size: 20 is not allowed; 3 devices must divide it"),
    ("--strategy two", "--strategy: two is not allowed; one of one, mirrored, multi_worker"),
    ("--strategy multi_worker", "--strategy: multi_worker needs the environment variable TF_CONFIG, such as"),
    ("--gpu -2", "--gpu: -2 is not allowed; at least -1"),
    ("--eval_images 10001", "--eval_images: 10001 is not allowed; there are 10000 images"),
    ("--held_out 500 --eval_images 501", "--eval_images: 501 is not allowed; there are 500 images"),
    ("--held_out 1", "--held_out: 1 is not allowed; 0, or 2 or more images"),
    ("--held_out 60000", "--held_out: 60000 leaves no images of mnist to train on"),
    ("--optimizer muon", "--optimizer: muon is not allowed; one of adam, soap"),
    ("--start_from {tmp} --epochs 3", "--start_from: only with --grow_samples"),
    ("--start_from {tmp}/none --preset fast --run_dir {tmp}/new", "--start_from: no run in"),
    ("--start_from {tmp} --resume", "--start_from: for a new run only"),
    ("--lr_warmup 1 --epochs 3", "--lr_warmup: only with --schedule cosine"),
    ("--lr_warmup 3 --epochs 3 --schedule cosine", "--lr_warmup: 3.0 is not allowed; less than the 3 epochs"),
    ("--grow_samples 1", "--grow_samples: 1.0 is not allowed; less than 1"),
    ("--groups 2", "--groups: only with miwae or piwae, not with iwae_elbo and the model iwae"),
    ("--groups 3 --objective piwae --n_samples 4", "--groups: 3 is not allowed; it must divide --n_samples, 4"),
    ("--groups 8 --objective miwae --n_samples 4", "--groups: 8 is not allowed; it must divide --n_samples, 4"),
    (
        "--groups 2 --objective piwae --n_samples 4 --grow_samples 0.5 --first_samples 3",
        "--groups: 2 is not allowed; it must divide --first_samples, 3",
    ),
    ("--groups 0 --objective piwae", "--groups: 0 is not allowed; at least 1"),
    ("--objective ciwae --elbo_weight 1.1", "--elbo_weight: 1.1 is not allowed; at most 1"),
    ("--objective ciwae --elbo_weight nan", "--elbo_weight: nan is not allowed; at least 0"),
    ("--objective vr_iwae --alpha 1", "--alpha: 1.0 is not allowed; less than 1"),
    ("--objective vr_iwae_dreg --alpha -1", "--alpha: -1.0 is not allowed; at least 0"),
    ("--objective iwae_elbo --alpha 0.5", "--alpha: only with vr_iwae or vr_iwae_dreg, not with iwae_elbo"),
    ("--objective rws --n_samples 1", "--n_samples: 1 is not allowed; --objective rws needs at least 2"),
    ("--objective jvi --preset fast", "2 samples in every epoch: give --first_samples, or"),
    ("--per_image {tmp}/none/each.csv", "--per_image: {tmp}/none/each.csv is not allowed; a new .csv file, or that"),
    ("--per_image {tmp}", "--per_image: {tmp} is not allowed; a new .csv file"),
    ("--per_image {tmp}/table.csv", "--per_image: {tmp}/table.csv is not allowed; a new .csv file"),
    ("--preset fast --n_samples 5 --first_samples 6", "--first_samples: 6 is not allowed; at most --n_samples"),
    ("--per_image {tmp}/pipe.csv", "--per_image: {tmp}/pipe.csv is not allowed; a new .csv file"),
    ("--run_dir {tmp}/new --per_image {tmp}/new/metrics.csv", "--per_image: {tmp}/new/metrics.csv is not allowed;"),
    ("--run_dir {tmp}/new --per_image {tmp}/new/posteriors.csv", "/new/posteriors.csv is not allowed; a new .csv"),
    ("--per_image {tmp}/each.txt", "--per_image: {tmp}/each.txt is not allowed; a new .csv file"),
    ("--per_image {tmp}/link.csv", "--per_image: {tmp}/link.csv is not allowed; a new .csv file"),
    ("--n_samples 99999999999999999999", "--n_samples: 99999999999999999999 is not allowed; at most 1000000000"),
    ("--eval_samples 1000000001", "--eval_samples: 1000000001 is not allowed; at most 1000000000"),
    ("--epochs 1 --run_dir {tmp}/a\udcff", "a\udcff is not allowed; a text in UTF-8"),
    ("--binarise grey", "--binarise: grey is not allowed; one of dynamic, fixed, threshold, none"),
    ("--nonsense", "unrecognized arguments: --nonsense"),
    ("--n_sample 5", "unrecognized arguments: --n_sample 5"),
    ("--resume --eval_only", "--eval_only: not together with --resume"),
    ("--resume --run_dir {tmp}/none", "--run_dir: no run in {tmp}/none"),
    ("--eval_only --run_dir {tmp}/none", "--run_dir: no run in {tmp}/none"),
    ("--data_dir {tmp}/none", "--data_dir: {tmp}/none is not a folder"),
    ("--data_dir {tmp}/file", "--data_dir: {tmp}/file is not a folder"),
    ("--model vae", "--model: vae is not allowed; one of iwae"),
    ("--stochastic_layers 0", "--stochastic_layers: 0 is not allowed; at least 1"),
    ("--stochastic_layers one", "argument --stochastic_layers: invalid int value: 'one'"),
    ("--n_latent", "argument --n_latent: expected at least one argument"),
    ("--n_latent 10 5", "--n_latent: one number per stochastic layer, 1 in all"),
    ("--n_latent -3", "--n_latent: -3 is not allowed; at least 1"),
    ("--n_hidden 2.5", "argument --n_hidden: invalid int value: '2.5'"),
    ("--conditional yes", "--conditional: yes is not allowed; one of no, learned_prior, standard_prior"),
    ("--n_samples 1e3", "argument --n_samples: invalid int value: '1e3'"),
    ("--n_samples", "argument --n_samples: expected one argument"),
    ("--backward_samples 0", "--backward_samples: 0 is not allowed; at least 1"),
    ("--held_out -1", "--held_out: -1 is not allowed; at least 0"),
    ("--held_out 60001", "--held_out: 60001 leaves no images of mnist to train on"),
    ("--held_out 100 --batch_size 59901", "--batch_size: 59901 is not allowed; there are 59900 images"),
    ("--batch_size 0", "--batch_size: 0 is not allowed; at least 1"),
    ("--epochs 1.5", "argument --epochs: invalid int value: '1.5'"),
    ("--epochs 3 --learning_rate 0", "--learning_rate: 0.0 is not allowed; more than 0"),
    ("--epochs 3 --learning_rate inf", "--learning_rate: inf is not allowed; more than 0, and finite"),
    ("--epochs 3 --learning_rate -0.001", "--learning_rate: -0.001 is not allowed; more than 0"),
    ("--epochs 3 --learning_rate fast", "argument --learning_rate: invalid float value: 'fast'"),
    ("--schedule linear", "--schedule: linear is not allowed; one of paper, constant, cosine"),
    ("--schedule paper --epochs 3", "--schedule: paper does not go with --epochs 3"),
    ("--lr_warmup -1 --epochs 3 --schedule cosine", "--lr_warmup: -1.0 is not allowed; at least 0"),
    ("--beta_warmup nan --epochs 3", "--beta_warmup: nan is not allowed; at least 0"),
    ("--grow_samples -0.1", "--grow_samples: -0.1 is not allowed; at least 0"),
    ("--grow_samples nan", "--grow_samples: nan is not allowed; at least 0"),
    ("--first_samples 0", "--first_samples: 0 is not allowed; at least 1"),
    ("--ema -0.5", "--ema: -0.5 is not allowed; at least 0"),
    ("--ema nan", "--ema: nan is not allowed; at least 0"),
    ("--seed -1", "--seed: -1 is not allowed; at least 0"),
    ("--seed 134217728", "--seed: 134217728 is not allowed; less than 134217728"),
    ("--jit maybe", "--jit: maybe is not allowed; one of on, off"),
    ("--eval_samples 0", "--eval_samples: 0 is not allowed; at least 1"),
    ("--eval_images 0", "--eval_images: 0 is not allowed; at least 1"),
    ("--threads -1", "--threads: -1 is not allowed; at least 0"),
    ("--groups x --objective piwae", "argument --groups: invalid int value: 'x'"),
    ("--preset fast --epochs -1", "--epochs: -1 does not go with --preset fast"),
    ("--preset fast --optimizer adam", "--optimizer: adam needs --learning_rate beside it"),
    ("--optimizer soap", "--optimizer: soap needs --learning_rate and --epochs N beside it"),
    ("--learning_rate 1e-4", "--learning_rate: only with --epochs N"),
    ("--preset quick --first_samples 3", "--first_samples: only with --grow_samples"),
    ("--preset quick --grow_samples 0.04", "--grow_samples: 0.04 is not allowed; it is less than one of 20 epochs"),
    ("--data_dir {tmp}/" + 300 * "a", "/" + 300 * "a" + " is not a folder"),
    ("--per_image {tmp}/" + 300 * "a" + ".csv", "/" + 300 * "a" + ".csv is not allowed; a new .csv file"),
    ("--data_dir=", "--data_dir:  is not allowed; a text that is not empty"),
    ("--start_from= --epochs 1", "--start_from:  is not allowed; a text that is not empty"),
    ("--threads 3000000000", "--threads: 3000000000 is not allowed; at most 1024"),
    ("--threads two", "argument --threads: invalid int value: 'two'"),
    ("--ema none", "argument --ema: invalid float value: 'none'"),
    ("--beta_warmup -1", "--beta_warmup: -1.0 is not allowed; at least 0"),
    ("--objective vr_iwae --alpha nan", "--alpha: nan is not allowed; at least 0"),
    ("--objective ciwae --elbo_weight -0.1", "--elbo_weight: -0.1 is not allowed; at least 0"),
    ("--objective rws_dreg --n_samples 1", "--n_samples: 1 is not allowed; --objective rws_dreg needs at least 2"),
    ("--objective jvi_dreg --n_samples 1", "--n_samples: 1 is not allowed; --objective jvi_dreg needs at least 2"),
    ("--objective jvi --n_samples 1", "--n_samples: 1 is not allowed; --objective jvi needs at least 2"),
    (
        "--dataset omniglot --conditional learned_prior",
        "--conditional: learned_prior is not allowed; omniglot has no labels",
    ),
    ("--preset quick --schedule paper", "--schedule: paper does not go with --epochs 20"),
    ("--run_dir= --epochs 1", "--run_dir:  is not allowed; a text that is not empty"),
    ("--dataset=", "--dataset:  is not allowed; a text that is not empty"),
    ("--binarise none", "--binarise: none is not allowed; the images of mnist are grey"),
    ("digits", "unrecognized arguments: digits"),
    ("--resume --start_from {tmp} --run_dir {tmp}", "--start_from: for a new run only"),
    ("--resume --run_dir {tmp}/file", "--run_dir: {tmp}/file/config.json cannot be read (NotADirectoryError"),
    ("--run_dir {tmp}/file", "--run_dir: {tmp}/file cannot be written (File exists)"),
    ("--run_dir /sys/run", "--run_dir: /sys/run cannot be written ("),  # a file system that is not for writing
    ("--run_dir {tmp}/file/below", "--run_dir: {tmp}/file/below cannot be written (Not a directory)"),
]


def test_there_are_cases_for_every_flag_that_can_be_wrong():
    assert len({flags for flags, _ in WRONG}) >= 60
    named = {word for flags, _ in WRONG for word in flags.split() if word.startswith("--")}
    assert named >= {f"--{name}" for name in (*(field.name for field in flag_fields()), *hyperparameters())}


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """(the temporary folder, {flags of WRONG: (exit code, stdout, stderr)}, folders before and after)."""
    tmp = tmp_path_factory.mktemp("refused")
    (tmp / "file").write_text("")
    (tmp / "table.csv").write_text("epoch,step\n")
    os.mkfifo(tmp / "pipe.csv")
    (tmp / "link.csv").symlink_to(tmp / "elsewhere.csv")
    # a module in TensorFlow's place, which fails when it is imported
    (tmp / "tensorflow.py").write_text("raise SystemExit('TensorFlow was imported')")
    before = {*tmp.rglob("*")}
    process = subprocess.run(
        [sys.executable, "-B", "-c", ONE_AFTER_ANOTHER], cwd=ROOT, text=True, capture_output=True,
        input=json.dumps([str(tmp), [flags.format(tmp=tmp).split() for flags, _ in WRONG]]),
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp), str(ROOT)])},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    results = dict(zip([flags for flags, _ in WRONG], map(json.loads, process.stdout.splitlines()), strict=True))
    return tmp, results, before, {*tmp.rglob("*")}


@pytest.mark.parametrize(("flags", "said"), WRONG)
def test_wrong_flags_are_one_line_and_code_2_before_tensorflow_starts(flags, said, refused):
    tmp, results, before, after = refused
    code, out, err = results[flags]
    assert code == 2, err
    assert err.startswith("main.py: error: ") and err.count("\n") == 1
    assert said.format(tmp=tmp) in err
    assert out == ""
    assert before == after  # no folder is left of a run that never was


def test_the_program_exits_with_that_code():
    process = subprocess.run([sys.executable, "main.py", "--epochs", "0"], cwd=ROOT, text=True, capture_output=True)
    assert process.returncode == 2 and process.stderr.startswith("main.py: error: --epochs: 0") and not process.stdout
