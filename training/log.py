"""What a run tells about itself: metrics.csv and TensorBoard."""

import csv

import tensorflow as tf

from utils import read_csv, whole_file


class Log:
    """Rows of numbers, one per logged epoch: in metrics.csv, which is rewritten whole each time, and in TensorBoard.

    step: where the run stands. Rows after it were written by a process that got further than its last checkpoint;
    they are dropped, and will come again.
    """

    def __init__(self, run, step):
        self.path = run.metrics
        self.rows = []
        if step and self.path.exists():
            self.rows = [row for row in read_csv(self.path) if int(row["step"]) <= step]
        self.writer = tf.summary.create_file_writer(str(run.tensorboard))

    def has(self, step):
        return any(int(row["step"]) == step for row in self.rows[-2:])

    def add(self, row):
        """row: {column: number}, with `epoch` and `step` among them."""
        self.rows.append(
            {name: f"{value:.9g}" if isinstance(value, float) else str(value) for name, value in row.items()}
        )
        with whole_file(self.path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(
                file, fieldnames=list(self.rows[-1]), restval="", extrasaction="ignore", lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(self.rows)
        with self.writer.as_default(step=row["step"]):
            for name, value in row.items():
                if name not in ("epoch", "step"):
                    tf.summary.scalar(name, value)
        self.writer.flush()
