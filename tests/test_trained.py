"""Trained models from Python: what goes in, what comes out, and what is refused."""

import csv
import dataclasses
import hashlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import evaluation
from evaluation import make_log_likelihood
from experiment import load_run, startup
from experiment.run_folder import RESULTS, ROOT
from experiment.trained import TrainedModel
from tests.test_readme import python_blocks
from utils import UsageError


@pytest.fixture(scope="module")
def trained():
    folder = RESULTS / "quick" / "iwae-1l-k5"
    before = (folder / "config.json").read_bytes()
    run = load_run(folder)
    assert (folder / "config.json").read_bytes() == before  # the folder is only read
    return run


@pytest.fixture(scope="module")
def conditional():
    return load_run(RESULTS / "fast" / "ciwae-learned-prior-1l-k5")


@pytest.fixture(scope="module")
def images(mnist):
    return mnist.binarised_test_images()[:30]


def test_log_likelihood_is_that_of_the_evaluation(trained, images):
    log_px, errors = trained.log_likelihood(images, n_samples=200, seed=3)
    _, (expected, mc_errors, _) = make_log_likelihood(trained.model, 200)(images, seed=3)
    np.testing.assert_array_equal(log_px, expected)
    np.testing.assert_array_equal(errors, mc_errors)
    assert log_px.shape == errors.shape == (30,) and (errors > 0).all() and -160 < log_px.mean() < -60
    again, _ = trained.log_likelihood(images.reshape(-1, 28, 28).astype(bool), n_samples=200, seed=3)
    np.testing.assert_array_equal(again, log_px)


def test_a_model_compiles_once_for_many_calls(trained, images, monkeypatch):
    made = []
    monkeypatch.setattr(evaluation, "make_q_means", lambda *_, jit: made.append(("q", jit)) or (lambda *_: [0.0]))
    one = lambda *_: (None, types.SimpleNamespace(log_px=0.0, mc_error=0.0))  # noqa: E731
    monkeypatch.setattr(evaluation, "make_log_likelihood", lambda _, k, jit: made.append((k, jit)) or one)
    config = dataclasses.replace(trained.config, jit="off")
    model = TrainedModel(types.SimpleNamespace(config=config, dataset=trained.dataset, model=trained.model))
    for _ in range(2):
        model.encode(images)
        model.log_likelihood(images, n_samples=20)
        model.log_likelihood(images, n_samples=30)
    assert made == [("q", False), (20, False), (30, False)]


def test_a_conditional_model_is_given_the_labels(conditional, mnist, images):
    labels = mnist.test_labels[:30]
    right, _ = conditional.log_likelihood(images, labels, n_samples=200)
    wrong, _ = conditional.log_likelihood(images, (labels + 1) % 10, n_samples=200)
    assert right.mean() > wrong.mean() + 5
    means = conditional.sample(10, labels=np.arange(10), means=True)
    same = conditional.sample(10, labels=np.zeros(10, int), means=True)
    np.testing.assert_array_equal(means[0], same[0])
    assert np.abs(means[1:] - same[1:]).max() > 0.5
    expected = conditional.model.mean_image(conditional.encode(images, labels)[0], np.eye(10, dtype=np.float32)[labels])
    np.testing.assert_array_equal(conditional.reconstruct(images, labels), np.reshape(expected, (30, 28, 28)))
    assert not np.allclose(conditional.encode(images, labels)[0], conditional.encode(images, (labels + 1) % 10)[0])


def test_samples_are_binary_draws_of_the_means_and_follow_the_seed(trained):
    a, b, means = trained.sample(500), trained.sample(500, seed=1), trained.sample(500, means=True)
    assert a.shape == means.shape == (500, 28, 28) and set(np.unique(a)) == {0.0, 1.0}
    np.testing.assert_array_equal(a, trained.sample(500))
    assert not np.allclose(means, trained.sample(500, seed=1, means=True))  # other points z, not other pixels alone
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained.model, "decode", lambda noise, y: tf.fill([noise[0].shape[1], 784], 0.5))
        assert not np.array_equal(trained.sample(2), trained.sample(2, seed=1))  # and other pixels
    assert not np.array_equal(a, b) and 0 < means.min() < means.max() < 1
    assert np.abs(a.mean(axis=0) - means.mean(axis=0)).max() < 0.12


def test_encode_and_reconstruct_are_q_s_mean_and_its_image(trained, images):
    (z1,) = trained.encode(images)
    ((q, _, _),) = trained.model.encode(images, (tf.zeros([1, 30, 100]),))
    np.testing.assert_allclose(z1, q.mean(), atol=1e-5)
    pictures = trained.reconstruct(images)
    np.testing.assert_allclose(pictures.reshape(30, -1), trained.model.mean_image(z1), atol=1e-6)
    errors = [np.abs(pictures.reshape(30, -1) - np.roll(images, shift, axis=0)).mean() for shift in (0, 1)]
    assert errors[0] < 0.7 * errors[1]  # each image is nearer to its own reconstruction than to another's


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (np.zeros((3, 27, 28)), r"images of shape \(3, 27, 28\) do not fit: \[n, 28, 28\] or \[n, 784\]"),
        (np.zeros((0, 784)), "do not fit"),
        (np.full((2, 784), 255), "images hold values from 255 to 255, not from 0 to 1: divide bytes by 255"),
        (np.full((2, 784), 2), "images hold values from 2 to 2, not from 0 to 1: divide bytes by 255"),
        (np.full((2, 784), np.nan), "images hold values"),
        (np.full((2, 784), 0.5), "log p\\(x\\) is that of binary images: binarise them first"),
    ],
)
def test_images_that_are_none_are_refused(trained, bad, said):
    with pytest.raises(ValueError, match=said):
        trained.log_likelihood(bad, n_samples=2)


def test_numbers_below_one_are_refused(trained, images):
    for n in (0, -1):
        with pytest.raises(ValueError, match=f"^n: {n} is not allowed; 1 or more"):
            trained.sample(n)
        with pytest.raises(ValueError, match=f"^n_samples: {n} is not allowed; 1 or more"):
            trained.log_likelihood(images, n_samples=n)
    with pytest.raises(TypeError, match="float"):
        trained.sample(2.0)


def test_labels_that_do_not_fit_are_refused(trained, conditional, images):
    with pytest.raises(ValueError, match="takes no labels"):
        trained.encode(images, np.zeros(30, int))
    with pytest.raises(ValueError, match="needs labels"):
        conditional.sample(3)
    for labels in (np.zeros(29, int), np.full(30, 10), np.ones(30), np.ones(30, bool)):
        with pytest.raises(ValueError, match="30 integers from 0 to 9"):
            conditional.log_likelihood(images, labels, n_samples=2)


def test_a_folder_without_a_finished_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no run in"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text((RESULTS / "quick/iwae-1l-k5/config.json").read_text())
    with pytest.raises(UsageError, match="training in .* has not ended"):
        load_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]  # the folder is only read


def test_damaged_weights_are_refused(tmp_path):
    folder = shutil.copytree(RESULTS / "quick" / "iwae-1l-k5", tmp_path / "run")
    content = bytearray((folder / "model.weights.h5").read_bytes())
    record = json.loads((folder / "training.json").read_text()) | {"weights": hashlib.sha256(content).hexdigest()}
    (folder / "training.json").write_text(json.dumps(record))
    content[len(content) // 2] ^= 1
    (folder / "model.weights.h5").write_bytes(content)
    with pytest.raises(UsageError, match="model.weights.h5 is damaged"):
        load_run(folder)


def test_readme_s_python_runs_as_it_stands(tmp_path):
    (block,) = python_blocks("Use")
    script = tmp_path / "script.py"
    script.write_text(
        block.replace("n_samples=5000", "n_samples=50") + "\nprint(len(log_px), z1.shape, digits.shape)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run([sys.executable, script], cwd=ROOT, env=environment, text=True, capture_output=True)
    assert process.stdout == "8 (8, 100) (16, 28, 28)\n" and process.stderr == ""


def test_per_image_values_are_written(tmp_path, mnist, capfd):
    import main
    from experiment import command_line

    flags = "--eval_only --eval_samples 30 --eval_images 20 --gpu -1 --run_dir".split()
    folder = shutil.copytree(RESULTS / "quick" / "iwae-1l-k5", tmp_path / "run")
    flags += [str(folder), "--per_image", str(tmp_path / "each.csv")]
    assert command_line(main.work, main.DESCRIPTION, flags) == 0
    with open(tmp_path / "each.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["test_image"]) for row in rows] == list(range(0, 10000, 500))
    assert [int(row["label"]) for row in rows] == mnist.test_labels[::500].tolist()
    mean = np.mean([float(row["log_px"]) for row in rows])
    assert f"test log likelihood (k=30): {mean:.2f}" in capfd.readouterr().out
    assert all(0 < float(row["mc_error"]) < 5 for row in rows)


def test_two_layers_and_the_standard_prior(images, mnist):
    two = load_run(RESULTS / "fast" / "iwae-2l-k5")
    (z1, z2), other = two.encode(images), two.encode(images, seed=1)[1]
    assert (z1.shape, z2.shape) == ((30, 100), (30, 50)) and not np.array_equal(z2, other)
    np.testing.assert_allclose(two.reconstruct(images).reshape(30, -1), two.model.mean_image(z1), atol=1e-6)
    standard = load_run(RESULTS / "fast" / "ciwae-standard-prior-1l-k5")
    assert standard.sample(3, labels=mnist.test_labels[:3]).shape == (3, 28, 28)


def test_as_many_samples_as_the_tables_have_are_the_usual_ones():
    usual = inspect.signature(TrainedModel.log_likelihood).parameters
    assert (usual["n_samples"].default, usual["seed"].default) == (5000, 0)


def test_the_model_has_its_own_precision_in_a_process_of_another(images, trained, double_precision):
    model = load_run(RESULTS / "quick" / "iwae-1l-k5")
    np.testing.assert_array_equal(
        model.log_likelihood(images[:2], n_samples=20), trained.log_likelihood(images[:2], n_samples=20)
    )
    assert keras.config.floatx() == "float64"


def test_a_folder_of_data_that_is_none_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--data_dir: .*none is not a folder"):
        load_run(RESULTS / "quick" / "iwae-1l-k5", data_dir=tmp_path / "none")


def test_the_gpu_asked_for_is_the_one_that_is_used(monkeypatch, capsys):
    def started(gpu):
        return startup.Device("CPU, which is all there is", None, [gpu] if gpu == 7 else [])

    def stop(*_, **__):
        raise RuntimeError

    monkeypatch.delitem(sys.modules, "tensorflow")
    monkeypatch.setattr("experiment.trained.start_tensorflow", started)
    monkeypatch.setattr("experiment.trained.Session", stop)
    for gpu, said in ((7, "device: CPU, which is all there is\n"), (None, "")):
        with pytest.raises(RuntimeError):
            load_run(RESULTS / "quick" / "iwae-1l-k5", gpu=gpu)
        assert capsys.readouterr().err == said


def test_progress_is_shown_where_it_is_asked_for(trained, mnist, capsys):
    trained.log_likelihood(mnist.binarised_test_images()[:2], n_samples=2, show_progress=True)
    assert "image 2/2, log p(x)" in capsys.readouterr().out
