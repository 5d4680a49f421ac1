"""How times are said, progress where no one watches, and files that are written whole."""

import types

import numpy as np
import pytest

import utils
from experiment.run_folder import Run


def test_at_a_terminal_there_is_keras_s_bar(monkeypatch, capsys):
    monkeypatch.setattr(utils.sys.stdout, "isatty", lambda: True)
    bar = utils.ProgressBar(10, "step", "bound")
    bar.update(4, -91.5)
    bar.update(10, -90.25)
    out = capsys.readouterr().out
    assert " 4/10" in out and "10/10" in out and "bound: -90.25" in out and "left" not in out


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Else a power cut may leave an empty one in the place of a good one."""
    synced = []
    monkeypatch.setattr(utils.os, "fsync", lambda handle: synced.append(utils.os.fstat(handle).st_size))
    utils.write_json(tmp_path / "a.json", 1)
    assert synced == [2] and (tmp_path / "a.json").read_text() == "1\n"


def test_durations_are_as_people_say_them():
    said = {42: "42 s", 89: "89 s", 90: "2 min", 89 * 60: "89 min", 90 * 60: "1 h 30 min", 7800: "2 h 10 min"}
    assert {seconds: utils.duration(seconds) for seconds in said} == said


def test_where_no_one_watches_there_is_a_line_every_half_minute(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(utils, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    bar = utils.ProgressBar(10, "step", "bound")
    for done, now[0] in ((1, 30.0), (2, 30.5), (3, 60.0), (4, 61.0)):
        bar.update(done, -90)
    lines = [f"step {n}/10, bound -90.00, 2 min left\n" for n in (2, 4)]
    assert capsys.readouterr().out == "".join(lines)


def test_a_sheet_has_whole_images_in_its_rows():
    images = np.arange(12).reshape(3, 2, 2)
    assert utils.sheet(images, 2).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 0, 0], [10, 11, 0, 0]]


def test_a_file_is_written_beside_its_place_under_a_name_that_its_run_clears_away(tmp_path):
    run, seen = Run(tmp_path), []
    with pytest.raises(FileNotFoundError), utils.whole_file(run.metrics) as temporary:
        assert temporary.parent == run.path and temporary.exists()
        run.release()
        Run(tmp_path)  # the next process, after this one was killed
        seen.append(temporary.exists())
    assert seen == [False]
