"""A disk that is full, or that became read-only: one line, and what was there stays."""

import errno
import os
import pathlib
import types

import pytest
import tensorflow as tf

from experiment import run_folder, session
from experiment.markdown import rewrite
from models.iwae import IWAE
from plots.runs import prior_samples
from plots.style import plt, save
from tests.helpers import TINY, go_on_line, in_process, one_line
from utils import save_weights


def full_when(name, monkeypatch):
    """The disk is full when the file of that name is put in its place."""
    replace = os.replace

    def fails(source, target):
        if pathlib.Path(target).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr("utils.os.replace", fails)


MEASURED = ("test_llh.json", "per_image.csv")  # are written after the log likelihood is known
TRAINED = ("checkpoint", "tensorboard", "tensorboard's flush", "tensorboard's file", "metrics.csv",
           "model.weights.h5", "prior.png", "training.json", "prior_0001.npz", "after_0001.weights.h5")  # fmt: skip


@pytest.mark.parametrize("where", TRAINED + MEASURED)
def test_a_full_disk_is_one_line_and_what_was_there_stays(where, copied, monkeypatch, capfd):
    (copied / "model.weights.h5").unlink()
    for path in (copied / "checkpoints").glob("ckpt-4.*"):
        path.unlink()
    if where.startswith("tensorboard's"):

        def full(*_):
            raise tf.errors.ResourceExhaustedError(None, None, "file; No space left on device [Op:X]")

        monkeypatch.setattr(type(tf.summary.create_noop_writer()), "flush", full)
        opened = (lambda _: tf.summary.create_noop_writer()) if where.endswith("flush") else full
        monkeypatch.setattr("tensorflow.summary.create_file_writer", opened)
    elif where in ("checkpoint", "tensorboard"):
        error = tf.errors.ResourceExhaustedError(None, None, "{{node X}} file; No space left on device [Op:X]")
        function = "train.CheckpointManager.save" if where == "checkpoint" else "summary.scalar"
        monkeypatch.setattr(f"tensorflow.{function}", lambda *_, **__: (_ for _ in ()).throw(error))
    else:
        full_when(where, monkeypatch)
        monkeypatch.setattr(session.Session, "draw", lambda self: prior_samples(self.run))
    per_image = ["--per_image", str(copied / "per_image.csv")] if where == "per_image.csv" else []
    assert in_process("--resume", "--run_dir", copied, *per_image) == 2
    out, err = capfd.readouterr()
    assert "No space left on device" in err and err.count("\n") == 2 and "Op:" not in err and "{{" not in err, err
    assert ("test log likelihood (k=20): " in out) == (where in MEASURED)
    assert not list(copied.rglob(".writing-*"))
    flag = "--eval_only" if where in MEASURED else "--resume"
    assert go_on_line(err)[1:] == [flag, "--run_dir", str(copied), *per_image]


def test_a_disk_full_at_the_beginning_is_one_line_and_leaves_room_to_begin(few_digits, no_figures, tmp_path, capfd):
    begin = *TINY, "--jit", "off", "--epochs", 1, "--run_dir", tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        full_when("config.json", patch)
        assert in_process(*begin) == 2
    one_line(capfd, f"No space left on device: {tmp_path}/run/config.json")
    assert not list(tmp_path.iterdir())  # the run never began
    assert in_process(*begin) == 0


@pytest.mark.parametrize("mode", ["--resume", "--eval_only"])
def test_a_folder_that_became_read_only_is_one_line_before_the_work(mode, copied, no_work, monkeypatch, capfd):
    def read_only(path, mode):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(run_folder, "open", read_only, raising=False)
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    assert in_process(mode, "--run_dir", copied) == 2
    one_line(capfd, f"--run_dir: {copied} cannot be written (Read-only file system)")
    assert before == {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}


def test_weights_are_not_begun_where_the_disk_has_no_room_for_them(tmp_path, monkeypatch):
    """HDF5 would crash in its own clean-up."""
    (tmp_path / "model.weights.h5").write_text("before")
    model = IWAE((4,), (2,), 20)
    too_few = 2 * 4 * model.count_params() + 2**20 - 1  # bytes: one less than twice the weights and a MiB
    monkeypatch.setattr("utils.shutil.disk_usage", lambda _: types.SimpleNamespace(free=too_few))
    with pytest.raises(OSError, match="No space left on device"):
        save_weights(model, tmp_path / "model.weights.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["model.weights.h5"]
    assert (tmp_path / "model.weights.h5").read_text() == "before"
    monkeypatch.setattr("utils.shutil.disk_usage", lambda _: types.SimpleNamespace(free=too_few + 1))
    save_weights(model, tmp_path / "model.weights.h5")
    assert (tmp_path / "model.weights.h5").read_bytes()[1:4] == b"HDF"
    assert (tmp_path / "model.weights.h5").stat().st_mode & 0o777 == 0o644  # for all to read


def test_a_figure_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(path, **_):
        pathlib.Path(path).write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "a.png").write_text("before")
    monkeypatch.setattr(figure := plt.figure(), "savefig", full)
    with pytest.raises(OSError):
        save(figure, tmp_path / "a.png")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_a_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    (tmp_path / "page.md").write_text(text := "<!-- a -->\nold\n<!-- /a -->\n")
    full_when("page.md", monkeypatch)
    with pytest.raises(OSError):
        rewrite(tmp_path / "page.md", a="new")
    assert [path.read_text() for path in tmp_path.iterdir()] == [text]
