"""The benchmark compares programs that compute the same, and README shows what it measured."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.contenders import keras_fit, layout, ours, split, tf_reference
from benchmarks.contenders import products as products_alone
from benchmarks.tables import tables
from models.catalogue import MODELS
from models.iwae import IWAE
from tests.oracles import numpy_log_w

ROOT = pathlib.Path(__file__).parent.parent


def inputs(layers):
    rng = np.random.default_rng(0)
    weights = []
    for n_in, n_out in layout(layers):
        weights += [rng.normal(0, 0.05, (n_in, n_out)).astype(np.float32), rng.normal(0, 0.1, n_out).astype(np.float32)]
    x = (rng.random((6, 784)) < 0.1).astype(np.float32)
    noise = [rng.normal(size=(5, 6, width)).astype(np.float32) for width in ([100] if layers == 1 else [100, 50])]
    return weights, (rng.random((60, 784)) * 255).astype(np.uint8), x, noise


@pytest.mark.parametrize("layers", [1, 2])
def test_contenders_compute_the_same_bound(layers):
    weights, images, x, noise = inputs(layers)
    spec = {"layers": layers, "n_samples": 5, "batch_size": 6}
    bounds = {c.__name__: c.build(spec, weights, images)[0](x, noise) for c in (ours, keras_fit, tf_reference)}
    model = IWAE(*MODELS["iwae"].sizes[layers], n_pixels=784)
    ours.assign(model, weights)
    log_w = numpy_log_w(model, x, noise)
    expected = np.mean(np.logaddexp.reduce(log_w, axis=0) - np.log(5))
    for name, bound in bounds.items():
        assert bound == pytest.approx(expected, abs=1e-3), name


@pytest.mark.parametrize("layers", [1, 2])
def test_products_alone_are_three_for_every_weight_matrix_but_the_first(layers):
    spec = {"layers": layers, "n_samples": 5, "batch_size": 6}
    shapes = [(n_in, n_out) for _, widths, _ in products_alone.chains(spec) for n_in, n_out in _pairs(widths)]
    assert shapes == layout(layers)
    assert [len(block) for block in split(inputs(layers)[0], layers)] == ([4, 3] if layers == 1 else [4, 4, 4, 3])
    products_alone.build(spec, inputs(layers)[0], None)[1](3)
    products_alone.build(spec | {"numpy": True}, inputs(layers)[0], None)[1](3)
    assert products_alone.chains(spec)[0][0] == 6 and products_alone.chains(spec)[-1][0] == 30


def _pairs(widths):
    return [(widths[0], widths[1]), (widths[1], widths[2]), *[(widths[2], head) for head in widths[3]]]


def test_readme_shows_the_measured_tables():
    results = json.loads((ROOT / "benchmarks/results.json").read_text())
    assert tables(results).strip() in (ROOT / "README.md").read_text()


def test_training_contenders_train():
    weights, images, x, noise = inputs(1)
    for contender in (ours, keras_fit, tf_reference):
        bound, run = contender.build({"layers": 1, "n_samples": 2, "batch_size": 20}, weights, images)
        before = bound(x, noise)
        run(3)
        assert bound(x, noise) != before, contender.__name__
    tf.keras.backend.clear_session()
