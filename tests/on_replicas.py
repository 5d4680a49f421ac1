"""Programs of test_replicas.py, for which TensorFlow must be set up before it starts: four logical CPU devices in one
process, or two workers. What they find goes into the folder in their first argument.

    python tests/on_replicas.py FOLDER devices
    python tests/on_replicas.py FOLDER worker FLAGS
"""

import contextlib
import dataclasses
import os
import pathlib
import signal
import sys

import numpy as np

import main
from data import load
from experiment import session
from experiment.run_folder import Run
from experiment.settings import Config

SIZES = dict(n_hidden=(6,), n_latent=(3,), batch_size=20, epochs=30, learning_rate=1e-3)
# name: (settings, rows in a microbatch, replicas); a batch is 20 images, and a share of it is 10 or 5
STEPS = {
    "compiled Adam": (dict(ema=0.9, conditional="learned_prior", beta_warmup=2, n_samples=2), 1000, 2),
    "SOAP": (dict(optimizer="soap", n_samples=4, backward_samples=2, jit="off"), 20, 2),
}
RUN = dict(SIZES, n_samples=3, epochs=3, jit="off", ema=0.9, grow_samples=0.4)  # the first epoch with one sample
DIES_AT = 10  # the step at which the second worker is killed


def few(mnist):
    """80 training and 250 test images: the latter are three batches, the last one not full."""
    train, test, entry = slice(80), slice(250), mnist.entry._replace(n_train=80, n_test=250)
    labels = mnist.train_labels[train], mnist.test_labels[test]
    return mnist._replace(train_images=mnist.train_images[train], test_images=mnist.test_images[test],
                          train_labels=labels[0], test_labels=labels[1], entry=entry)  # fmt: skip


def scope_of(n_replicas):
    """The scope of so many logical devices, each with its own copies; 0: none, as without --strategy."""
    import tensorflow as tf

    if not n_replicas:
        return contextlib.nullcontext()
    tf.distribute.MirroredStrategy._collective_key_base += 1000  # for strategies of several sizes in one process
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(n_replicas)]).scope()


def weights_after_steps(digits, config, n_replicas, n_steps=25):
    """The weights, on every replica, and the bound of n_steps steps in two calls."""
    import tensorflow as tf

    from training.replicas import on_each_device
    from training.schedule import make_optimizer
    from training.steps import make_steps

    with scope_of(n_replicas):
        model = session.build_model(config, digits.pixel_means)
        optimizer = make_optimizer(config, 4, model)
        run = make_steps(config, model, optimizer, 4)
        context = digits.context("train", config.is_conditional)
        order = np.random.default_rng(0).permutation(80).astype(np.int32)
        data = [on_each_device(array) for array in (digits.train_images, context, order)]
        run(*data, tf.constant(0), tf.constant(2))
        _, bound, _ = run(*data, tf.constant(2), tf.constant(n_steps))
        assert int(optimizer.iterations.numpy()) == n_steps
        if config.ema:
            optimizer.finalize_variable_values(model.trainable_variables)
        copies = zip(*(tf.distribute.get_strategy().experimental_local_results(v.value) for v in model.variables))
        return [_flat(copy) for copy in copies], float(bound)


def _flat(variables):
    return np.concatenate([np.ravel(v.numpy()) for v in variables])


def trained(folder, digits, config, n_replicas, resume=False):
    """Trains on so many replicas; returns the weights, and log p(x) of each test image with the weights of one."""
    from evaluation import make_log_likelihood

    with scope_of(n_replicas):
        one = session.Session(dataclasses.replace(config, run_dir=str(folder)), Run(folder), resume)
        one.train()
        weights = _flat(one.model.variables)
        one.model.load_weights(folder.parent / "one" / "model.weights.h5")
        return weights, make_log_likelihood(one.model, 30, jit=False)(*one.test_data())[1].log_px


def on_devices(folder):
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
    from experiment.startup import start_tensorflow
    from training import loop, steps

    found = {}
    line, strategy, _ = start_tensorflow(gpu=-1, strategy="mirrored")
    found["device"], found["replicas"] = line, strategy.num_replicas_in_sync
    digits = few(load("mnist"))
    for name, (settings, steps.ROWS_IN_CACHE, n_replicas) in STEPS.items():
        config = Config(**{**SIZES, **settings}).resolved()
        for which, n in ("one", 0), ("several", n_replicas):
            found[f"{name} {which}"], found[f"{name} {which} bound"] = weights_after_steps(digits, config, n)
    session.load = lambda *_: digits
    config = Config(**RUN).resolved()
    found["trained one"], found["log_px one"] = trained(folder / "one", digits, config, 0)
    report = loop._Training._report

    def report_and_stop(self, step, *args):
        report(self, step, *args)
        self.stop_signal = signal.SIGTERM if step == 4 else None

    loop._Training._report = report_and_stop
    try:
        trained(folder / "moved", digits, config, 4)
    except loop.Interrupted as stop:
        found["stopped"] = str(stop)
    loop._Training._report = report
    found["trained several"], found["log_px several"] = trained(folder / "moved", digits, config, 2, resume=True)
    np.savez(folder / "found.npz", **found)


def on_worker(folder, flags):
    """main.py, but measured before it is trained, and the second worker kills itself while it trains."""
    digits = few(load("mnist"))
    session.load = lambda *_: digits

    def work(this):
        from training import loop

        this.measure()
        loop.SECONDS_PER_CHECKPOINT = loop.SECONDS_PER_CALL = 0
        report = loop._Training._report

        def report_and_die(self, step, *args):
            report(self, step, *args)
            if step >= DIES_AT and '"index": 1' in os.environ["TF_CONFIG"]:
                os.kill(os.getpid(), signal.SIGKILL)

        loop._Training._report = report_and_die
        this.train_or_load()

    return main.command_line(work, main.DESCRIPTION, flags)


if __name__ == "__main__":
    place, program, *rest = sys.argv[1:]
    sys.exit(on_devices(pathlib.Path(place)) if program == "devices" else on_worker(pathlib.Path(place), rest))
