"""python tables.py --commands: what makes every cell that is not there yet."""

import dataclasses
import runpy
import subprocess
import sys

import pytest

import tables
from experiment import cells, run_folder, survey
from experiment.commands import commands_for
from experiment.flags import default_path, parse_flags
from tests.test_tables import save_run


def parsed(line):
    program, main, *flags = line.split()
    assert (program, main) == ("python", "main.py")
    return parse_flags(flags)[0]


def test_the_commands_make_every_cell_and_seed_and_start_from_runs_that_come_before(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "RESULTS", tmp_path)
    wanted = list(cells.configs_of_cells())
    configs = [parsed(line) for line in commands_for(wanted)]
    assert len(configs) == len(wanted) == 3 * (3 * len(cells.SECTIONS) - 2)  # VAE at k = 1 is IWAE
    for config in wanted:
        assert sum(config.experiment() == other.experiment() for other in configs) == 1
    waiting = [config.start_from is not None for config in configs]
    # IWAE and VAE of two layers share one beginning a seed; with one layer k = 50 begins as k = 5 does
    assert waiting == sorted(waiting) and sum(waiting) == 3 * (4 + 5)
    folders = {config.run_dir: config for config in configs[: waiting.index(True)]}
    for config in configs[waiting.index(True) :]:
        assert folders[config.start_from].beginning() == config.beginning()


def test_the_commands_go_on_with_what_is_there(tmp_path, monkeypatch):
    """Whatever is stopped is resumed, what is trained is measured, and a beginning that is there is started from."""
    monkeypatch.setattr(run_folder, "RESULTS", tmp_path)
    trained, stopped, new = (config for config in cells.configs_of_cells() if (config.seed, config.objective,
                             config.stochastic_layers, config.conditional) == (0, "iwae_elbo", 2, "no"))  # fmt: skip
    at_work = []  # the runs may be locked
    for config, files in (
        (trained, ("model.weights.h5", "training.json", "checkpoints/beginning.index")),
        (stopped, ("checkpoints/ckpt-7.index",)),
    ):
        run = run_folder.Run(default_path(config))
        run.begin(dataclasses.replace(config, eval_images=1000) if config == stopped else config)
        at_work.append(run)
        for name in files:
            (run.path / name).touch()
    folder = tmp_path / "fast"
    assert commands_for([new, stopped, trained]) == [
        f"python main.py --preset fast --seed 0 --stochastic_layers 2 --n_samples 50 --start_from {folder}/iwae-2l-k1",
        f"python main.py --resume --run_dir {folder}/iwae-2l-k5 --eval_samples 5000 --eval_images 10000",
        f"python main.py --eval_only --run_dir {folder}/iwae-2l-k1",
    ]


def test_the_commands_are_printed_alone(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(run_folder, "RESULTS", tmp_path)
    done, *others = cells.configs_of_cells()
    save_run(default_path(done), done)
    (tmp_path / "fast" / "foreign" / "checkpoints").mkdir(parents=True)
    (tmp_path / "fast" / "foreign" / "checkpoints" / "beginning.index").touch()
    unreadable = run_folder.Run(default_path(others[0]), lock=False)
    save_run(unreadable.path, others[0])
    unreadable.test_llh.unlink()
    unreadable.config.write_text("{}")
    assert (
        survey(tables.work, tables.__doc__, ["--commands"], first=tables.print_commands, measure="", commands="") == 0
    )
    out, err = capfd.readouterr()
    assert [line.split(" --")[0] for line in out.splitlines()] == ["python main.py"] * (len(others) - 1)
    assert "foreign is left out: " in err and f"{unreadable.path.name} is left out: " in err and err.count("\n") == 2


def test_flags_that_tables_would_not_follow_are_refused():
    """With --measure each run is measured on as many images and samples as its record has."""
    process = subprocess.run([sys.executable, "tables.py", "--commands", "--eval_samples", "5"], cwd=run_folder.ROOT,
                             text=True, capture_output=True)  # fmt: skip
    assert process.returncode == 2 and "--eval_samples" in process.stderr and process.stderr.count("\n") == 1


def test_commands_are_asked_for_before_the_work(monkeypatch):
    kept = {}
    monkeypatch.setattr("experiment.survey", lambda *_, **how: kept.update(how))
    with pytest.raises(SystemExit):
        runpy.run_path(str(run_folder.ROOT / "tables.py"), run_name="__main__")
    assert kept["first"].__name__ == "print_commands" and kept["evaluation"] is False


@pytest.mark.parametrize(
    ("saved", "measured"),
    [(dict(eval_images=1000), dict(n_images=1000)), (dict(eval_samples=100), dict(n_samples=100))],
)
def test_what_was_measured_on_a_few_images_is_still_to_be_measured_in_full(
    saved, measured, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(run_folder, "RESULTS", tmp_path)
    config = next(cells.configs_of_cells())
    save_run(default_path(config), dataclasses.replace(config, **saved), **measured)
    tables.print_commands(False, True)
    wanted = f"python main.py --eval_only --run_dir {default_path(config)} --eval_samples 5000 --eval_images 10000"
    assert wanted in capfd.readouterr().out.splitlines()
