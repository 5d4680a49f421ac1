"""Files that are written whole or not at all, and the folder that holds all of one run."""

import contextlib
import csv
import fcntl
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile

from config import ROOT, UsageError

PACKAGES = ("tensorflow", "keras", "tensorflow-probability", "numpy")


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
    finally:
        temporary.unlink(missing_ok=True)


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


class Run:
    """The files of one run. Opening it takes a lock that ends with the process.

    path: the folder. lock: False to look at it only.
    Raises UsageError where it cannot be written or another process writes there.
    """

    def __init__(self, path, lock=True):
        self.path = pathlib.Path(path)
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.csv"
        self.weights = self.path / "model.weights.h5"
        self.training = self.path / "training.json"
        self.test_llh = self.path / "test_llh.json"
        self.checkpoints = self.path / "checkpoints"
        self.beginning = self.checkpoints / "beginning"  # the checkpoint after the first passes of a run whose k grows
        self.arrays = self.path / "arrays"  # what the figures are drawn from
        self.figures = self.path / "figures"
        self.tensorboard = self.path / "tensorboard"
        if lock:
            self._take()

    def _take(self):
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for folder in (self.checkpoints, self.arrays, self.figures):
                folder.mkdir(exist_ok=True)
            self._lock = open(self.path / ".lock", "w")
        except OSError as error:
            raise UsageError(f"--run_dir: {self.path} cannot be written ({error.strerror})") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"--run_dir: another process is writing to {self.path}") from None
        for left_over in self.path.rglob(".writing-*"):  # of a process that was killed while it wrote
            left_over.unlink()

    def weights_after(self, passes):
        """Where the weights after so many passes are kept, for those passes that keep them."""
        return self.arrays / f"after_{passes:04d}.weights.h5"

    def take_over(self, other, passes):
        """Copies from the Run `other` what it logged and kept before `passes` passes were done."""
        with open(other.metrics, newline="") as file:
            write_csv(self.metrics, [row for row in csv.DictReader(file) if int(row["pass"]) < passes])
        for path in other.arrays.glob("*_[0-9][0-9][0-9][0-9].*"):  # the number of passes done
            if int(path.name.split(".")[0].split("_")[-1]) < passes:
                with whole_file(self.arrays / path.name) as temporary:
                    shutil.copyfile(path, temporary)

    @staticmethod
    def has_weights(path):
        """Whether the folder `path` holds a finished run."""
        return (pathlib.Path(path) / "model.weights.h5").exists()

    def has_checkpoints(self):
        return any(self.checkpoints.glob("ckpt-*.index"))

    def begin(self, config, resume=False, eval_only=False):
        """Writes config.json of a new run, or checks that there is one to resume or evaluate. Raises UsageError."""
        checkpoints = self.has_checkpoints()
        if eval_only:
            if not self.weights.exists():
                how = "training has not ended: --resume goes on with it" if checkpoints else "nothing was trained here"
                raise UsageError(f"--eval_only: no {self.weights.name} in {self.path} ({how})")
        elif resume:
            if not checkpoints:
                raise UsageError(f"--resume: no checkpoint in {self.path}")
        elif checkpoints or self.weights.exists():
            raise UsageError(
                f"--run_dir: {self.path} already holds a run; --resume goes on with it, --eval_only measures it, and"
                " another --run_dir starts anew"
            )
        else:
            write_json(self.config, {"experiment": config.experiment(), **provenance()})


def provenance():
    """The versions and the commit that a result was made with."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"versions": {"python": platform.python_version(), **versions}, "commit": _commit()}


def _commit():
    """The commit checked out, with + where files other than results differ from it; None outside a git checkout."""
    try:
        git = ["git", "-C", str(ROOT)]
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno", "--", ":!results"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")
