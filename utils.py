"""Small helpers without TensorFlow: the error that a user can mend, files that are written whole or not at all,
durations, the progress bar.
"""

import contextlib
import csv
import errno
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
import time

import numpy as np

CHECKPOINT = r"ckpt-(\d+)\.index"  # for `numbered`: a checkpoint's index, with the step it was saved at


class UsageError(Exception):
    """Something the user can mend: shown as one line on stderr, with exit code 2."""


def left_out(name, error):
    """Says on stderr that one of several runs is left out, and why."""
    print(f"{name} is left out: {error}", file=sys.stderr)


def first_line(text):
    """The first line of a text that is not empty."""
    return next((line.strip() for line in str(text).splitlines() if line.strip()), "")


@contextlib.contextmanager
def whole_file(path):
    """Yields a temporary path beside `path`, which takes its place when the block ends without an error.

    The temporary name ends as `path` does, because writers such as Keras and Matplotlib go by the ending.
    """
    path = pathlib.Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix="-" + path.name)
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:  # writers do not always say which file it was
        raise OSError(error.errno, error.strerror or str(error).splitlines()[0], str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def save_weights(model, path):
    """Writes a Keras model's weights, whole or not at all.

    A disk that is full while HDF5 writes makes it crash when the process ends, so there must be ample room beforehand.
    """
    path, room = pathlib.Path(path), 2 * 4 * model.count_params() + 2**20
    if shutil.disk_usage(path.parent).free < room:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    with whole_file(path) as temporary:
        model.save_weights(temporary)


def write_json(path, content):
    """Writes `content` as indented JSON, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def write_csv(path, rows):
    """Writes the rows, dicts with the same keys, floats to six digits, as a CSV file, whole or not at all."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})


def read_csv(path):
    """The rows of a CSV file: a list of dicts of text."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def numbered(folder, pattern):
    """[(number, path)] of the files in a folder whose whole names match the pattern, in the order of the number, which
    is the pattern's group. Copies that a file manager made, such as "name_1 (copy).npz", do not match.
    """
    found = ((re.fullmatch(pattern, path.name), path) for path in folder.glob("*"))
    return sorted((int(match[1]), path) for match, path in found if match)


def evenly_spaced(images, n):
    """n of the images, spread evenly over them (the first test digits are easier than the rest).

    All of them for n = None, or where there are no more than n.
    """
    return images if n is None or n >= len(images) else images[np.arange(n) * len(images) // n]


def sheet(images, columns):
    """[n, height, width] -> one picture of n images in rows of `columns`; what the last row lacks is 0."""
    n, height, width = images.shape
    images = np.pad(images, ((0, -n % columns), (0, 0), (0, 0)))
    rows = images.reshape(-1, columns, height, width)
    return rows.transpose(0, 2, 1, 3).reshape(-1, columns * width)


def duration(seconds):
    """Seconds as people say them: 42 s, 3 min, 2 h 10 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class ProgressBar:
    """Keras's progress bar, with the time left; where no one watches (a log file), a plain line every half minute."""

    def __init__(self, total, unit, label):
        self.total, self.unit, self.label = total, unit, label
        self.began = self.printed = time.monotonic()
        self.bar = None
        if sys.stdout.isatty():
            import keras

            self.bar = keras.utils.Progbar(total, unit_name=unit, stateful_metrics=[label], interval=0.2)

    def update(self, done, value):
        """`done` of `total` units are done, and `value` is where the labelled quantity stands."""
        if self.bar is not None:
            self.bar.update(done, [(self.label, value)])
            return
        now = time.monotonic()
        if now - self.printed > 30 or done == self.total:
            left = (now - self.began) * (self.total - done) / done
            print(f"{self.unit} {done}/{self.total}, {self.label} {value:.2f}, {duration(left)} left", flush=True)
            self.printed = now
