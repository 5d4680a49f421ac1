"""Every task from its command line to its pictures, on small models and few digits; and what it computes."""

import gc
import importlib
import json
import os
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import evaluation
import evaluation.ais
import plots.runs
import plots.tasks
from experiment import command_line, program, session, survey
from experiment.run_folder import ROOT, Run, load_config
from experiment.settings import Config
from tests.helpers import last_frame, one_line
from utils import read_csv

TASKS = [f"task0{i}" for i in range(1, 8)]
FOLDERS = {"task01": "iwae-1l-k5-n-latent-2", "task02": "dreg-1l-k5", "task03": "iwae-2l-k5-n-latent-4-2",
           "task04": "ciwae-learned-prior-1l-k5", "task05": "ciwae-standard-prior-1l-k5",
           "task07": "iwae-1l-k50"}  # fmt: skip
TINY = "--n_samples 2 --batch_size 50 --epochs 2 --preset quick --eval_samples 20 --eval_images 50 --gpu -1".split()


def run(name, *flags, **constants):
    task = importlib.import_module(f"tasks.{name}")
    for constant, value in constants.items():
        assert hasattr(task, constant)
        setattr(task, constant, value)
    if name == "task06":
        return survey(task.work, task.__doc__, [*map(str, flags)], same=("dataset",))
    return command_line(task.work, task.__doc__, [*TINY, *map(str, flags)], task.DEFAULTS, task.FIXED)


def pictures(folder):
    return {path.name for path in folder.rglob("*.png") if path.stat().st_size > 5000 and "epochs" not in path.parts}


@pytest.fixture
def constants(monkeypatch):
    """Task modules get their constants back."""
    modules = [importlib.import_module(f"tasks.{name}") for name in TASKS]
    before = [dict(vars(module)) for module in modules]
    yield
    for module, old in zip(modules, before):
        vars(module).update(old)


def test_task01(few_digits, digits, constants, no_figures, monkeypatch, capfd):
    small = dict(chosen=lambda labels: np.array([0, 1, 199]), SAMPLES=2000, SHOWN=20)
    assert run("task01", "--jit", "off", **small) == 0, capfd.readouterr().err
    (folder,) = few_digits.glob("quick/*")
    assert {"manifold.png", *(f"{i}.png" for i in range(3))} <= pictures(folder / "figures")
    rows = read_csv(folder / "posteriors.csv")
    assert [(int(row["test_image"]), int(row["label"])) for row in rows] == [(0, 7), (1, 2), (199, 2)]
    # After two epochs q misses many a posterior, and then a few samples decide.
    above = [float(r["log_px_grid"]) - float(r["log_px_k2000"]) for r in rows if float(r["effective_samples"]) > 100]
    assert above and max(map(abs, above)) < 0.5
    assert all(float(row["kl_q_p"]) > 0 and 1 <= float(row["effective_samples"]) <= 2000 for row in rows)
    gap = np.mean([float(row["kl_q_p"]) for row in rows])
    out = capfd.readouterr().out
    assert f"3 test images: KL(q||p) is {gap:.2f} nats on average.\n{len(above)} of them have 100 or more" in out
    assert f"differ by {max(map(abs, above)):.2f} nats at most" in out
    trained = (folder / "model.weights.h5").stat().st_mtime_ns
    shown = []
    monkeypatch.setattr(plots.tasks, "posterior_figures", lambda pictures, _: shown.extend(pictures))
    monkeypatch.setattr(plots.tasks, "manifold", lambda *_: None)
    monkeypatch.setattr(session.Session, "decoded", lambda self, z: z)
    numbers = np.arange(1.0, 4.0)  # of the images
    resampled = (np.tile(numbers[:, np.newaxis], (20, 1, 2)),), numbers
    monkeypatch.setattr(evaluation, "sampling_importance_resampling", lambda *_: resampled)
    assert run("task01", "--jit", "off", **small) == 0  # from the weights that are there
    assert (folder / "model.weights.h5").stat().st_mtime_ns == trained
    out, err = capfd.readouterr()
    assert "test_llh.json has it" in out and "training" not in out and err == ""
    for number, one in zip(numbers, shown, strict=True):
        assert (one.samples["SIR"] == number).all() and one.numbers["effective_samples"] == number
        assert (one.decoded["SIR"] == number).all() and len(one.decoded["SIR"]) == 16
    assert len({one.samples["q(z|x)"].tobytes() for one in shown}) == 3
    np.testing.assert_array_equal([one.image.ravel() for one in shown], digits.binarised_test_images()[[0, 1, 199]])


def test_task02(few_digits, constants, no_figures, monkeypatch, capfd):
    estimators = {"vae_elbo": {}, "iwae_elbo": {}, "dreg": {}, "rws_dreg": {}, "miwae": {"groups": 2}}
    small = dict(SAMPLES=(1, 8), DRAWS=20, REFERENCE_DRAWS=20, MANY_SAMPLES=100, MANY_DRAWS=2, STAGES=(1,))
    flags = ("--jit", "off", "--n_hidden", 20, "--n_latent", 10)
    compared, draw = {}, plots.tasks.dreg_beside_iwae
    monkeypatch.setattr(plots.tasks, "dreg_beside_iwae", lambda runs, path: compared.update(runs) or draw(runs, path))
    at, rows_of = [], importlib.import_module("tasks.task02").gradient_rows
    small["gradient_rows"] = lambda one: at.append(one.config.objective) or rows_of(one)
    assert run("task02", *flags, ESTIMATORS=estimators, ALONG_TRAINING=("iwae_elbo", "dreg"), **small) == 0
    assert at == ["iwae_elbo"]
    (folder,) = few_digits.glob("quick/dreg-*")
    assert compared.keys() == {2} and [load_config(of.path).objective for of in compared[2]] == ["dreg", "iwae_elbo"]
    assert {"dreg_learning_curves.png", "gradient_noise.png", "estimators.png"} <= pictures(folder)
    records = [of.recorded() for of in compared[2]]  # both are measured
    assert [(record["n_samples"], record["n_images"]) for record in records] == [(20, 50)] * 2
    capfd.readouterr()
    (folder / "metrics.csv").rename(folder / "kept.csv")
    (folder / "metrics.csv").write_text("epoch,step\n")
    compared.clear()  # and with it the lock of the other run's folder
    gc.collect()
    assert run("task02", *flags) == 2 and "metrics.csv is damaged" in capfd.readouterr().err
    (folder / "kept.csv").rename(folder / "metrics.csv")
    rows = {(row["objective"], int(row["k"]), int(row["epochs"]), row["network"]): row
            for row in read_csv(folder / "gradient_noise.csv")}  # fmt: skip
    at_last = 4 * 2 * 2 + 2  # estimators, k, networks; one sample says nothing to RWS
    assert len(rows) == at_last + 2 * 2 * 2 * 2 and {epochs for _, _, epochs, _ in rows} == {0, 1, 2}

    assert len({rows["dreg", 8, epochs, "encoder"]["snr"] for epochs in (0, 1, 2)}) == 3  # each has its own weights

    def last(objective, k, network, quantity="snr"):
        return float(rows[objective, k, 2, network][quantity])

    for network in ("encoder", "decoder"):
        assert last("iwae_elbo", 1, network) == last("miwae", 1, network) == last("vae_elbo", 1, network)
        assert last("iwae_elbo", 8, network) != last("iwae_elbo", 1, network)
    assert last("dreg", 8, "decoder") == pytest.approx(last("iwae_elbo", 8, "decoder"), rel=1e-3)
    assert last("dreg", 8, "encoder") > 1.1 * last("iwae_elbo", 8, "encoder")
    assert last("dreg", 8, "encoder", "distance") < 2 * last("dreg", 8, "encoder", "by_chance")
    held = Run(*few_digits.glob("quick/iwae-*"))
    shutil.rmtree(folder)
    gc.collect()
    assert run("task02", *flags) == 2 and f"another process is writing to {held.path}" in capfd.readouterr().err
    assert not list(folder.glob("checkpoints/*"))  # it was known before the training


def test_task07(few_digits, digits, constants, no_figures, monkeypatch, capfd):
    measured, made, annealed, bracket = [], [], [], evaluation.ais.make_bracket
    ks, asked, function = [], [], tf.function
    monkeypatch.setattr(tf, "function", lambda *f, **how: asked.append(how.get("jit_compile")) or function(*f, **how))
    likelihood = evaluation.make_log_likelihood

    def keeping(make, kept):
        def maker(*args):
            call = make(*args)
            ks.extend(args[1:2] if make is likelihood else ())

            def called(*args, **flags):
                result = call(*args, **flags)
                kept.append((args, result))
                return result

            return called

        return maker

    monkeypatch.setattr(evaluation, "make_log_likelihood", keeping(likelihood, measured))
    monkeypatch.setattr(evaluation.ais, "make_ais", keeping(evaluation.ais.make_ais, annealed))
    monkeypatch.setattr(evaluation.ais, "make_bracket", keeping(bracket, made))
    small = dict(TEMPERATURES=20, CHAINS=4, DRAWN=6)  # and 5 images to take labels from
    flags = ("--conditional", "learned_prior", "--n_hidden", 20, "--held_out", 5, "--eval_images", 5, "--jit", "off")
    flags += ("--seed", 3)
    assert run("task07", *flags, **small) == 0, capfd.readouterr().err
    (folder,) = few_digits.glob("quick/*")
    assert "annealed.png" in pictures(folder / "figures")
    test, drawn = (
        [{name: float(value) for name, value in row.items()} for row in read_csv(folder / f"{name}.csv")]
        for name in ("annealed", "bracket")
    )
    assert len(test) == len(drawn) == 5
    assert [row["annealed_mc_error"] for row in test] == pytest.approx(annealed[0][1].mc_error, rel=1e-5)
    assert all(row["mc_error"] > 0 for row in test)
    assert all(abs(row["upper"] - row["lower"]) < 3 for row in drawn)
    assert ks == [20, 20, 20] and not any(asked)  # the record's, the test images' and the drawn images'
    np.testing.assert_array_equal(measured[-1][0][0], made[0][1].x)  # importance sampling is of the drawn images too
    for (_, labels, seed), _ in (*measured[1:], annealed[0], made[0]):
        np.testing.assert_array_equal(labels.argmax(axis=1), digits.train_labels[-5:])
        assert seed == 3
    out = capfd.readouterr().out
    above = np.mean([row["annealed"] - row["log_px"] for row in test])
    assert f"On 5 test images annealing gives {above:+.3f} nats" in out


@pytest.mark.parametrize(
    ("name", "figures", "flags", "small"),
    [
        ("task01", {"manifold.png", "0.png"}, "--n_hidden 8", dict(IMAGES=2, SAMPLES=500, SHOWN=20)),
        ("task03", {"posterior_pca.png", "z1_redrawn.png"}, "--n_hidden 8 8", {}),
        ("task07", {"annealed.png"}, "--n_hidden 8 --n_latent 3",
         dict(TEMPERATURES=10, CHAINS=2, DRAWN=2)),
    ],
)  # fmt: skip
def test_tasks_take_images_of_other_sizes_without_labels(
    name, figures, flags, small, constants, no_figures, results, tmp_path, capfd
):
    images = np.random.default_rng(0).integers(0, 256, (130, 5, 7)).astype(np.uint8)
    np.savez(tmp_path / "noise.npz", x_train=images[:100], x_test=images[100:])
    flags = ("--jit", "off", "--eval_images", 7, "--dataset", tmp_path / "noise.npz", *flags.split())
    assert run(name, *flags, **small) == 0, capfd.readouterr().err
    folders = list(results.glob("quick/*"))
    assert all("-dataset-noise-" in folder.name for folder in folders)
    assert figures <= {path.name for folder in folders for path in folder.rglob("*.png")}


def test_task06_needs_a_trained_model(few_digits, monkeypatch, capfd):
    monkeypatch.setattr(program, "start_tensorflow", None)  # which takes seconds
    assert run("task06", "--gpu", -1) == 2
    assert capfd.readouterr().err == f"{os.path.basename(sys.argv[0])}: error: no trained model in results/; " + (
        "python main.py --preset quick makes one\n"
    )


def test_tasks_03_to_05_and_the_survey_of_their_models(few_digits, constants, monkeypatch, capfd):
    monkeypatch.setattr(plots.runs, "save_animation", last_frame)
    expected = {
        "task03": {"posterior_pca.png", "z1_redrawn.png"},
        "task04": {"prior.png", "learning_curves.png", "posterior_pca.png"},
        "task05": {"prior.png", "learning_curves.png", "posterior_pca.png"},
    }
    small = {name: ("--jit", "off", "--n_hidden", 20) for name in expected}
    small["task03"] += (10,)
    scaled, draw = [], session.Session.draw_posterior_means
    monkeypatch.setattr(
        session.Session, "draw_posterior_means", lambda self, *n, **how: scaled.append(how) or draw(self, *n, **how)
    )
    for name, figures in expected.items():
        before = set(few_digits.glob("quick/*"))
        assert run(name, *small[name]) == 0, capfd.readouterr().err
        (folder,) = set(few_digits.glob("quick/*")) - before
        assert figures <= pictures(folder)
    assert run("task05", *small["task05"]) == 0  # again, from its weights
    assert len(list(few_digits.glob("quick/*"))) == 3
    assert {"n_images": None, "standardise": True} in scaled  # of all test images, as task 3 says
    shutil.copytree(folder, few_digits / "fast" / folder.name)  # one name, two presets
    shutil.copytree(folder, few_digits / "mine")
    saved = json.loads((few_digits / "mine/config.json").read_text())
    saved["experiment"]["seed"] = 3
    (few_digits / "mine/config.json").write_text(json.dumps(saved))
    seeds, make_activity = [], evaluation.make_activity
    monkeypatch.setattr(evaluation, "make_activity", lambda model, jit: lambda x, y, seed: (
        seeds.append(seed) or make_activity(model, jit=jit)(x, y, seed)
    ))  # fmt: skip
    task06, images = importlib.import_module("tasks.task06"), set()
    measure = task06.without_inactive_units
    monkeypatch.setattr(task06, "without_inactive_units", lambda *args: images.add(args[2]) or measure(*args))
    assert run("task06", "--eval_samples", 20, "--eval_images", 50, "--gpu", -1) == 0, capfd.readouterr().err
    assert seeds == [0, 3, 0, 0, 0] and images == {50}
    rows = read_csv(few_digits / "task06" / "active_units.csv")
    assert [row["units"] for row in rows] == ["100", "100", "100", "100", "4+2"]
    assert [row["run"] for row in rows] == [
        f"fast/{folder.name}", "mine", "quick/ciwae-learned-prior-1l-k2-n-hidden-20-batch-size-50-epochs-2-jit-off",
        f"quick/{folder.name}",
        "quick/iwae-2l-k2-n-hidden-20-10-n-latent-4-2-batch-size-50-epochs-2-jit-off",
    ]  # fmt: skip
    assert pictures(few_digits / "task06") == {"activity.png", "while_training.png"}
    capfd.readouterr()
    assert run("task06", "--dataset", "omniglot", "--gpu", -1) == 2  # it looks at runs of one data set only
    assert "no trained model in results/; python main.py --preset quick --dataset omniglot" in capfd.readouterr().err


def test_a_task_does_not_take_up_another_experiment(few_digits, constants, capfd):
    begun = Run(few_digits / "one")
    begun.begin(Config(conditional="learned_prior").resolved())
    del begun  # and its lock
    assert run("task05", "--run_dir", few_digits / "one") == 2
    one_line(capfd, "holds a run with conditional learned_prior, not standard_prior")


@pytest.mark.parametrize(
    ("name", "flags", "said"),
    [
        ("task01", "--n_latent 3", "--n_latent: 3 is not allowed; here it is 2"),
        ("task01", "--conditional learned_prior", "--conditional: learned_prior is not allowed; here it is no"),
        ("task02", "--objective vae_elbo", "--objective: vae_elbo is not allowed; here it is dreg"),
        ("task02", "--strategy mirrored", "--strategy: mirrored is not allowed; here it is one"),
        ("task03", "--stochastic_layers 1", "--stochastic_layers: 1 is not allowed; here it is 2"),
        ("task01", "--stochastic_layers 2", "--stochastic_layers: 2 is not allowed; here it is 1"),
        ("task03", "--conditional learned_prior", "--conditional: learned_prior is not allowed; here it is no"),
        ("task05", "--conditional no", "--conditional: no is not allowed; here it is standard_prior"),
    ],
)
def test_what_a_task_is_about_cannot_be_changed(name, flags, said, few_digits, capfd):
    assert run(name, *flags.split()) == 2
    one_line(capfd, said)
    assert not list(few_digits.iterdir())


@pytest.mark.parametrize("name", TASKS)
def test_tasks_run_from_anywhere_with_their_own_settings(name, tmp_path):
    script = str(ROOT / "tasks" / f"{name}.py")
    flags, said = ("--eval_only", "--seed", "99"), f"no run in {ROOT}/results/fast/{FOLDERS.get(name)}-seed99 "
    if name == "task06":
        flags, said = ("--dataset", "nowhere"), "--dataset: nowhere is not allowed"
    process = subprocess.run([sys.executable, script, *flags], cwd=tmp_path, text=True, capture_output=True)
    assert process.returncode == 2 and process.stderr.count("\n") == 1
    assert process.stderr.startswith(f"{name}.py: error: ") and said in process.stderr


@pytest.mark.parametrize("name", TASKS)
def test_tasks_say_what_they_are_about(name, monkeypatch):
    said = {}
    for frame in ("command_line", "survey"):
        monkeypatch.setattr(f"experiment.{frame}", lambda *_, **how: said.update(how))
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "tasks" / f"{name}.py"), run_name="__main__")
    task = importlib.import_module(f"tasks.{name}")
    assert said == ({"same": ("dataset",)} if name == "task06" else {"defaults": task.DEFAULTS, "fixed": task.FIXED})
