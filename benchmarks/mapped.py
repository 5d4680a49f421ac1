"""Training on many images: the time of a step where they are read and where they are mapped, and the memory it needs.

python -m benchmarks.mapped: writes random images to a temporary .npy file, and steps on both in turn, with Adam:
batches of 100 with k = 5, as --preset quick has them, and of 20 with k = 1. What is mapped has been written just
before, so the system has it in memory.
"""

import pathlib
import resource
import tempfile
import time

import numpy as np

from benchmarks.flags import at_least
from experiment.flags import Parser
from experiment.startup import start_tensorflow


def write_images(path, n):
    """n random images of 28 x 28, bytes, into an .npy file."""
    generator = np.random.default_rng(0)
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (n, 28, 28))
    for start in range(0, n, 10000):
        part = images[start : start + 10000]
        part[:] = generator.integers(0, 256, part.shape, np.uint8)
    images.flush()


def step_times(path, turns, batch_size, n_samples, steps=15):
    """{"read" and "mapped": seconds a step [turns - 2]}, in turn; the first two turns compile."""
    import tensorflow as tf

    from data import load
    from data.arrays import aligned
    from experiment.session import build_model
    from experiment.settings import Config
    from training.images import as_tensor
    from training.schedule import make_optimizer
    from training.steps import make_steps

    mapped = load(str(path)).train_images
    read = aligned(mapped.shape)
    read[:] = mapped
    config = dict(preset="quick", epochs=1, schedule="constant", learning_rate=2e-3, binarise="dynamic")
    config = Config(**config, batch_size=batch_size, n_samples=n_samples).resolved()
    model, steps_per_epoch = build_model(config, None), len(mapped) // batch_size
    take_steps = make_steps(config, model, make_optimizer(config, steps_per_epoch, model), steps_per_epoch)
    order = tf.constant(np.random.default_rng(0).permutation(len(mapped)), tf.int32)
    tensors, context = {"read": as_tensor(read), "mapped": as_tensor(mapped)}, tf.zeros([len(mapped), 0])
    seconds, first = {name: [] for name in tensors}, 0
    for turn in range(turns):
        for name in sorted(tensors, reverse=turn % 2):
            began = time.perf_counter()
            stopped, _, _ = take_steps(tensors[name], context, order, tf.constant(first), tf.constant(first + steps))
            first = int(stopped)
            seconds[name] += [(time.perf_counter() - began) / steps] * (turn > 1)
    return seconds


if __name__ == "__main__":
    parser = Parser(prog="python -m benchmarks.mapped", description=__doc__)
    parser.add_argument("--images", type=at_least(112), default=1_000_000, help="images (1000000)")
    parser.add_argument(
        "--turns",
        type=at_least(3),
        default=60,
        help="readings of each; the first two compile, and are not counted (60)",
    )
    flags = parser.parse_args()
    start_tensorflow((-1,))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "images.npy"
        write_images(path, flags.images)
        for batch_size, n_samples in ((100, 5), (20, 1)):
            seconds = step_times(path, flags.turns, batch_size, n_samples)
            read, mapped = (1000 * np.median(seconds[name]) for name in ("read", "mapped"))
            print(f"batch {batch_size}, k={n_samples}: read {read:.2f} ms, mapped {mapped:.2f} ms, {mapped / read:.2f}")
    print(f"memory, with both of them in it: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.2f} GB")
