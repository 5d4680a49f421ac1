"""How times are said, and progress where no one watches; whole files are in tests/test_damage.py."""

import types

import utils


def test_at_a_terminal_there_is_keras_s_bar(monkeypatch, capsys):
    monkeypatch.setattr(utils.sys.stdout, "isatty", lambda: True)
    bar = utils.ProgressBar(10, "step", "bound")
    bar.update(4, -91.5)
    bar.update(10, -90.25)
    out = capsys.readouterr().out
    assert " 4/10" in out and "10/10" in out and "bound: -90.25" in out and "left" not in out


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
