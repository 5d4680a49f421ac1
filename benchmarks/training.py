"""Training steps of every contender, interleaved in one process tree."""

import contextlib
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from benchmarks.contenders import PRECONDITION_FREQUENCY, layout

ROOT = pathlib.Path(__file__).resolve().parent.parent
# row of the table: (module, what is added to the spec)
CONTENDERS = {
    "this project": ("ours", {}),
    "this project, weights averaged": ("ours", {"ema": 0.999}),
    "this project, a fifth of the samples backward": ("ours", {"backward_fraction": 5}),
    "matrix products alone (XLA)": ("products", {}),
    "matrix products alone (OpenBLAS)": ("products", {"numpy": True}),
    "JAX, lax.scan": ("jax_scan", {}),
    "PyTorch, torch.compile": ("pytorch", {"compile": True}),
    "PyTorch, eager": ("pytorch", {}),
    "Keras fit, 50 steps per execution": ("keras_fit", {}),
    "TensorFlow, the reference's style": ("tf_reference", {}),
}
CONTENDERS_WITH_SOAP = {
    "this project": ("ours", {"optimizer": "soap"}),
    "matrix products alone (XLA)": ("soap_products", {}),
    "JAX, lax.scan": ("jax_scan", {"optimizer": "soap"}),
}
PARTS_OF_A_STEP = {  # each with what the one before it has
    "matrix products": ("products", {}),
    "densities and gradients": ("parts", {"random": False}),
    "random numbers and images": ("parts", {"random": True}),
    "this project": ("ours", {}),
    "this project, SOAP": ("ours", {"optimizer": "soap"}),
}
CONFIGS = [(layers, k, batch) for layers in (1, 2) for k in (1, 5, 50) for batch in (20, 100)]
CONFIGS_OF_100 = [(layers, k, 100) for layers in (1, 2) for k in (1, 5, 50)]


class Worker:
    """A contender at work in its own process. Raises RuntimeError with its last words where it ends."""

    def __init__(self, module, threads=0):
        self.log = tempfile.TemporaryFile("w+")
        # JAX takes its QRs from OpenBLAS, whose threads wait for each other longer than they compute.
        env = os.environ | ({"OPENBLAS_NUM_THREADS": "1"} if module == "jax_scan" else {})
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", module, str(threads)],
            cwd=ROOT, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
        )  # fmt: skip

    def ask(self, **request):
        with contextlib.suppress(BrokenPipeError):  # the missing answer will tell
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise RuntimeError((self.log.read().strip().splitlines() or ["it ended without a word"])[-1])
        return json.loads(line)

    def build(self, spec, inputs):
        """Makes ready, and returns the bound on the common inputs."""
        self.ask(build=spec, inputs=inputs)
        return self.answer()["bound"]

    def seconds_per_step(self, n_steps):
        self.ask(steps=n_steps)
        return self.seconds_asked_for()

    def seconds_asked_for(self):
        reply = self.answer()
        return reply["seconds"] / reply["steps"]

    def steps_for(self, seconds, multiple=1):
        """How many steps take about so long, rounded up to a multiple."""
        return math.ceil(max(2, int(seconds / self.seconds_per_step(20))) / multiple) * multiple

    def peak_gb(self):
        self.ask(memory=True)
        return self.answer()["peak_gb"]

    def close(self):
        self.process.kill()
        self.process.communicate()
        self.log.close()


@contextlib.contextmanager
def inputs_file(layers, n_samples, batch):
    """The weights, images and noise that every contender starts from, as an npz file."""
    from data import load

    rng, arrays = np.random.default_rng(0), {"images": load("mnist").train_images}
    for i, (n_in, n_out) in enumerate(layout(layers)):
        limit = np.sqrt(6 / (n_in + n_out))
        arrays[f"weight{2 * i}"] = rng.uniform(-limit, limit, (n_in, n_out)).astype(np.float32)
        arrays[f"weight{2 * i + 1}"] = rng.normal(0, 0.1, n_out).astype(np.float32)
    for i, width in enumerate([100] if layers == 1 else [100, 50]):
        arrays[f"noise{i}"] = rng.normal(size=(n_samples, batch, width)).astype(np.float32)
    arrays["x"] = (rng.random((batch, 784)) * 255 < arrays["images"][:batch]).astype(np.float32)
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file, **arrays)
        file.flush()
        yield file.name


@contextlib.contextmanager
def workers_for(modules, threads=0):
    """A worker for each name: {name: Worker}; they end with the block."""
    with contextlib.ExitStack() as stack:
        workers = {name: Worker(module, threads) for name, module in modules.items()}
        for worker in workers.values():
            stack.callback(worker.close)
        yield workers


def measure_training(rounds, seconds):
    return _interleaved("training", CONTENDERS, CONFIGS, rounds, seconds)


def measure_soap(rounds, seconds):
    """Readings are of whole periods, for the steps which update the bases take longer."""
    return _interleaved("SOAP", CONTENDERS_WITH_SOAP, CONFIGS_OF_100, rounds, seconds, PRECONDITION_FREQUENCY)


def measure_account(rounds, seconds):
    """What a step's time goes to."""
    return _interleaved("account", PARTS_OF_A_STEP, CONFIGS_OF_100, rounds, seconds, PRECONDITION_FREQUENCY)["configs"]


def _interleaved(title, contenders, configs, rounds, seconds, multiple=1):
    """{configs: [{layers, n_samples, batch_size, ms: {contender: [...]}}], missing: {contender: why}}."""
    measured, missing = [], {}
    with workers_for({name: module for name, (module, _) in contenders.items()}) as workers:
        for layers, k, batch in configs:
            spec = {"layers": layers, "n_samples": k, "batch_size": batch}
            with inputs_file(layers, k, batch) as inputs:
                _build(workers, missing, {name: spec | added for name, (_, added) in contenders.items()}, inputs)
            ready = {name: worker for name, worker in workers.items() if name not in missing}
            steps = {name: worker.steps_for(seconds, multiple) for name, worker in ready.items()}
            ms = {name: [] for name in steps}
            for _ in range(rounds):
                for name, n in steps.items():
                    ms[name].append(workers[name].seconds_per_step(n) * 1e3)
            measured.append({**spec, "ms": ms})
            medians = ", ".join(f"{name} {statistics.median(values):.2f}" for name, values in ms.items())
            say(f"{title}, {layers} layer(s), k={k}, batch {batch}: {medians} ms")
    return {"configs": measured, "missing": missing}


def _build(workers, missing, specs, inputs):
    """Makes every contender ready that can be, and holds each to this project's bound."""
    bounds = {}
    for name, worker in workers.items():
        if name not in missing:
            try:
                bounds[name] = worker.build(specs[name], inputs)
            except RuntimeError as error:
                missing[name] = str(error)
                say(f"{name} is left out: {error}")
    ours = bounds["this project"]
    for name, bound in bounds.items():
        if bound is not None and abs(bound - ours) > 1e-2:
            raise AssertionError(f"{name} computes another bound: {bound}, not {ours}")


def measure_side_by_side(rounds, seconds):
    """[{k, one: steps/s of one run on all threads, two: of two runs together, on one thread each}]."""
    measured = []
    with workers_for({"alone": "ours"}) as alone, workers_for({"left": "ours", "right": "ours"}, threads=1) as pair:
        for k in (1, 5, 50):
            with inputs_file(1, k, 20) as inputs:
                for worker in (*alone.values(), *pair.values()):
                    worker.build({"layers": 1, "n_samples": k, "batch_size": 20}, inputs)
            n, one, two = alone["alone"].steps_for(seconds), [], []
            for _ in range(rounds):
                one.append(1 / alone["alone"].seconds_per_step(n))
                for worker in pair.values():
                    worker.ask(steps=n)
                two.append(sum(1 / worker.seconds_asked_for() for worker in pair.values()))
            measured.append({"k": k, "one": one, "two": two})
            say(f"side by side, k={k}: {statistics.median(two) / statistics.median(one):.2f} times one run")
    return measured


def measure_memory():
    """Peak resident memory of a training process, in GB, at k = 50 and batch 100."""
    with workers_for({"ours": "ours"}) as workers, inputs_file(1, 50, 100) as inputs:
        workers["ours"].build({"layers": 1, "n_samples": 50, "batch_size": 100}, inputs)
        workers["ours"].seconds_per_step(20)
        return workers["ours"].peak_gb()


def measure_start():
    """Seconds from the command to the help, and to the first trained steps with MNIST in the cache."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "main.py", "--help"], cwd=ROOT, check=True, capture_output=True)
    to_help = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        flags = ["--epochs", "50", "--run_dir", f"{folder}/run", "--gpu", "-1"]
        process = subprocess.Popen(
            [sys.executable, "main.py", *flags], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        while not process.stdout.readline().startswith("training:"):
            if process.poll() is not None:
                raise RuntimeError("main.py ended before it trained")
        to_first_steps = time.perf_counter() - began
        process.kill()
        process.communicate()
    say(f"start: help in {to_help:.2f} s, first steps after {to_first_steps:.1f} s")
    return {"help": to_help, "first_steps": to_first_steps}


def say(text):
    print(text, file=sys.stderr, flush=True)
