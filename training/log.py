"""What a run tells about itself: metrics.csv and TensorBoard."""

import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from training.checkpoints import errors_of_files
from utils import read_csv, write_csv


class Log:
    """Rows of numbers, one per logged epoch: in metrics.csv, which is rewritten whole each time, and in TensorBoard.

    In TensorBoard `train` and `test` are two runs with the same tags, so that their curves lie over one another.

    step: where the run stands. Rows after it were written by a process that got further than its last checkpoint;
    they are dropped, and will come again. settings: {name: value}, for TensorBoard's hyperparameters, where all but
    numbers are shown as text.
    """

    def __init__(self, run, step, settings):
        self.path, self.folder = run.metrics, run.tensorboard
        self.rows = []
        if step and self.path.exists():
            self.rows = [row for row in read_csv(self.path) if int(row["step"]) <= step]
        simple = {name: value if isinstance(value, (int, float)) else str(value) for name, value in settings.items()}
        with errors_of_files(self.folder):
            self.writers = {name: tf.summary.create_file_writer(str(self.folder / name)) for name in ("train", "test")}
            with self.writers["test"].as_default():
                hparams.hparams(simple, trial_id=run.path.name)

    def has(self, step):
        """Whether a row is of this step."""
        return any(int(row["step"]) == step for row in self.rows)

    def add(self, row):
        """row: {column: number}, with `epoch` and `step` among them; train_NAME and test_NAME go to these runs of
        TensorBoard, the rest to train.
        """
        self.rows.append(
            {name: f"{value:.9g}" if isinstance(value, float) else str(value) for name, value in row.items()}
        )
        write_csv(self.path, [{column: of.get(column, "") for column in self.rows[-1]} for of in self.rows])
        for name, value in row.items():
            split, _, tag = name.partition("_")
            if split not in self.writers:
                split, tag = "train", name
            if name not in ("epoch", "step"):
                self._write(split, row["step"], tf.summary.scalar, tag, value)
        self._flush()

    def add_picture(self, step, picture):
        """A picture [height, width] in [0, 1] of images from the prior, after so many steps; ink on paper."""
        self._write("test", step, tf.summary.image, "prior means", 1.0 - picture[tf.newaxis, ..., tf.newaxis])
        self._flush()

    def _write(self, split, step, kind, tag, value):
        with errors_of_files(self.folder), self.writers[split].as_default(step=step):
            kind(tag, value)

    def _flush(self):
        for writer in self.writers.values():
            with errors_of_files(self.folder):
                writer.flush()
