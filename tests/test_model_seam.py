"""A model that is defined in the tests is trained, measured, drawn and looked into like the project's own.

tests/top_first.py: three layers, the top one drawn first, linear all through.
"""

import io
import json
import os
import re
import signal
import sys
import tokenize
import types

import numpy as np
import pytest
import tensorflow as tf

import models.catalogue
import plots.runs
import plots.tasks
from evaluation import make_activity, make_log_likelihood, posterior_means, without_units
from evaluation import sampling_importance_resampling as resampled
from experiment import cells, load_run, survey
from experiment.flags import default_path
from experiment.run_folder import ROOT, load_config
from experiment.session import Session, build_model
from experiment.settings import Config
from experiment.siblings import settings_of_sibling
from models.catalogue import ModelEntry
from models.gradients import estimate_and_gradients
from models.objectives import iwae_elbo
from tasks import task06
from tests.helpers import in_process, last_frame
from tests.test_seams import add_data_set, only_folder, pictures, prior, strokes
from tests.top_first import TopFirst
from training import loop
from utils import read_csv

FLAGS = (
    "--model top_first --stochastic_layers 3 --dataset strokes --n_samples 3 --batch_size 30 --epochs 3"
    " --learning_rate 0.01 --eval_samples 20 --jit off --gpu -1"
).split()


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """results/, a temporary folder, while the model and its data set are in their tables."""
    entry = ModelEntry("top first", "TopFirst", "tests.top_first", {3: ((1, 1, 1), (4, 3, 2))})
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(models.catalogue.MODELS, "top_first", entry)
        yield add_data_set(monkeypatch, tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def finished(registered):
    """The folder of a run that was never stopped."""
    asked, function = [], tf.function
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(plots.runs, "save_animation", last_frame)
        monkeypatch.setattr(
            tf, "function", lambda *f, **how: asked.append(how.get("jit_compile")) or function(*f, **how)
        )
        assert in_process(*FLAGS) == 0
    assert asked and not any(asked)  # --jit off
    return only_folder(registered)


def tiny_model():
    return TopFirst((1, 1, 1), (4, 3, 2), 35)


def images(n=40):
    return (strokes(n, 1)[0] > 127).astype(np.float32)


def test_another_model_goes_through_main_and_task_6(registered, finished, capfd):
    folder = finished
    assert folder.name.startswith("iwae-3l-k3-model-top-first-dataset-strokes")  # its usual sizes are not named
    config = load_config(folder)
    assert config.model == "top_first" and config.n_latent == (4, 3, 2) and cells.cell_of(config) is None
    assert {f"figures/{name}.png" for name in ("prior", "learning_curves", "posterior_pca", "z1_redrawn")} <= pictures(
        folder
    )
    assert {array.shape for array in prior(folder).values()} == {(100, 5, 7)}
    rows = read_csv(folder / "metrics.csv")
    assert float(rows[-1]["test_iwae_elbo"]) > float(rows[0]["test_iwae_elbo"]) + 1
    for name in ("posterior_means", "q_means_0000"):
        with np.load(folder / "arrays" / f"{name}.npz") as arrays:  # layers from the image up, whatever their order
            assert [arrays[f"z{i}"].shape for i in (1, 2, 3)] == [(40, 4), (40, 3), (40, 2)]
    record = json.loads((folder / "test_llh.json").read_text())
    assert record["active_units"] == [int(rows[-1][f"active_z{i}"]) for i in (1, 2, 3)]
    assert survey(task06.work, task06.__doc__, ["--eval_samples", "20", "--gpu", "-1"]) == 0, capfd.readouterr().err
    (row,) = read_csv(registered / "task06" / "active_units.csv")
    assert row["units"] == "4+3+2" and row["paper"] == ""
    assert row["active"] == "+".join(map(str, record["active_units"]))
    assert {"task06/activity.png", "task06/while_training.png"} <= pictures(registered)


def test_stopped_and_resumed_it_ends_the_same(registered, finished, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(Session, "draw", lambda session: None)
    report = loop._Training._report

    def report_then_interrupt(self, step, *args):
        report(self, step, *args)
        if step >= 5:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(loop, "SECONDS_PER_CALL", 0.0)  # one step a call
    monkeypatch.setattr(loop._Training, "_report", report_then_interrupt)
    assert in_process(*FLAGS, "--run_dir", tmp_path) == 130
    assert "(epoch 2 of 3), which is saved" in capfd.readouterr().err
    monkeypatch.setattr(loop._Training, "_report", report)
    assert in_process("--resume", "--run_dir", tmp_path) == 0
    weights, logs = [], []
    for folder in (finished, tmp_path):
        model = tiny_model()
        model.load_weights(folder / "model.weights.h5")
        weights.append(model.get_weights())
        logs.append([{**row, "seconds": ""} for row in read_csv(folder / "metrics.csv")])
    assert all(np.array_equal(a, b) for a, b in zip(*weights)) and logs[0] == logs[1]


def test_a_conditional_one_with_a_learned_prior(registered, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(Session, "draw", lambda session: None)
    flags = [*FLAGS, "--conditional", "learned_prior", "--epochs", 1, "--run_dir", tmp_path]
    assert in_process(*flags) == 0, capfd.readouterr().err
    assert {array.shape for array in prior(tmp_path).values()} == {(30, 5, 7)}


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_gradients_reach_every_layer_through_those_drawn_after_it(layer):
    """Those of an ordinary tape, which knows of no cut."""
    model, x = tiny_model(), images()
    noise = model.noise(6, len(x), tf.constant([3, 4]))
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(iwae_elbo(model(x, noise)).surrogate)
    expected = tape.gradient(value, model.trainable_variables)
    _, _, found = estimate_and_gradients(model, iwae_elbo, x, noise)
    of_layer = [id(v) for v in (*model.q_means[layer].trainable_variables, model.q_log_stds[layer])]
    for variable, a, b in zip(model.trainable_variables, expected, found):
        if id(variable) in of_layer:
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
            assert np.abs(a).max() > 1e-3


def known_model():
    """A model whose units are known: z3 has a dead unit; a unit of z2 reads that one alone; one of z1 reads nothing."""
    model = tiny_model()
    generator = np.random.default_rng(0)
    for dense in (*model.q_means, *model.p_means, model.logits):
        kernel, bias = dense.get_weights()
        dense.set_weights([generator.normal(0, 0.4, kernel.shape), generator.normal(0, 0.4, bias.shape)])
    q1, q2, q3 = model.q_means
    for dense, unit in ((q1, 2), (q2, 1), (q3, 0)):
        kernel, bias = dense.get_weights()
        kernel[:, unit], bias[unit] = 0, 0
        if dense is q2:
            kernel[35, unit] = 2.0  # the first unit of z3, which stands after the pixels
        dense.set_weights([kernel, bias])
    return model


def exact_means(model, x):
    """E_q[z|x], [n_images, n_latent] a layer: that of a layer is linear in x and in that of the layer above."""
    means = []
    for dense in reversed(model.q_means):
        kernel, bias = dense.get_weights()
        means.insert(0, np.hstack([x, *means[:1]]) @ kernel + bias)
    return means


def test_active_units_are_counted_by_layer():
    model, x = known_model(), images(120)
    expected = [means.var(axis=0) for means in exact_means(model, x)]
    found = make_activity(model, n_samples=2000, jit=False)(x)
    assert [len(layer) for layer in found] == [4, 3, 2]
    for ours, exact in zip(found, expected):
        np.testing.assert_allclose(ours, exact, rtol=0.05, atol=5e-3)
    assert [int(np.sum(layer > 0.01)) for layer in expected] == [3, 2, 1]
    assert [int(np.sum(layer > 0.01)) for layer in found] == [3, 2, 1]


def test_its_method_is_given_the_mean_of_each_unit(monkeypatch):
    model, x = known_model(), images(120)
    monkeypatch.setattr(model, "without_units", lambda keep, means: means)
    for ours, exact in zip(without_units(model, None, x), exact_means(model, x), strict=True):
        np.testing.assert_allclose(ours, exact.mean(axis=0), atol=0.15)
        assert np.abs(exact.mean(axis=0)).max() > 0.3


def test_units_are_taken_away_by_its_own_method():
    """What does not depend on x, and is distributed under q as under p, does not change log w when it goes."""
    model, x = known_model(), images()
    kernel, bias = model.q_means[1].get_weights()
    kernel[35] = 0  # now nothing of q reads the dead unit of z3
    model.q_means[1].set_weights([kernel, bias])
    kernel, bias = model.p_means[1].get_weights()
    kernel[0] = 0  # and nothing of p
    model.p_means[1].set_weights([kernel, bias])
    noise = model.noise(5, len(x), tf.constant([1, 2]))
    keep = [np.full(n, True) for n in model.n_latent]
    keep[2][0] = False
    np.testing.assert_allclose(
        without_units(model, keep, x)(x, noise).log_w(), model(x, noise).log_w(), rtol=1e-4, atol=1e-4
    )
    keep[2][:] = False, True
    keep[0][0] = False  # an active one: it is missed
    smaller = without_units(model, keep, x)
    assert np.abs(smaller(x, noise).log_w() - model(x, noise).log_w()).max() > 0.1
    assert all(layer[~units].max(initial=0) == 0 for layer, units in zip(make_activity(smaller, jit=False)(x), keep))


def test_posteriors_have_a_layer_each_from_the_image_up():
    model, x = known_model(), images()
    sizes = [(40, 4), (40, 3), (40, 2)]
    assert [z.shape for z in posterior_means(model, x, n_samples=20, jit=False)] == sizes
    drawn, _ = resampled(model, x, n_samples=20, n_draws=6, jit=False)
    assert [z.shape for z in drawn] == [(6, *size) for size in sizes]
    result, _ = make_log_likelihood(model, 20, jit=False)(x)
    assert np.isfinite(result.test_llh)


def test_lists_of_layers_are_from_the_image_up():
    """Whichever is drawn first: task 3 holds the noise of the last one fixed."""
    model, x = known_model(), images()
    noise = model.noise(1, len(x), tf.constant([1, 2]))
    assert [e.shape[-1] for e in noise] == list(model.n_latent)
    assert [q.mean().shape[-1] for q, _, _ in model.encode(x, noise)] == list(model.n_latent)


def test_other_sizes_than_the_first_model_s_are_named_and_in_no_cell(registered):
    config = Config(model="top_first", stochastic_layers=3, n_latent=(4, 3, 1)).resolved()
    assert cells.cell_of(config) is None and not cells.follows(config, "fast")


def model_of_the_page(monkeypatch):
    """models/README.md's example of a model with a number of its own, as it stands, in its table."""
    (block,) = re.findall(r"```python\n(# models/scaled.*?)```", (ROOT / "models/README.md").read_text(), re.DOTALL)
    code, _, entry = block.partition("# models/catalogue.py, in MODELS\n")
    module = types.ModuleType("models.scaled")
    exec(code, vars(module))
    monkeypatch.setitem(sys.modules, "models.scaled", module)
    monkeypatch.setitem(models.catalogue.MODELS, "scaled", eval("{" + entry + "}", vars(models.catalogue))["scaled"])
    return module.Scaled


def test_a_model_has_numbers_of_its_own(registered, tmp_path, monkeypatch, capfd):
    scaled = model_of_the_page(monkeypatch)
    monkeypatch.setattr(Session, "draw", lambda session: None)
    assert in_process("--q_scale", 2) == 2 and in_process("--model", "scaled", "--q_scale", 0) == 2
    only, above = capfd.readouterr().err.splitlines()
    assert "--q_scale: only with scaled, not with iwae_elbo and the model iwae" in only
    assert "--q_scale: 0.0 is not allowed; more than 0" in above
    assert Config(model="scaled").resolved().hyperparameters == {"q_scale": 1.0}
    assert str(Config(model="scaled").resolved().hyperparameters["q_scale"]) == "1.0"  # as a flag has it

    flags = "--model scaled --q_scale 3 --objective miwae --groups 2 --n_samples 4 --dataset strokes --batch_size 50"
    flags += " --epochs 1 --learning_rate 1e-9 --eval_samples 20 --jit off --gpu -1"
    assert in_process(*flags.split(), "--run_dir", tmp_path) == 0, capfd.readouterr().err
    config, model = load_config(tmp_path), load_run(tmp_path).model
    assert config.hyperparameters == {"q_scale": 3.0, "groups": 2}
    assert "model-scaled-q-scale-3.0-groups-2" in default_path(config).name
    x = images(3)
    np.testing.assert_array_equal(model.q_input(x), 3 * x)
    copy = model.without_units([np.array([False, True, True, True])], [np.zeros(4)])
    np.testing.assert_array_equal(copy.q_input(x), 3 * x)
    assert settings_of_sibling(config, {"objective": "dreg"}).hyperparameters == {"q_scale": 3.0}
    growing = dict(model="scaled", hyperparameters={"q_scale": 3.0}, epochs=4, grow_samples=0.5)
    assert Config(**growing).resolved().beginning()["hyperparameters"] == {"q_scale": 3.0}
    for flag, value, said in (("q_scale", 2, "2.0, but"), ("elbo_weight", 0.5, "only with ciwae, and")):
        assert in_process("--resume", "--run_dir", tmp_path, f"--{flag}", value) == 2
        assert f"--{flag}: {said}" in capfd.readouterr().err
    monkeypatch.delattr(scaled, "get_config")
    with pytest.raises(TypeError, match="Scaled: get_config lacks one of q_scale"):
        build_model(config, None)


OUTSIDE_MODELS = ("training", "evaluation", "plots", "tasks", "experiment", "data", "tables.py", "main.py", "utils.py")
OUTSIDE_DATA = tuple(name for name in OUTSIDE_MODELS if name != "data") + ("models",)


def tokens(places):
    """(file and line, the token before, the token) of every token in the source of these places, but for imports."""
    for place in places:
        path = ROOT / place
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            before = statement = ""
            for token in tokenize.generate_tokens(io.StringIO(file.read_text()).readline):
                statement = statement or token.string.strip()
                if statement not in ("from", "import"):
                    yield f"{file.relative_to(ROOT)}:{token.start[0]}", before, token
                before, statement = token.string, "" if token.type == tokenize.NEWLINE else statement


def test_nothing_outside_models_knows_what_a_model_is_made_of():
    parts = {"encoder", "decoder", "likelihood", "prior_block", "prior"}
    inside = [
        where for where, before, token in tokens(OUTSIDE_MODELS)
        if before == "." and token.string in parts
    ]  # fmt: skip
    assert inside == []


def test_nothing_outside_data_knows_the_sizes_of_mnist():
    inside = [
        where for where, _, token in tokens(OUTSIDE_DATA)
        if (token.type == tokenize.NUMBER and token.string in ("28", "784"))
        or (token.type == tokenize.STRING and token.string.strip("\"'") == "mnist")
        or (token.type == tokenize.NAME and token.string == "mnist")
    ]  # fmt: skip
    assert inside == []
