"""What stands in the tasks' tables, under which name, without the computations; and the settings that these get."""

import types

import numpy as np
import pytest

import evaluation
import evaluation.ais
import plots.tasks
from experiment.run_folder import RESULTS, Run, load_config
from experiment.session import Session
from experiment.settings import Config
from models.catalogue import objective_function
from models.random import Stream, stateless_seed
from plots.gradients import DECODERS
from tasks import task01, task02, task06, task07
from tests.test_objectives import SEED, gradients, small
from training.gradients import GradientMoments
from utils import read_csv


def test_task_1_computes_with_the_run_s_seed_and_jit(few_digits, monkeypatch):
    asked = []

    def making(*how):
        def estimate(x, y=None, seed=0):
            asked.append((*how[1:], seed))
            return None, types.SimpleNamespace(log_px=np.zeros(len(x)))

        return estimate

    def resampling(model, x, *how):
        asked.append(how)
        return (None,), None

    monkeypatch.setattr(evaluation, "sampling_importance_resampling", resampling)
    monkeypatch.setattr(evaluation, "make_log_likelihood", making)
    monkeypatch.setattr(evaluation, "make_true_posterior", lambda _, jit=True: asked.append(jit) or 1 / 0)
    config = Config(n_hidden=(6,), n_latent=(2,), epochs=1, jit="off", seed=3).resolved()
    one, seeds = Session(config, Run(few_digits / "a")), []
    noise = one.model.noise
    monkeypatch.setattr(one.model, "noise", lambda n, batch, seed: seeds.append(seed) or noise(n, batch, seed))
    with pytest.raises(ZeroDivisionError):
        task01.posteriors(one)
    np.testing.assert_array_equal(seeds, [stateless_seed(3, Stream.PICTURE, 0)])
    assert repr(asked) == repr([(None, task01.SAMPLES, task01.SHOWN, 3, False), (task01.SAMPLES, False, 3), False])


def test_task_2_has_the_mean_of_the_variances(monkeypatch):
    moments = GradientMoments(np.ones(2), np.array([1.0, 9.0]), 10)
    fake = types.SimpleNamespace(load=lambda _: None, moments=lambda *_: {"encoder": moments})
    monkeypatch.setattr(task02, "Gradients", lambda _: fake)
    monkeypatch.setattr(task02, "stages", lambda _: [(0, None)])
    assert {row["variance"] for row in task02.gradient_rows(types.SimpleNamespace(config=Config()))} == {5.0}


def test_task_2_s_last_epoch_is_one_stage(tmp_path):
    run = Run(tmp_path)
    for n in (1, 16):
        run.weights_after(n).touch()
    one = types.SimpleNamespace(run=run, config=Config(epochs=16))
    assert [epochs for epochs, _ in task02.stages(one)] == [16, 0, 1]


def test_task_2_shows_every_decoder_s_gradient_that_differs(binary_images):
    model = small(1)
    noise = model.noise(16, 6, SEED)  # more than there are groups of miwae

    def of_p(name, numbers):
        return np.concatenate(
            [g.ravel() for g in gradients(model, objective_function(name, numbers), binary_images, noise)[1]]
        )

    found = {name: of_p(name, numbers) for name, numbers in task02.ESTIMATORS.items()}
    for name, gradient in found.items():
        alike = [one for one in DECODERS if np.abs(found[one] - gradient).max() < 1e-3 * np.abs(gradient).max()]
        assert len(alike) == 1 and (name not in DECODERS or alike == [name]), name


def test_task_6_s_row_is_of_all_test_images_and_under_the_right_names(results, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(task06, "without_inactive_units", lambda *_: (-80.0, -80.25))
    monkeypatch.setattr(evaluation, "make_activity", lambda *_, **__: lambda *_: [np.array([1.0, 0.005])])
    monkeypatch.setattr(plots.tasks, "activity_histograms", lambda *_: None)
    run = types.SimpleNamespace(metrics=types.SimpleNamespace(exists=lambda: False))
    one = types.SimpleNamespace(config=Config(n_latent=(2,)).resolved(), model=None, run=run,
                                test_data=lambda n=None: asked.append(n) or (None, None))  # fmt: skip
    task06.work(Config(), [("a", one)])
    (row,) = read_csv(results / "task06" / "active_units.csv")
    assert (row["active"], row["log_px"], row["log_px_active_alone"]) == ("1", "-80", "-80.25")
    assert "; without the others -0.250 nats" in capsys.readouterr().out
    assert asked == [None]  # all of them


def test_task_6_has_the_paper_s_units_of_the_committed_table():
    rows = read_csv(RESULTS / "task06" / "active_units.csv")
    assert {task06.of_paper(load_config(RESULTS / row["run"])) for row in rows} == {"", *task06.PAPER.values()}
    for row in rows:
        assert task06.of_paper(load_config(RESULTS / row["run"])) == row["paper"], row["run"]


def test_task_7_s_columns_hold_what_their_names_say(monkeypatch):
    sampled = evaluation.likelihood.PerImage(*(np.array([value]) for value in (-80.0, 0.4, 0.6)))
    annealed = evaluation.ais.Annealed(np.array([-79.0]), np.array([0.3]), 0.65)
    monkeypatch.setattr(evaluation, "make_log_likelihood", lambda *_: lambda *_: (None, sampled))
    monkeypatch.setattr(evaluation.ais, "make_ais", lambda *_: lambda *_, **__: annealed)
    one = types.SimpleNamespace(config=Config().resolved(), model=None, test_data=lambda n: (np.zeros((1, 4)), None))
    assert task07.on_test_images(one) == [
        dict(log_px=-80.0, mc_error=0.4, pareto_k=0.6, annealed=-79.0, annealed_mc_error=0.3)
    ]
