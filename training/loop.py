"""The training loop."""

import contextlib
import dataclasses
import signal
import threading
import time

import numpy as np
import tensorflow as tf

from evaluation import ACTIVE, make_activity, make_bounds
from models.random import Stream, stateless_seed
from training.checkpoints import Checkpoints
from training.images import as_tensor
from training.log import Log
from training.replicas import agree, on_each_device
from training.schedule import make_optimizer
from training.steps import make_steps
from utils import ProgressBar, duration, evenly_spaced, save_weights, sheet, whole_file

SECONDS_PER_CALL = 0.5  # between two checks of the time, of Ctrl-C and of the bound
SECONDS_PER_CHECKPOINT = 60
MONITORED = 500  # images of each set on which the bounds are logged
PICTURED, COLUMNS = 100, 10  # images drawn from the prior for the pictures, and how many of them make a row


class TrainingDiverged(Exception):
    """The objective was not finite; the message has the step, the value and the last good checkpoint."""


class Interrupted(Exception):
    """Stopped by Ctrl-C or SIGTERM, after a checkpoint; the message says at which step."""


def train(config, run, dataset, model, resume=False, start_from=None):
    """Trains `model` in place as `config` says, and writes metrics, checkpoints and pictures' arrays into `run`.

    With `resume`, goes on from the last checkpoint, to the same result as a run that was never stopped. With
    `start_from`, a Run with the same beginning, starts where that ended.
    The model is left with the weights to test: the averaged ones if `config.ema`. Returns the seconds it took, of all
    calls that trained this run. Raises TrainingDiverged, Interrupted, CheckpointError; OSError where the disk is full.
    """
    return _Training(config, run, dataset, model, resume, start_from).run_to_the_end()


class _Training:
    def __init__(self, config, run, dataset, model, resume, start_from):
        self.config, self.run, self.model = config, run, model
        self.image_shape = dataset.entry.image_shape
        self.n_images = len(dataset.train_images)
        self.steps_per_epoch = self.n_images // config.batch_size
        self.total = self.steps_per_epoch * config.n_epochs
        self.optimizer = make_optimizer(config, self.steps_per_epoch, model)
        self.checkpoints = Checkpoints(
            run.checkpoints, config.fingerprint(), config.beginning_fingerprint(), model, self.optimizer
        )
        if resume:
            path = self.checkpoints.restore()
            print(f"resuming at step {self.checkpoints.step} of {self.total}, from {path}", flush=True)
        elif start_from:
            self._start_from_beginning(start_from)
        settings = config.experiment()
        hyperparameters = settings.pop("hyperparameters") or {}
        self.log = Log(run, self.checkpoints.step, settings | hyperparameters)
        conditional = config.is_conditional
        images, context = as_tensor(dataset.train_images), dataset.context("train", conditional)
        self.data = on_each_device(images), on_each_device(context)
        self.steps_with = {k: self._make_steps(k) for k in {config.samples_at(0), config.n_samples}}
        self.bounds_with = {k: make_bounds(model, k, config.compiled) for k in self.steps_with}
        self.activity = make_activity(model, jit=config.compiled)
        monitored = {
            "train": dataset.binarised_train_images(MONITORED, [config.seed, Stream.MONITOR]),
            "test": dataset.binarised_test_images(MONITORED),
        }
        self.monitored = {
            split: (x, evenly_spaced(dataset.context(split, conditional), MONITORED)) for split, x in monitored.items()
        }
        self.picture_noise, self.picture_context = _for_pictures(config, model)
        self.phase, self.stop_signal = None, None
        self.saved_at = self.counted_to = time.monotonic()

    def _make_steps(self, n_samples):
        backward = self.config.backward_with(n_samples)
        config = dataclasses.replace(self.config, n_samples=n_samples, backward_samples=backward)
        return make_steps(config, self.model, self.optimizer, self.steps_per_epoch)

    def _start_from_beginning(self, other):
        """Starts after the epochs that this run has in common with `other`, which has done them."""
        self.checkpoints.start_from(other.beginning)
        self.run.copy_beginning(other, self.config.beginning_epochs)
        seconds = duration(float(self.checkpoints.seconds.numpy()))
        print(f"starting at step {self.checkpoints.step} of {self.total}, after {seconds} in {other.path}", flush=True)

    def run_to_the_end(self):
        asked = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        handlers = {number: signal.signal(number, self._on_signal) for number in asked}
        try:
            if self.checkpoints.last_good is None:
                self._save()
            while self.checkpoints.step < self.total:
                self._one_epoch(self.checkpoints.step // self.steps_per_epoch)
            self._look(self.config.n_epochs)
            self._save()
            if self.stop_signal is not None:
                raise Interrupted(f"stopped after the last step, {self.total}, which is saved")
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self.config.ema:
            self.optimizer.finalize_variable_values(self.model.trainable_variables)
        return float(self.checkpoints.seconds.numpy())

    def _on_signal(self, number, frame):
        if self.stop_signal is not None:  # asked twice: at once
            raise KeyboardInterrupt
        self.stop_signal = number

    def _one_epoch(self, number):
        """What is left of epoch `number`, counted from 0."""
        if number and self.checkpoints.step == self.config.beginning_epochs * self.steps_per_epoch:
            self._save()  # so that it has the time until now, and finite weights
            self.checkpoints.save_beginning(self.run.beginning)
        self._look(number)
        order = np.random.default_rng([self.config.seed, Stream.SHUFFLE, number]).permutation(self.n_images)
        order = on_each_device(order.astype(np.int32))
        self._enter_phase(number)
        take_steps = self.steps_with[self.phase]
        end = (number + 1) * self.steps_per_epoch
        while (step := self.checkpoints.step) < end:
            last = min(step + self.steps_per_call, end)
            began = time.monotonic()
            stopped, bound, value = take_steps(*self.data, order, tf.constant(step), tf.constant(last))
            if int(stopped) < last:
                raise TrainingDiverged(
                    f"the objective was {value.numpy()} at step {int(stopped)} (epoch {number + 1} of"
                    f" {self.config.n_epochs}); the last good checkpoint is {self.checkpoints.last_good}"
                )
            self._report(last, float(bound), (time.monotonic() - began) / (last - step))
            self.steps_per_call, stop = agree(self.steps_per_call, self.stop_signal is not None)
            if stop:
                self._save()
                raise Interrupted(
                    f"stopped at step {last} (epoch {number + 1} of {self.config.n_epochs}), which is saved"
                )
            if time.monotonic() - self.saved_at > SECONDS_PER_CHECKPOINT:
                self._save()

    def _enter_phase(self, number):
        """Begins a phase where epoch `number` has another k than the one before: another compiled step, so that the
        speed is measured anew and the progress bar begins again.
        """
        if self.phase == (phase := self.config.samples_at(number)):
            return
        self.phase, self.calls, self.bar = phase, 0, None
        self.steps_per_call = 2  # until the speed is known
        end = self.config.n_epochs if phase == self.config.n_samples else self.config.beginning_epochs
        self.phase_end = end * self.steps_per_epoch

    def _report(self, step, bound, seconds_per_step):
        self.calls += 1
        if self.calls == 1:  # it was compiled in this call
            self.steps_per_call = 20
            return
        self.steps_per_call = max(1, int(SECONDS_PER_CALL / seconds_per_step))
        if self.bar is None:
            left = self.phase_end - step
            after = self.total - self.phase_end
            then = f"; then {after} with k={self.config.n_samples}" if after else ""
            about = duration(left * seconds_per_step)
            print(f"training: {left} steps left with k={self.phase}, about {about}{then}", flush=True)
            self.bar, self.bar_start = ProgressBar(left, "step", "bound"), step
        else:
            self.bar.update(step - self.bar_start, bound)

    def _save(self):
        now = time.monotonic()
        self.checkpoints.seconds.assign_add(now - self.counted_to)
        if not self.checkpoints.save():
            raise TrainingDiverged(
                f"weights are not finite at step {self.checkpoints.step}; the last good checkpoint is"
                f" {self.checkpoints.last_good}"
            )
        self.saved_at = self.counted_to = now

    def _look(self, epochs_done):
        """Logs the bounds after this many epochs, once, with as many samples as training goes on with; keeps weights
        and images from the prior after 0, 1, 2, 4, ..., the last."""
        step = epochs_done * self.steps_per_epoch
        if self.log.has(step) or self.checkpoints.step != step:  # resumed amid an epoch
            return
        with self._weights_to_test():
            if epochs_done.bit_count() <= 1 or epochs_done == self.config.n_epochs:
                with whole_file(self.run.arrays / f"prior_{epochs_done:04d}.npz") as temporary:
                    means = self.model.decode(self.picture_noise, self.picture_context).numpy()
                    means = means.reshape(-1, *self.image_shape)
                    np.savez_compressed(temporary, means=means)
                self.log.add_picture(step, sheet(means, COLUMNS))
                save_weights(self.model, self.run.weights_after(epochs_done))
            row = {
                "epoch": epochs_done,
                "step": step,
                "seconds": round(float(self.checkpoints.seconds.numpy()) + time.monotonic() - self.counted_to, 1),
                "learning_rate": float(self.optimizer.learning_rate.numpy()),
                "n_samples": (n_samples := self.config.samples_at(epochs_done)),
            }
            for name, (x, y) in self.monitored.items():
                values = self.bounds_with[n_samples](x, y, stateless_seed(self.config.seed, Stream.MONITOR, 0))
                row |= {f"{name}_{key}": value for key, value in values.items()}
            activity = self.activity(*self.monitored["test"], self.config.seed)
            row |= {f"active_z{i}": int(np.sum(units > ACTIVE)) for i, units in enumerate(activity, 1)}
        self.log.add(row)

    @contextlib.contextmanager
    def _weights_to_test(self):
        """Within, the model has the averaged weights if the run averages them."""
        if not (self.config.ema and self.checkpoints.step):
            yield
            return
        raw = [variable.numpy() for variable in self.model.trainable_variables]
        self.optimizer.finalize_variable_values(self.model.trainable_variables)
        try:
            yield
        finally:
            for variable, value in zip(self.model.trainable_variables, raw):
                variable.assign(value)


def _for_pictures(config, model):
    """The noise of the images drawn from the prior, and their labels.

    For a conditional model each row of images has one label and each column one noise; of many labels some are shown.
    """
    noise = model.noise(1, PICTURED, stateless_seed(config.seed, Stream.PICTURE, 0))
    if not config.is_conditional:
        return noise, None
    labels = evenly_spaced(np.eye(model.n_context, dtype=np.float32), PICTURED // COLUMNS)
    noise = tuple(tf.tile(e[:, :COLUMNS], [1, len(labels), 1]) for e in noise)
    return noise, np.repeat(labels, COLUMNS, axis=0)
