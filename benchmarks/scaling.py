"""What sharing a batch costs: replicas on logical devices of this machine's CPU.

They share its cores, so nothing gets faster: time over that of one device is what the shares, the sum over the replicas
and the update in every replica add. It has a process of its own, because logical devices are there from its start.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np

from benchmarks.training import ROOT, say

REPLICAS = (0, 1, 2, 4)  # 0: without a strategy
CONFIGS = ((5, "adam"), (50, "adam"), (5, "soap"))  # k, optimizer; 1 layer, batch 100


def measure_scaling(rounds, seconds):
    """[{n_samples, optimizer, ms: [of one device], ratios: {replicas: [time over that of one device]}}]."""
    command = [sys.executable, "-m", "benchmarks.scaling", str(rounds), str(seconds)]
    env = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"} | os.environ
    reply = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(reply.stdout)


def make_run(images, n_replicas, k, optimizer):
    """Returns run(n): trains for n steps on so many replicas."""
    import tensorflow as tf

    from experiment.session import build_model
    from experiment.settings import Config
    from training.replicas import on_each_device
    from training.schedule import make_optimizer
    from training.steps import make_steps

    config = Config(n_samples=k, batch_size=100, epochs=1, learning_rate=1e-3, optimizer=optimizer).resolved()
    tf.distribute.MirroredStrategy._collective_key_base += 1000  # strategies of several sizes in one process
    devices = [f"CPU:{i}" for i in range(n_replicas)]
    scope = tf.distribute.MirroredStrategy(devices).scope if n_replicas else contextlib.nullcontext
    with scope():
        model = build_model(config, images.mean(axis=0) / 255)
        steps = make_steps(config, model, make_optimizer(config, 600, model), 600)
        order = np.arange(len(images), dtype=np.int32)
        data = [on_each_device(array) for array in (images, np.zeros((len(images), 0), np.float32), order)]

    def run(n):
        with scope():
            steps(*data, tf.constant(0), tf.constant(n))[1].numpy()

    return run


def main(rounds, seconds):
    replies, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no reply
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * max(REPLICAS))
    from data import load

    images, measured = load("mnist").train_images, []
    for k, optimizer in CONFIGS:
        runs = {n: make_run(images, n, k, optimizer) for n in REPLICAS}
        times = {n: [] for n in REPLICAS}
        for n_steps in (2, 20):  # 2: compiles
            began = time.perf_counter()
            for run in runs.values():
                run(n_steps)
        n_steps = max(20, int(seconds * 20 * len(runs) / (time.perf_counter() - began)) // 20 * 20)
        for _ in range(rounds):
            for n, run in runs.items():
                began = time.perf_counter()
                run(n_steps)
                times[n].append((time.perf_counter() - began) / n_steps)
        ratios = {n: [b / a for a, b in zip(times[0], times[n])] for n in REPLICAS[1:]}
        measured.append({"n_samples": k, "optimizer": optimizer, "ms": [t * 1e3 for t in times[0]], "ratios": ratios})
        medians = ", ".join(f"{n}: {statistics.median(values):.2f}" for n, values in ratios.items())
        say(f"scaling, k={k}, {optimizer}: time over that of one device, by replicas: {medians}")
    json.dump(measured, replies)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
