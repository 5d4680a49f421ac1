"""The programs that measure: what each asks of its contenders, and what becomes of their answers."""

import contextlib
import io
import json
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

import data
import evaluation
from benchmarks import __main__ as program
from benchmarks import error_bars, estimators, evaluating, scaling, training, worker
from benchmarks.contenders import keras_fit, layout
from benchmarks.contenders import products as products_alone
from tests.test_benchmarks import inputs

BOUND = -90.0


class FakeWorker(training.Worker):
    """Keeps what it is asked for. A step takes 2 ms; with another objective 4."""

    def __init__(self, module, threads):
        self.module, self.threads, self.specs, self.steps = module, threads, [], []

    def build(self, spec, inputs):
        self.specs.append(spec)
        if self.module == "broken":
            raise RuntimeError("no such library")
        return BOUND

    def seconds_per_step(self, n):
        self.steps.append(n)
        return 2e-3 if self.specs[-1].get("objective", "iwae_elbo") == "iwae_elbo" else 4e-3

    def ask(self, **request):
        self.steps.append(request["steps"])

    def seconds_asked_for(self):
        return 4e-3


@pytest.fixture
def made(monkeypatch):
    """{name: FakeWorker} of the last programs that were started, in the place of processes."""
    workers = {}

    @contextlib.contextmanager
    def workers_for(modules, threads=0):
        workers.update({name: FakeWorker(module, threads) for name, module in modules.items()})
        yield {name: workers[name] for name in modules}

    for module in (training, estimators):
        monkeypatch.setattr(module, "workers_for", workers_for)
        monkeypatch.setattr(module, "inputs_file", lambda *_: contextlib.nullcontext("inputs.npz"))
    return workers


def test_every_contender_is_built_as_its_row_says(made):
    found = training._interleaved("t", training.CONTENDERS, [(1, 5, 20), (2, 1, 100)], rounds=3, seconds=0.1)
    for name, (module, added) in training.CONTENDERS.items():
        one = made[name]
        assert one.module == module and one.specs == [
            {"layers": 1, "n_samples": 5, "batch_size": 20} | added,
            {"layers": 2, "n_samples": 1, "batch_size": 100} | added,
        ]
        assert found["configs"][0]["ms"][name] == [2.0, 2.0, 2.0]
    assert found["missing"] == {}


def test_a_contender_with_another_bound_ends_the_measurement_and_a_broken_one_is_left_out(monkeypatch):
    workers = {"this project": FakeWorker("ours", 0), "other": FakeWorker("broken", 0)}
    missing = {}
    training._build(workers, missing, dict.fromkeys(workers, {}), "inputs.npz")
    assert missing == {"other": "no such library"}
    workers["other"] = FakeWorker("other", 0)
    monkeypatch.setattr(FakeWorker, "build", lambda self, *_: BOUND - 0.02 * (self.module == "other"))
    with pytest.raises(AssertionError, match="other computes another bound"):
        training._build(workers, {}, dict.fromkeys(workers, {}), "inputs.npz")


def test_readings_are_of_about_so_long_in_whole_periods():
    one = FakeWorker("ours", 0)
    one.specs.append({})
    assert [one.steps_for(0.1), one.steps_for(0.1, 20), one.steps_for(0, 20)] == [50, 60, 20]


def test_two_runs_side_by_side_have_a_thread_each(made):
    found = training.measure_side_by_side(rounds=2, seconds=0.1)
    assert (made["alone"].threads, made["left"].threads, made["right"].threads) == (0, 1, 1)
    assert found[0] == {"k": 1, "one": [500.0] * 2, "two": [500.0] * 2}  # two of 4 ms a step


def test_an_estimator_s_time_is_over_that_of_iwae_elbo_with_its_groups(made):
    found = estimators.measure_estimators(rounds=2, seconds=0.1)
    assert found[0]["ratios"]["dreg"] == [2.0, 2.0]
    groups = [spec["hyperparameters"] for spec in made["other"].specs if spec["objective"] in ("miwae", "piwae")]
    assert groups == [{"groups": 4}] * 2


def test_a_worker_says_how_many_steps_it_took_and_its_memory_in_gigabytes(monkeypatch):
    contender = types.SimpleNamespace(build=lambda *_: (None, lambda n: 60 * -(-n // 60)))
    monkeypatch.setitem(sys.modules, "benchmarks.contenders.fake", contender)
    monkeypatch.setattr(worker, "_set_threads", lambda n: None)
    monkeypatch.setattr(worker, "_build", lambda contender, *_: (contender.build()[1], None))
    monkeypatch.setattr(worker.resource, "getrusage", lambda _: types.SimpleNamespace(ru_maxrss=10**6))  # KiB
    monkeypatch.setattr(sys, "argv", ["worker", "fake", "1"])
    requests = [{"build": {}, "inputs": ""}, {"steps": 70}, {"memory": True}]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(request) + "\n" for request in requests)))
    replies = io.StringIO()
    monkeypatch.setattr(sys, "stdout", replies)
    worker.main()
    _, steps, memory = map(json.loads, replies.getvalue().splitlines())
    assert steps["steps"] == 120 and memory == {"peak_gb": 1.024}


def test_a_worker_s_threads_reach_tensorflow(monkeypatch):
    asked = []
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setattr("experiment.startup.start_tensorflow", lambda **how: asked.append(how))
    worker._set_threads(1)
    assert asked == [{"gpu": -1, "threads": 1}]


def test_parts_are_written_one_by_one_beside_what_was_there(monkeypatch, tmp_path):
    def failing(*_):
        raise RuntimeError("stopped")

    monkeypatch.setattr(program, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(program, "rewrite", lambda page, benchmarks: None)
    monkeypatch.setattr(program, "tables", lambda results: "")
    names = [name for name in vars(program) if name.startswith("measure_")]
    for name in names:
        monkeypatch.setattr(program, name, lambda *how, name=name: [name, *how])

    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["benchmarks", *flags])
        program.main()
        return {part: one["measured"] for part, one in json.loads(program.RESULTS.read_text()).items()}

    assert run("--only", "soap", "--rounds", "3", "--seconds", "0.5") == {"soap": ["measure_soap", 3, 0.5]}
    found = run("--only", "start")
    assert found == {"soap": ["measure_soap", 3, 0.5], "start": ["measure_start"]}
    monkeypatch.setattr(program, "measure_hours", failing)
    with pytest.raises(RuntimeError):
        run()
    found = json.loads(program.RESULTS.read_text())
    assert found["training"]["measured"] == ["measure_training", 5, 1.0] and found["soap"]["measured"][1] == 5


@pytest.mark.parametrize(
    ("flags", "said"),
    [("--rounds 0", "--rounds: 0 is not allowed; at least 1"), ("--rounds x", "--rounds: invalid"),
     ("--seconds nan", "--seconds: nan is not allowed"), ("--only nothing", "invalid choice: 'nothing'")],
)  # fmt: skip
def test_wrong_flags_are_one_line_with_code_2(flags, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", *flags.split()])
    with pytest.raises(SystemExit) as stopped:
        program.main()
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and said in error and error.count("\n") == 1


def test_error_bars_are_held_against_the_spread_of_each_image(monkeypatch, capsys):
    ks = []
    log_px = np.array([[-90.0, -80.0], [-92.0, -81.0], [-91.0, -82.0]])  # [seeds, images]

    def estimate(x, y, seed):
        result = dict(test_llh=log_px[seed].mean(), mc_error=0.5, pareto_k=0.9, pareto_k_high=0.75)
        return types.SimpleNamespace(**result), types.SimpleNamespace(log_px=log_px[seed])

    monkeypatch.setattr(error_bars, "model_and_images", lambda *_: (None, [0, 1], None))
    monkeypatch.setattr(evaluation, "make_log_likelihood", lambda model, k: ks.append(k) or estimate)
    # variances 1 and 1: a mean over two images has sqrt(2) / 2
    of_mean = np.std([-85.0, -86.5, -86.5], ddof=1)
    assert error_bars.cells("a", 3, 10**9, 10) == f"3 | {of_mean:.4f} | 0.7071 | 0.5000 | 0.71 | 0.90 (75%)"
    assert ks == [10]
    monkeypatch.setattr(error_bars, "cells", lambda *how: str(how))
    monkeypatch.setattr(error_bars, "load_run", lambda folder: folder.name)
    monkeypatch.setattr(sys, "argv", ["error_bars", "a", "--seeds", "3", "--images", "7", "--samples", "30"])
    error_bars.main()
    assert capsys.readouterr().out.endswith("| a | ('a', 3, 7, 30) |\n")


def test_error_bars_of_a_run_that_is_not_there_are_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["error_bars", "none"])
    with pytest.raises(SystemExit) as stopped:
        error_bars.main()
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and "no run in " in error and error.count("\n") == 1


@pytest.mark.parametrize("layers", [1, 2])
def test_no_product_of_a_step_is_left_out(layers, monkeypatch):
    """Three for each kernel, but for the first layer's inputs: in multiplications."""
    spec = {"layers": layers, "n_samples": 5, "batch_size": 6}
    rows = [rows for rows, widths, _ in products_alone.chains(spec) for _ in range(2 + len(widths[3]))]
    expected = sum(3 * n * a * b for n, (a, b) in zip(rows, layout(layers), strict=True)) - 6 * 784 * 200
    done, matmul, np_matmul = [], products_alone.tf.matmul, np.matmul

    def counted(a, b, **how):
        result = matmul(a, b, **how)
        inner = a.shape[0] if how.get("transpose_a") else a.shape[1]
        done.append(result.shape[0] * result.shape[1] * inner)
        return result

    weights = [np.zeros(shape, np.float32) for pair in ((s, s[1:]) for s in layout(layers)) for shape in pair]
    inputs, kernels = products_alone.start(spec, weights)
    monkeypatch.setattr(products_alone.tf, "matmul", counted)
    products_alone.gradients(spec, inputs, kernels)
    assert sum(done) == expected
    done.clear()
    monkeypatch.setattr(
        np, "matmul", lambda a, b, out: done.append(a.shape[0] * a.shape[1] * b.shape[1]) or np_matmul(a, b, out=out)
    )
    products_alone.numpy_products(spec)(1)
    assert sum(done) == expected


class Evaluator(FakeWorker):
    """Its peak memory is the k that it was built with."""

    def peak_gb(self):
        return self.specs[-1]["n_samples"]


def test_memory_is_that_of_each_k_and_seconds_those_of_all_images(monkeypatch):
    one = Evaluator("evaluation", 0)
    monkeypatch.setattr(evaluating, "workers_for", lambda _: contextlib.nullcontext({"ours": one}))
    monkeypatch.setattr(evaluating, "inputs_file", lambda *_: contextlib.nullcontext("inputs.npz"))
    assert evaluating._memory() == {str(k): k for k in evaluating.MEMORY_AT}
    assert evaluating._full() == 20  # seconds for 10,000 images, at 2 ms each


def test_times_of_replicas_are_over_those_of_one_device(monkeypatch):
    now, replies = [0.0], io.StringIO()

    def make_run(images, n_replicas, k, optimizer):  # a second a step without a strategy, and one more a replica
        return lambda n: now.__setitem__(0, now[0] + n * (1 + n_replicas))

    monkeypatch.setattr(scaling, "make_run", make_run)
    monkeypatch.setattr(scaling, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(data, "load", lambda _: types.SimpleNamespace(train_images=None))
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["a CPU"])
    monkeypatch.setattr(tf.config, "set_logical_device_configuration", lambda *_: None)
    monkeypatch.setattr(sys, "stdout", replies)
    scaling.main(2, 1.0)
    for part in json.loads(replies.getvalue()):
        assert part["ms"] == [1000.0] * 2 and part["ratios"] == {"1": [2.0] * 2, "2": [3.0] * 2, "4": [5.0] * 2}


def test_the_cost_of_errors_is_the_whole_over_the_estimate_alone(monkeypatch):
    now = [0.0]

    def making(*_):
        seconds = 3 if evaluation.likelihood.GROUPS > 1 else 2
        return lambda *_: now.__setitem__(0, now[0] + seconds)

    monkeypatch.setattr(error_bars, "model_and_images", lambda *_: (None, None, None))
    monkeypatch.setattr(error_bars, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(evaluation.likelihood, "make_log_likelihood", making)
    assert error_bars.cost(None, 100, 5000) == 1.5


def test_keras_says_how_many_steps_it_took():
    _, run = keras_fit.build({"layers": 1, "n_samples": 2, "batch_size": 20}, *inputs(1)[:2])
    assert run(3) == 50
