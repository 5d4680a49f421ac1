"""A data set and an objective that are defined here are used like those of the project: all that it takes is an entry.

A model's turn is in test_model_seam.py.
"""

import csv
import dataclasses
import json
import sys

import numpy as np
import pytest
import tensorflow as tf

import data.catalogue
import models.catalogue
import plots.runs
from data import Dataset
from data.catalogue import DatasetEntry
from experiment import cells, run_folder
from experiment.flags import parse_flags
from experiment.run_folder import Run, load_config
from experiment.session import Session
from experiment.settings import Config
from models.catalogue import Hyperparameter, ObjectiveEntry, objective_function
from models.interface import LogWeights
from models.objectives import Estimate, iwae_elbo, vae_elbo
from tests.helpers import in_process, last_frame, one_line
from utils import UsageError

STROKES = DatasetEntry(n_train=120, n_test=40, image_shape=(5, 7), n_labels=3, module=__name__)
SIZES = (
    "--n_hidden 8 --n_latent 3 --n_samples 2 --batch_size 30 --epochs 2 --eval_samples 20 --jit off --gpu -1".split()
)


def strokes(n, seed):
    """Images of a bright row, the label's: uint8 [n, 35], and labels [n]."""
    labels = np.arange(n) % STROKES.n_labels
    images = np.random.default_rng(seed).integers(0, 60, (n, *STROKES.image_shape))
    images[np.arange(n), labels] += 180
    return images.reshape(n, -1).astype(np.uint8), labels.astype(np.uint8)


def load(data_dir):
    """What data.load finds behind the entry."""
    return Dataset(*strokes(STROKES.n_train, 0), *strokes(STROKES.n_test, 1), entry=STROKES)


def add_data_set(monkeypatch, folder):
    """The new data set is in the table, and `folder` is results/."""
    monkeypatch.setitem(data.catalogue.DATASETS, "strokes", STROKES)
    monkeypatch.setitem(data.catalogue.DATASETS, "unlabelled", STROKES._replace(n_labels=0))
    monkeypatch.setattr(run_folder, "RESULTS", folder)
    return folder


@pytest.fixture
def results(monkeypatch, tmp_path):
    return add_data_set(monkeypatch, tmp_path)


def pictures(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*.png") if path.stat().st_size > 3000}


def prior(folder):
    """{epochs: mean images [n, height, width]}, as they were kept while training."""
    found = {}
    for path in folder.glob("arrays/prior_*.npz"):
        with np.load(path) as arrays:
            found[int(path.stem.split("_")[1])] = arrays["means"]
    return found


def only_folder(results):
    (config,) = results.glob("*/*/config.json")
    return config.parent


def test_another_data_set_goes_through_main(results, monkeypatch, capfd):
    monkeypatch.setattr(plots.runs, "save_animation", last_frame)
    assert in_process("--dataset", "strokes", *SIZES) == 0, capfd.readouterr().err
    folder = only_folder(results)
    saved = json.loads((folder / "config.json").read_text())
    assert saved["experiment"]["dataset"] == "strokes" and "strokes" in folder.name
    assert cells.cell_of(load_config(folder)) is None
    assert {f"figures/{name}.png" for name in ("prior", "learning_curves", "posterior_pca")} <= pictures(folder)
    images = prior(folder)
    assert sorted(images) == [0, 1, 2] and {array.shape for array in images.values()} == {(100, 5, 7)}
    with np.load(folder / "arrays" / "posterior_means.npz") as arrays:  # each test image once
        assert arrays["z1"].shape == (40, 3) and np.array_equal(arrays["labels"], load(None).test_labels)
    with np.load(folder / "arrays" / "reconstructions.npz") as arrays:
        assert arrays["images"].shape == arrays["means"].shape == (30, 5, 7)
    record = json.loads((folder / "test_llh.json").read_text())
    assert record["n_images"] == 40 and -35 * np.log(2) < record["test_llh"] < 0
    with open(folder / "metrics.csv", newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == [0, 4, 8]  # 120 images in batches of 30
    weights = (folder / "model.weights.h5").read_bytes()
    monkeypatch.setattr(Session, "draw", lambda self: None)  # once is enough
    capfd.readouterr()
    assert in_process("--eval_only", "--run_dir", folder) == 0
    out, err = capfd.readouterr()
    assert f"log likelihood (k=20): {record['test_llh']:.2f}" in out and "error" not in err
    assert in_process("--resume", "--run_dir", folder, "--eval_images", 7) == 0
    assert "7 images, 20 samples" in capfd.readouterr().out and prior(folder).keys() == images.keys()
    assert (folder / "model.weights.h5").stat().st_size == len(weights)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--dataset strokes --batch_size 200", "--batch_size: 200 is not allowed; there are 120 images"),
        ("--dataset strokes --eval_images 41", "--eval_images: 41 is not allowed; there are 40 images"),
        ("--dataset strokes --held_out 120", "--held_out: 120 leaves no images of strokes to train on"),
        ("--dataset strokes --held_out 10 --eval_images 11", "--eval_images: 11 is not allowed; there are 10 images"),
        ("--dataset strokes --held_out 110", "--batch_size: 20 is not allowed; there are 10 images"),
        ("--dataset unlabelled --conditional learned_prior", "unlabelled has no labels"),
    ],
)
def test_flags_are_judged_by_the_sizes_in_the_table(flags, said, results, capfd):
    assert in_process(*flags.split()) == 2
    one_line(capfd, said)
    assert not list(results.iterdir())


def test_flags_beside_a_saved_run_are_judged_by_its_settings(results, monkeypatch, tmp_path):
    """Not by those that a new run would have: its sizes of the data, its layers, its number of samples."""
    monkeypatch.setitem(data.catalogue.DATASETS, "large", STROKES._replace(n_test=20000))
    folder = tmp_path / "large"
    config = Config(dataset="large", stochastic_layers=2, n_latent=(4, 2), n_samples=2, first_samples=5).resolved()
    Run(folder).begin(config)
    flags = "--eval_images 20000 --n_latent 4 2 --first_samples 5 --batch_size 20".split()
    found, _, _ = parse_flags(["--eval_only", "--run_dir", str(folder), *flags])
    assert found == dataclasses.replace(config, eval_images=20000, run_dir=str(folder))
    for wrong, said in (("--n_latent 4 3", "4 3, but .* holds 4 2"), ("--dataset mnist", "mnist, but .* holds large")):
        with pytest.raises(UsageError, match=said):
            parse_flags(["--eval_only", "--run_dir", str(folder), *wrong.split()])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (dict(train_images=np.zeros((STROKES.n_train, 96), np.float32)), "train_images are float32"),
        (dict(train_images=np.zeros((STROKES.n_train, STROKES.n_pixels), np.float32)), "train_images are float32"),
        (dict(test_images=np.zeros((STROKES.n_test, STROKES.n_pixels), int)), "test_images are int64"),
        (dict(train_labels=np.zeros(STROKES.n_train)), "train_labels are float64"),
        (dict(test_labels=np.zeros(STROKES.n_test, bool)), "test_labels are bool"),
        (dict(test_images=np.zeros((3, 5), np.uint8)), r"test_images are uint8 \(3, 5\), not uint8 "),
        (dict(train_labels=np.zeros(3, int)), r"train_labels are int64 \(3,\) from 0 to 0, not "),
        (
            dict(test_labels=np.full(STROKES.n_test, STROKES.n_labels)),
            "test_labels are .* from 3 to 3, not 40 integers",
        ),
        (dict(test_labels=np.full(STROKES.n_test, -1)), "test_labels are .* from -1 to -1, not 40 integers"),
    ],
)
def test_a_data_set_that_is_not_what_its_entry_says_is_refused(changed, said, results, monkeypatch):
    whole = load(None)
    monkeypatch.setattr(sys.modules[__name__], "load", lambda data_dir: whole._replace(**changed))
    with pytest.raises(data.DataError, match=said):
        data.load("strokes")


def alpha_bound(output, beta=1.0, *, alpha):
    """The Renyi bound log mean w^(1 - alpha) / (1 - alpha): the ELBO's side at alpha near 1, iwae_elbo's at 0."""
    k = tf.cast(tf.shape(output.log_px_z)[0], tf.float32)

    def bound(log_w):
        return (tf.reduce_logsumexp((1 - alpha) * log_w, axis=0) - tf.math.log(k)) / (1 - alpha)

    return Estimate(bound=bound(output.log_w()), surrogate=bound(output.log_w(beta)))


@pytest.fixture
def alpha(monkeypatch):
    number = models.catalogue.ALPHA
    entry = ObjectiveEntry("a Renyi bound", {"alpha": number}, elbo_at_one=True, module=__name__)
    monkeypatch.setitem(models.catalogue.OBJECTIVES, "alpha_bound", entry)


def test_another_objective_has_its_flag_and_is_trained_with_it(results, alpha, no_figures, capfd):
    flags = ["--dataset", "strokes", *SIZES, "--objective", "alpha_bound"]
    for value, said in (("1", "less than 1"), ("-0.5", "at least 0")):
        assert in_process(*flags, "--alpha", value) == 2
        one_line(capfd, f"--alpha: {float(value)} is not allowed; {said}")
    assert in_process("--alpha", 0.3) == 2  # another objective has no such number
    one_line(capfd, "--alpha: only with vr_iwae or vr_iwae_dreg or alpha_bound, not with iwae_elbo and the model iwae")
    assert not list(results.iterdir())

    assert in_process(*flags, "--alpha", 0.25) == 0, capfd.readouterr().err
    folder = only_folder(results)
    assert "alpha-0.25" in folder.name
    saved = json.loads((folder / "config.json").read_text())["experiment"]
    assert saved["objective"] == "alpha_bound" and saved["hyperparameters"] == {"alpha": 0.25}
    assert load_config(folder).hyperparameters == {"alpha": 0.25}
    capfd.readouterr()
    for flag, value, said in (("alpha", 0.75, "0.75, but"), ("groups", 1, "only with miwae or piwae, and")):
        assert in_process("--resume", "--run_dir", folder, f"--{flag}", value) == 2
        assert f"--{flag}: {said}" in capfd.readouterr().err
    assert in_process("--resume", "--run_dir", folder, "--alpha", 0.25) == 0, capfd.readouterr().err
    assert "hyperparameters=alpha 0.25" in capfd.readouterr().out


def test_hyperparameters_of_one_name_are_one(alpha, monkeypatch):
    other = models.catalogue.OBJECTIVES["vr_iwae"]._replace(hyperparameters={"alpha": Hyperparameter(0.9, float, "")})
    monkeypatch.setitem(models.catalogue.OBJECTIVES, "vr_iwae", other)
    with pytest.raises(ValueError, match="vr_iwae_dreg and vr_iwae have different hyperparameters called alpha"):
        models.catalogue.hyperparameters()


def test_the_number_given_reaches_the_objective(alpha):
    """At alpha = 0 it is log mean w; the default is the entry's, not the function's."""
    log_px_z = tf.constant([[0.0, -1.0], [1.0, 2.0], [-2.0, 0.5]])
    nothing = tf.zeros_like(log_px_z)
    output = LogWeights(log_px_z, (nothing,), (nothing,), nothing, (), ())
    bounds = [objective_function("alpha_bound", {"alpha": value})(output).bound for value in (0.0, 0.5, 0.999)]
    np.testing.assert_allclose(bounds[0], iwae_elbo(output).bound, rtol=1e-5)
    np.testing.assert_allclose(bounds[2], vae_elbo(output).bound, atol=5e-3)
    assert (bounds[0] > bounds[1]).numpy().all() and (bounds[1] > bounds[2]).numpy().all()
    assert Config(objective="alpha_bound").resolved().hyperparameters == {"alpha": 0.5}
