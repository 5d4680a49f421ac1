"""python -m benchmarks.scaling: what sharing a batch costs, on logical devices of this machine's CPU.

They share its cores, so nothing gets faster: time over that of one device is what the shares, the sum over the replicas
and the update in every replica add. Interleaved readings; medians of each round's ratio.
"""

import contextlib
import statistics
import time

import numpy as np

REPLICAS = (0, 1, 2, 4)  # 0: without a strategy
CONFIGS = ((5, "adam"), (50, "adam"), (5, "soap"))  # k, optimiser; 1 layer, batch 100
ROUNDS, SECONDS = 5, 2.0


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


def main():
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * max(REPLICAS))
    from data import load

    images = load("mnist").train_images
    for k, optimizer in CONFIGS:
        runs = {n: make_run(images, n, k, optimizer) for n in REPLICAS}
        for run in runs.values():
            run(2)  # compiles
        seconds = {n: [] for n in REPLICAS}
        n_steps = 20
        for _ in range(ROUNDS):
            for n, run in runs.items():
                began = time.perf_counter()
                run(n_steps)
                seconds[n].append((time.perf_counter() - began) / n_steps)
            n_steps = max(20, int(SECONDS / seconds[0][-1]) // 20 * 20)
        ratios = {n: statistics.median(b / a for a, b in zip(seconds[0], seconds[n])) for n in REPLICAS[1:]}
        shown = ", ".join(f"{n} replica{'s' * (n > 1)} {ratio:.2f}" for n, ratio in ratios.items())
        print(
            f"k={k}, {optimizer}: {statistics.median(seconds[0]) * 1e3:.1f} ms a step; times that: {shown}", flush=True
        )


if __name__ == "__main__":
    main()
