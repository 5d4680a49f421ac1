"""The folder that holds all of one run: its files, its lock, and the settings saved in it."""

import contextlib
import csv
import fcntl
import hashlib
import importlib.metadata
import json
import math
import pathlib
import platform
import shutil
import subprocess

import numpy as np

from data.arrays import DataError, reading
from experiment.settings import EVALUATION, Config
from utils import CHECKPOINT, UsageError, numbered, read_csv, whole_file, write_csv, write_json

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
RECORD = {  # what a measurement has, and of which type
    "test_llh": float, "standard_error": float | None, "mc_error": float | None, "n_samples": int, "n_images": int,
    "active_units": list, "pareto_k": float | None, "pareto_k_high": float | None,  # no Pareto k in earlier versions
}  # fmt: skip
# Columns that metrics.csv must have.
DRAWN = {f"{split}_{bound}_elbo" for split in ("train", "test") for bound in ("iwae", "vae")}
KEPT = "[a-z]\\w*"  # any name of what training keeps in arrays/
TRAINING = {"epochs": int, "seconds": int | float}  # what the record of a training has
PACKAGES = ("tensorflow", "keras", "tensorflow-probability", "numpy")


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
        self.posteriors = self.path / "posteriors.csv"  # of tasks/task01.py
        self.gradient_noise = self.path / "gradient_noise.csv"  # of tasks/task02.py
        self.annealed, self.bracket = self.path / "annealed.csv", self.path / "bracket.csv"  # of tasks/task07.py
        self.checkpoints = self.path / "checkpoints"
        self.beginning = self.checkpoints / "beginning"  # the checkpoint after the first epochs of a run whose k grows
        self.arrays = self.path / "arrays"  # what the figures are drawn from
        self.figures = self.path / "figures"
        self._folders = self.checkpoints, self.arrays, self.figures
        self.tensorboard = self.path / "tensorboard"
        if lock:
            self._take()

    def _take(self):
        self._made = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for folder in self._folders:
                folder.mkdir(exist_ok=True)
            self._lock = open(self.path / ".lock", "w")
        except OSError as error:
            raise UsageError(f"--run_dir: {self.path} cannot be written ({error.strerror})") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"--run_dir: another process is writing to {self.path}") from None
        # What a process leaves that was killed while it wrote. Other runs may lie below this folder.
        for folder in (self.path, self.arrays, self.figures, *self.figures.glob("*/")):
            for left_over in folder.glob(".writing-*"):
                left_over.unlink()
        for left_over in self.checkpoints.glob("*_temp/"):  # TensorFlow's
            shutil.rmtree(left_over)

    def release(self):
        """Lets others write here, as the end of a process does. A folder made for a run that never began goes."""
        if self._made and not self.config.exists():
            (self.path / ".lock").unlink(missing_ok=True)
            for folder in (*self._folders, self.path):
                with contextlib.suppress(OSError):  # it is not empty
                    folder.rmdir()
        self._lock.close()

    def weights_after(self, epochs):
        """Where the weights after so many epochs are kept, for those epochs that keep them."""
        return self.arrays / f"after_{epochs:04d}.weights.h5"

    def kept(self, name):
        """[(epochs done, file)] of what training kept under a name, oldest first.

        name: after (weights), prior, q_means, or another regular expression, such as KEPT for all of them.
        """
        return numbered(self.arrays, rf"{name}_(\d+)\.(?:npz|weights\.h5)")

    def copy_beginning(self, other, epochs):
        """Copies from the Run `other` what it logged and kept before `epochs` epochs were done."""
        write_csv(self.metrics, [row for row in read_csv(other.metrics) if int(row["epoch"]) < epochs])
        for done, path in other.kept(KEPT):
            if done < epochs:
                with whole_file(self.arrays / path.name) as temporary:
                    shutil.copyfile(path, temporary)

    def is_trained(self):
        """Whether training has ended, and left the weights to test."""
        return self.weights.exists() and self.training.exists()

    def has_checkpoints(self):
        """Whether training has begun here and can be gone on with."""
        return bool(numbered(self.checkpoints, CHECKPOINT))

    def weights_sha256(self):
        """Of the weights' file, as training.json keeps it: hexadecimal."""
        return hashlib.sha256(self.weights.read_bytes()).hexdigest()

    def is_whole(self):
        """Whether training has ended, and the weights are not damaged."""
        if not self.is_trained():
            return False
        try:
            self.check_weights()
        except UsageError:
            return False
        return True

    def check_weights(self):
        """Raises UsageError where training.json has a SHA-256 that is not the weights'."""
        written = (self.trained() or {}).get("weights")
        if written and written != self.weights_sha256():
            raise UsageError(f"--run_dir: {self.weights} is damaged: its SHA-256 is not that in {self.training.name}")

    def check_metrics(self, flag="run_dir"):
        """Raises UsageError where metrics.csv is there and has no whole rows of numbers."""
        try:
            rows = read_csv(self.metrics)
            for value in (value for row in rows for value in row.values() if value != ""):
                float(value)
            if rows and all(int(row["epoch"]) <= int(row["step"]) for row in rows) and DRAWN <= rows[0].keys():
                return
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(f"--{flag}: {self.metrics} cannot be read ({error.strerror})") from None
        except (ValueError, KeyError, TypeError, csv.Error):
            pass
        how = "; if it is deleted, the run can go on, but the rows so far are lost" * (flag == "run_dir")
        raise UsageError(f"--{flag}: {self.metrics} is damaged{how}")

    def check_arrays(self, flag="run_dir"):
        """Raises UsageError where what the training kept for the pictures, which are drawn at its end, is damaged."""
        for _, path in (*self.kept("prior"), *self.kept("after")):
            try:
                with reading(path):
                    read = _read_means if path.suffix == ".npz" else _read_weights
                    read(path)
            except DataError as error:
                raise UsageError(f"--{flag}: {error}; delete it, and the pictures will lack it") from None

    def trained(self):
        """The record of the training, the content of training.json, or None. Raises UsageError if it is damaged."""
        return _record(self.training, TRAINING)

    def recorded(self):
        """The measured test log likelihood, the content of test_llh.json, or None. Raises UsageError if it is damaged.

        Records of earlier versions have no Pareto k.
        """
        return _record(self.test_llh, RECORD, "; delete it to measure anew")

    def begin(self, config):
        """Writes config.json of a new run."""
        evaluation = {name: getattr(config, name) for name in sorted(EVALUATION)}
        saved = {"experiment": config.experiment(), "evaluation": evaluation, "preset": config.preset}
        write_json(self.config, saved | provenance())

    def check(self, config, resume=False, eval_only=False):
        """Raises UsageError where there is nothing to resume or to evaluate, or already a run where one is to begin.

        config: the settings of the run that is to begin.
        """
        checkpoints = self.has_checkpoints()
        self.recorded()  # a damaged record is found before the work
        if eval_only:
            if not self.is_trained():
                how = "training has not ended: --resume goes on with it" if checkpoints else "nothing was trained here"
                raise UsageError(f"--eval_only: no trained model in {self.path} ({how})")
            self.check_weights()
        elif resume:
            if not checkpoints:
                raise UsageError(f"--resume: no checkpoint in {self.path}")
            self.check_metrics()
            self.check_arrays()
        elif checkpoints or self.is_trained():
            state = "finished run: --eval_only measures it" if self.is_trained() else "run: --resume goes on with it"
            raise UsageError(f"--run_dir: {self.path} already holds a {state}, and another --run_dir starts anew")
        elif left := self._left_over(config):
            raise UsageError(
                f"--run_dir: {self.path} has {' and '.join(left)} of another run; delete that, or give another"
                " --run_dir"
            )

    def _left_over(self, config):
        """Names of what another run has left. A log and arrays of these very settings are written anew."""
        files = [self.weights, self.training, self.test_llh]
        if not self.config.exists() or self._saved_config().experiment() != config.experiment():
            files += [self.metrics, *(path for _, path in self.kept(KEPT))]
        return [str(path.relative_to(self.path)) for path in files if path.exists()]

    def _saved_config(self):
        try:
            return load_config(self.path)
        except UsageError as error:
            raise UsageError(f"{error}; delete it, or give another --run_dir") from None


def _read_means(path):
    with np.load(path, allow_pickle=False) as arrays:
        arrays["means"]


def _read_weights(path):
    import h5py

    with h5py.File(path) as file:
        file.visititems(lambda *_: None)  # reads the header of each array


def _record(path, kinds, advice=""):
    """The content of a JSON file, None where there is none. Raises UsageError unless it has `kinds`, name -> type."""
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"--run_dir: {path} cannot be read ({error}){advice}") from None
    for name, kind in kinds.items():
        value = record.get(name) if isinstance(record, dict) else None
        number = not isinstance(value, float) or math.isfinite(value)  # NaN and infinity are no measurement
        if not isinstance(value, kind) or not number:
            raise UsageError(f"--run_dir: {path} has {value} as {name}{advice}")
    return record


def load_config(folder, flag="run_dir"):
    """The settings saved in a run's config.json, resolved; its folder is their `run_dir`.

    Raises UsageError, which names `flag`; unknown settings are refused.
    """
    path = pathlib.Path(folder) / "config.json"
    try:
        saved = json.loads(path.read_text())
        settings = saved["experiment"] | saved["evaluation"] | {"preset": saved["preset"]}
    except FileNotFoundError:
        raise UsageError(f"--{flag}: no run in {folder} (it has no config.json)") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"--{flag}: {path} cannot be read ({type(error).__name__}: {error})") from None
    if unknown := sorted(settings.keys() - (Config().experiment().keys() | EVALUATION | {"preset"})):
        raise UsageError(f"--{flag}: {path} has settings this version does not know: {', '.join(unknown)}")
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    try:
        return Config(**settings, run_dir=str(folder)).resolved()
    except UsageError as error:
        raise UsageError(f"--{flag}: {path} has {error}") from None


def provenance():
    """The versions and the commit that a result was made with."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"versions": {"python": platform.python_version(), **versions}, "commit": _commit()}


def _commit():
    """The commit checked out, with + where files other than results differ from it; None outside a git checkout."""
    try:
        git = ["git", "--no-optional-locks", "-C", str(ROOT)]  # the user may be at work with git
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno", "--", ":!results"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")
