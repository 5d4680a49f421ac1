"""Checkpoints: everything a run needs to go on as if it had never stopped."""

import atexit
import contextlib
import functools
import pathlib
import re
import shutil
import sys
import tempfile

import numpy as np
import tensorflow as tf

from utils import CHECKPOINT, UsageError, numbered


class CheckpointError(UsageError):
    """No checkpoint could be used; the message is one line."""


@contextlib.contextmanager
def errors_of_files(path):
    """Within, what TensorFlow raises where nothing can be written, as on a full disk, becomes an OSError."""
    try:
        yield
    except tf.errors.OpError as error:
        reason = re.sub(r"\{\{.*?\}\} | \[Op:.*?\]", "", error.message.splitlines()[0])  # the names of operations
        raise OSError(None, reason, str(path)) from error


class _Text(tf.Module):
    """A text in a checkpoint. A tf.Variable of text would do, if tf.distribute could copy it to its replicas."""

    def __init__(self, text):
        super().__init__()
        self.text = text

    def _serialize_to_tensors(self):
        return {"VARIABLE_VALUE": tf.constant(self.text)}

    def _restore_from_tensors(self, restored):
        self.text = restored["VARIABLE_VALUE"].numpy().decode()


class Checkpoints:
    """Saves and restores weights, optimiser (with the step and the averaged weights), and the time spent.

    The random numbers have no state besides the seed and the step. The settings are saved too, so that the checkpoint
    of another experiment is refused. The last two checkpoints are kept.
    """

    def __init__(self, folder, settings, beginning, model, optimizer):
        """folder: where they are; settings: the experiment's, as text; beginning: those of its first epochs."""
        self.seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        self.expected, self.beginning = settings, beginning
        self.settings = _Text(self.expected)
        self.model, self.optimizer = model, optimizer
        self.checkpoint = tf.train.Checkpoint(
            model=model, optimizer=optimizer, seconds=self.seconds, settings=self.settings
        )
        self.folder, self.last_good = folder, None  # the checkpoint last saved or restored
        try:
            tf.train.get_checkpoint_state(str(_plain(folder)))
        except ValueError:  # it is empty, or no text
            (folder / "checkpoint").unlink()
        self.manager = tf.train.CheckpointManager(self.checkpoint, str(_plain(folder)), max_to_keep=2)

    @property
    def step(self):
        """How many steps have been taken."""
        return int(self.optimizer.iterations.numpy())

    def _on_disk(self):
        """Checkpoint prefixes, newest first, by what is there: the manager's own list could be damaged as well."""
        return [str(path.with_suffix("")) for _, path in reversed(numbered(self.folder, CHECKPOINT))]

    def save(self):
        """Saves at the present step. Weights that are not finite are not saved: False is returned, and nothing kept."""
        if not all(np.isfinite(v.numpy()).all() for v in self.model.trainable_variables):
            return False
        with errors_of_files(self.folder):
            self.manager.save(checkpoint_number=self.step)
        self.last_good = str(self.folder / f"ckpt-{self.step}")  # not by the name that _plain gives the folder
        return True

    def save_beginning(self, path):
        """Saves at the present step, under `path`, for other runs with this beginning."""
        self.settings.text = self.beginning
        with errors_of_files(self.folder):
            self.checkpoint.write(str(path))
        self.settings.text = self.expected

    def start_from(self, path):
        """Restores what save_beginning saved. Raises CheckpointError."""
        if (reason := self._try(str(path), self.beginning)) is not None:
            raise CheckpointError(f"--start_from: checkpoint {path} is not used: {reason}")
        self.settings.text = self.expected

    def restore(self):
        """Restores the newest checkpoint that is whole and this experiment's. Each that is not is named on stderr.

        Raises CheckpointError if there is none.
        """
        for path in self._on_disk():
            reason = self._try(path, self.expected)
            if reason is None:
                self.last_good = path
                return path
            print(f"checkpoint {path} is not used: {reason}", file=sys.stderr)
        raise CheckpointError(f"--resume: no usable checkpoint in {self.folder}")

    def _try(self, path, expected):
        """Restores `path`, of a run with the settings `expected`, or returns why not."""
        path = pathlib.Path(path)
        path = str(_plain(path.parent) / path.name)
        try:
            saved = tf.train.load_checkpoint(path)
            stored = saved.get_tensor("settings/.ATTRIBUTES/VARIABLE_VALUE").decode()
            if stored != expected:
                return f"it belongs to another experiment, {stored}"
            self.checkpoint.restore(path).assert_consumed()
        except (tf.errors.OpError, ValueError, RuntimeError, AssertionError, IndexError) as error:
            return f"it is damaged or foreign ({str(error).splitlines()[0][:160]})"
        return None


@functools.cache
def _plain(folder):
    """The folder by a name without *, ?, [ and \\: TensorFlow takes names of checkpoints that it reads for patterns."""
    if not set("*?[\\") & set(str(folder)):
        return folder
    links = pathlib.Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, links, ignore_errors=True)
    (links / "checkpoints").symlink_to(folder.resolve())
    return links / "checkpoints"
