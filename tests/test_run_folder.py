"""The folder of a run: what is found in it, what may be written there, and how it is opened."""

import dataclasses
import json
import os
import subprocess

import pytest

from experiment import run_folder
from experiment.opening import open_folder
from experiment.run_folder import Run
from experiment.settings import Config
from tests.helpers import RECORD
from utils import UsageError, read_csv, write_csv

SMALL = Config(n_hidden=(6,), n_latent=(3,), epochs=1, jit="off", conditional="learned_prior")


@pytest.mark.parametrize(
    "left",
    ["test_llh.json", "training.json", "model.weights.h5", "metrics.csv", "arrays/prior_0016.npz",
     "arrays/after_0016.weights.h5"],
)  # fmt: skip
def test_a_folder_with_what_is_left_of_another_run_is_not_begun_in(left, tmp_path):
    """Else the other's record would be taken for that of the new weights."""
    run = Run(tmp_path / "a")
    contents = {"test_llh.json": RECORD, "training.json": {"epochs": 4, "seconds": 1.5}}
    (run.path / left).write_text(json.dumps(contents.get(left, {})))
    for _ in range(2):
        with pytest.raises(UsageError, match=f"has {left} of another run; delete that, or"):
            run.check(SMALL.resolved())
        run.begin(dataclasses.replace(SMALL, seed=1).resolved())


def test_a_run_that_was_stopped_before_its_first_checkpoint_is_begun_anew(tmp_path):
    """With other settings only where none of its files would be taken for theirs."""
    run, other = Run(tmp_path / "a"), dataclasses.replace(SMALL, seed=1).resolved()
    run.begin(SMALL.resolved())
    run.check(other)
    (run.arrays / "prior_0000.npz").touch()
    run.check(SMALL.resolved())
    run.config.write_text("{}")  # of something else
    with pytest.raises(UsageError, match="config.json cannot be read .*; delete it, or give another --run_dir"):
        run.check(SMALL.resolved())


def test_a_folder_made_for_a_run_that_never_began_goes(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("new", "there", "begun", "written"):
        run = Run(tmp_path / name)
        if name == "begun":
            run.begin(SMALL.resolved())
        if name == "written":
            (run.path / "notes.txt").write_text("the user's")
        run.release()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun", "there", "written"]
    assert (tmp_path / "begun/config.json").exists() and (tmp_path / "written/notes.txt").exists()


def test_a_run_that_was_stopped_is_not_begun_anew(tmp_path):
    run = Run(tmp_path / "a")
    (run.checkpoints / "ckpt-7.index").touch()
    with pytest.raises(UsageError, match="already holds a run: --resume goes on with it"):
        run.check(SMALL.resolved())


def test_a_task_goes_on_with_a_run_that_was_stopped(tmp_path):
    config = Config(run_dir=str(tmp_path / "run")).resolved()
    run = Run(config.run_dir)
    run.begin(config)
    (run.checkpoints / "ckpt-7.index").touch()
    run.release()
    assert open_folder(config, continue_existing=True)[1:] == (True, False)


def test_a_run_clears_away_its_own_leftovers_only(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".writing-x").touch()
    (tmp_path / "a/checkpoints/ckpt-7_temp").mkdir(parents=True)
    (tmp_path / "a/checkpoints/ckpt-7_temp/part-0").touch()
    Run(tmp_path / "a")
    assert not (tmp_path / "a/.writing-x").exists() and (tmp_path / "b/.writing-x").exists()
    assert not list((tmp_path / "a/checkpoints").iterdir())
    Run(tmp_path)
    assert (tmp_path / "b/.writing-x").exists()  # which may be that of a run at work


def test_a_trained_run_needs_what_it_started_from_no_more(tmp_path):
    folders = dict(start_from=str(tmp_path / "gone"), run_dir=str(tmp_path / "run"))
    config = Config(epochs=4, grow_samples=0.5, **folders).resolved()
    run = Run(config.run_dir)
    run.begin(config)
    (run.checkpoints / "ckpt-2.index").touch()
    run.release()
    assert open_folder(config, continue_existing=True)[1:] == (True, False)  # nor does one that was stopped
    run.weights.touch()
    run.training.write_text('{"epochs": 4, "seconds": 1.5}')
    del run
    assert open_folder(config, continue_existing=True)[1:] == (False, True)
    new = dataclasses.replace(config, start_from=None, run_dir=str(tmp_path / "new"))
    assert open_folder(new, continue_existing=True)[1:] == (False, False)


def test_a_beginning_is_copied_as_far_as_it_goes(tmp_path):
    other, run = Run(tmp_path / "a"), Run(tmp_path / "b")
    write_csv(other.metrics, [{"epoch": n, "step": n} for n in range(4)])
    names = "prior_0000.npz", "after_0001.weights.h5", "q_means_0002.npz", "posterior_means.npz"
    for name in (*names, ".writing-x-prior_0001.npz", "prior_16384.npz"):
        (other.arrays / name).touch()
    run.copy_beginning(other, 2)
    assert [row["epoch"] for row in read_csv(run.metrics)] == ["0", "1"]
    assert sorted(path.name for path in run.arrays.iterdir()) == ["after_0001.weights.h5", "prior_0000.npz"]


def test_a_commit_is_named_only_where_git_says_what_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "ROOT", tmp_path)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert run_folder.provenance()["commit"] is None  # there is none yet
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    for name in ("results", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "table").touch()
    subprocess.run([*git, "add", "results"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "second"], check=True)
    (tmp_path / "results/table").write_text("of a run that is going on")
    assert len(run_folder.provenance()["commit"]) == 12
    subprocess.run([*git, "add", "new"], check=True)
    os.utime(tmp_path / "new/table", (1, 1))
    before = (tmp_path / ".git/index").read_bytes()
    assert run_folder.provenance()["commit"].endswith("+")
    assert (tmp_path / ".git/index").read_bytes() == before  # else a user's git finds it locked, now and then
    (tmp_path / ".git/index").write_text("damaged")
    assert run_folder.provenance()["commit"] is None


def test_values_of_each_image_may_lie_in_the_run_s_new_folder(tmp_path):
    config = Config(run_dir=str(tmp_path / "new"), per_image=str(tmp_path / "new/each.csv")).resolved()
    for content in (None, "", "\ufefftest_image,label"):  # new; made by `touch`; saved again by a spreadsheet
        if content is not None:
            (tmp_path / "new").mkdir(exist_ok=True)
            (tmp_path / "new/each.csv").write_text(content, encoding="utf-8")
        run, *how = open_folder(config)
        assert run.path == tmp_path / "new" and how == [False, False]
        run.release()


def test_per_image_takes_the_name_of_no_table_of_the_run(tmp_path):
    tables = [path for path in vars(Run(tmp_path / "new", lock=False)).values() if str(path).endswith(".csv")]
    assert len(tables) >= 5
    for path in tables:
        with pytest.raises(UsageError, match="--per_image: .* is not allowed"):
            open_folder(Config(run_dir=str(tmp_path / "new"), per_image=str(path)).resolved())
