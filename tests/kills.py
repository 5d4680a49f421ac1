"""python -m tests.kills: kills runs at random instants, resumes them, and compares what they end with.

With SIGKILL; or by --signal TERM, at which a run saves and ends by itself, and must not crash. Each run is compared
with one that was left in peace: weights and metrics.csv bit for bit but for the seconds, and test_llh.json. Prints a
Markdown table: a row for each configuration, and how many kills fell where.
"""

import argparse
import functools
import itertools
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
import traceback

import h5py
import matplotlib.animation  # noqa: F401  # imported once, for all the forked processes
import sklearn.decomposition  # noqa: F401

import main
from experiment import session
from experiment.run_folder import Run
from training import loop  # imports TensorFlow, whose runtime starts in the forked processes only
from utils import read_csv

COMMON = "--epochs 6 --n_hidden 12 --n_latent 3 --batch_size 100 --eval_samples 200 --eval_images 150 --gpu -1"
TWO_LAYERS = "--stochastic_layers 2 --n_hidden 12 8 --n_latent 3 2"
CONFIGURATIONS = {
    "adam": "",
    "soap, averaged weights": "--optimizer soap --learning_rate 3e-3 --ema 0.9",
    "two layers": TWO_LAYERS,
    "conditional, learned prior": "--conditional learned_prior",
    "k grows": "--grow_samples 0.5 --first_samples 2 --n_samples 6",
}
PHASES = ("start", "training", "weights and figures", "evaluation")
IMAGES = 2000  # of the training set


class Mismatch(Exception):
    """A run that was killed ended otherwise than the one left in peace; the message says where."""


@functools.cache
def small_mnist(*args):
    """The first images of MNIST, as a data set of its own. args: as data.load's."""
    whole = load(*args)
    parts = {f"train_{part}": getattr(whole, f"train_{part}")[:IMAGES] for part in ("images", "labels")}
    parts |= {f"test_{part}": getattr(whole, f"test_{part}")[:IMAGES] for part in ("images", "labels")}
    return whole._replace(**parts, entry=whole.entry._replace(n_train=IMAGES, n_test=IMAGES))


load, session.load = session.load, small_mnist
session.PCA_IMAGES = 100


def start(flags, output):
    """Starts main.py in a forked process, with a checkpoint after every call of a few steps. Returns its id."""
    if process := os.fork():
        return process
    try:  # nothing of this process may run in the copy
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        loop.SECONDS_PER_CHECKPOINT, loop.SECONDS_PER_CALL = 0, 0.01
        code = main.command_line(main.work, main.DESCRIPTION, flags)
    except BaseException:
        code = 1
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


def next_flags(flags, folder):
    """The command line that goes on with what is in the folder, and the phase that a run is in before it."""
    run = Run(folder, lock=False)
    if run.is_trained():
        return ["--eval_only", "--run_dir", str(folder), "--gpu", "-1"]
    if run.has_checkpoints():
        return ["--resume", "--run_dir", str(folder), "--gpu", "-1"]
    return [*flags, "--run_dir", str(folder)]


def phase_of(folder, output):
    """Where a run is that was just killed, by its files and by what it had said."""
    run = Run(folder, lock=False)
    if run.weights.exists():
        return "evaluation" if "log likelihood: " in output.read_text() else "weights and figures"
    return "training" if run.metrics.exists() and run.has_checkpoints() else "start"


def finish(process, folder, output):
    _, status = os.waitpid(process, 0)
    if status:
        raise Mismatch(f"{folder} ended with {os.waitstatus_to_exitcode(status)}: {output.read_text()[-2000:]}")


def outcome(folder):
    """What a run ends with: weights' bytes, metrics, result; without the seconds that it took."""
    weights, run = {}, Run(folder, lock=False)

    def keep(name, item):
        if isinstance(item, h5py.Dataset):
            weights[name] = item[()].tobytes()

    with h5py.File(run.weights) as file:
        file.visititems(keep)
    metrics = [row | {"seconds": None} for row in read_csv(run.metrics)]
    result = json.loads(run.test_llh.read_text()) | {"seconds": None, "commit": None}
    return {"weights": weights, "metrics": metrics, "result": result}


def kill(process, number, run, output):
    """Sends the signal and waits for the end. Raises Mismatch where it crashes in place of ending at SIGTERM."""
    os.kill(process, number)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code not in (0, 130, -number):
        raise Mismatch(f"{run} ended with {code} at {number.name}: {output.read_text()[-2000:]}")


def kill_often(flags, kills, folder, rng, number=signal.SIGKILL):
    """Kills runs with these flags so many times in all, and goes on to the end. Returns {phase: kills}.

    Raises Mismatch where one does not end as the run left in peace.
    """
    output, counts, began = folder / "output", dict.fromkeys(PHASES, 0), time.monotonic()
    finish(start([*flags, "--run_dir", str(folder / "quiet")], output), folder / "quiet", output)
    longest, expected = time.monotonic() - began, outcome(folder / "quiet")
    done = 0
    for index in itertools.count():
        if done >= kills:
            return counts
        run = folder / f"killed{index}"
        while not (run / "test_llh.json").exists():
            process = start(next_flags(flags, run), output)
            deadline = time.monotonic() + rng.uniform(0, longest)
            while done < kills and time.monotonic() < deadline and os.waitid(os.P_PID, process, END) is None:
                time.sleep(0.005)
            if done < kills and os.waitid(os.P_PID, process, END) is None:
                kill(process, number, run, output)
                counts[phase_of(run, output)] += 1
                done += 1
            else:
                finish(process, run, output)
        for name, value in outcome(run).items():
            if value != expected[name]:
                raise Mismatch(f"{run} has other {name} than the run left in peace")


END = os.WEXITED | os.WNOHANG | os.WNOWAIT


def work():
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of each configuration (20)")
    parser.add_argument("--only", choices=CONFIGURATIONS, help="one configuration")
    parser.add_argument("--seed", type=int, default=0, help="of the instants (0)")
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL", help="that is sent (KILL)")
    parser.add_argument("--jit", choices=("off", "on"), default="off", help="whether XLA compiles (off)")
    options = parser.parse_args()
    print("| configuration | " + " | ".join(PHASES) + " | ended the same |")
    print("| --- |" + " --- |" * (len(PHASES) + 1), flush=True)
    failed = False
    small_mnist("mnist", None, None)  # kept for the forked processes
    for name, flags in CONFIGURATIONS.items():
        if options.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                rng = random.Random(f"{options.seed} {name}")
                try:
                    counts = kill_often(
                        f"{COMMON} --jit {options.jit} {flags}".split(), options.kills, pathlib.Path(folder), rng,
                        signal.Signals[f"SIG{options.signal}"],
                    )  # fmt: skip
                except Mismatch as error:
                    failed = True
                    print(f"| {name} | {error} |", flush=True)
                else:
                    print(f"| {name} | " + " | ".join(map(str, counts.values())) + " | yes |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(work())
