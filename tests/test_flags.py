"""Flags, presets and names: what a command line adds up to, before TensorFlow is there."""

import importlib
import pathlib
import subprocess
import sys

import pytest

from experiment.flags import parse_flags
from experiment.presets import PRESETS, settings_beside
from experiment.run_folder import RESULTS, ROOT, Run, load_config
from experiment.settings import Config, flag_fields
from models.catalogue import MODELS, OBJECTIVES, hyperparameters
from utils import UsageError

TASKS = [f"task0{i}" for i in (1, 2, 3, 4, 5, 7)]  # those that train


def test_help_names_every_flag():
    process = subprocess.run([sys.executable, "main.py", "--help"], cwd=ROOT, text=True, capture_output=True)
    assert process.returncode == 0 and process.stderr == ""
    assert "groups" in hyperparameters()
    for name in [*(field.name for field in flag_fields()), *hyperparameters(), "resume", "eval_only"]:
        assert f"--{name} " in process.stdout or f"--{name}\n" in process.stdout
    said = " ".join(process.stdout.split())
    assert all(f"{name}, {entry.help}" in said for name, entry in (OBJECTIVES | MODELS).items())


def test_a_task_s_help_shows_its_own_defaults_and_leaves_out_what_it_is_about(capsys):
    with pytest.raises(SystemExit):
        parsed("--help", "task03")
    said = " ".join(capsys.readouterr().out.split()).partition("options:")[2]
    for flag, usual in (("--preset", "(fast)"), ("--epochs", "(328)"), ("--n_latent", "(4 2)"), ("--n_samples", "(5)")):
        assert usual in said.partition(f"{flag} ")[2].partition(" --")[0]
    assert "(100, or 100 50)" not in said
    assert "--stochastic_layers" not in said and "--n_hidden" in said


def test_a_checkpoint_is_known_by_the_settings_that_are_not_the_usual_ones():
    """By this text checkpoints of earlier versions are known, too."""
    assert Config(seed=3).resolved().fingerprint() == '{"seed": 3}'


def parsed(flags, task=None):
    module = importlib.import_module(f"tasks.{task}") if task else None
    return parse_flags(flags.split(), None, *((module.DEFAULTS, module.FIXED) if module else ()))[0]


def test_values_at_the_edge_of_what_is_allowed():
    assert parsed("--preset fast --n_samples 5 --first_samples 5").first_samples == 5
    assert parsed("--epochs 100 --grow_samples 0.29").beginning_epochs == 29
    assert parsed("--backward_samples 5").backward_samples == 5
    assert parsed("--preset quick --held_out 500").eval_images is None  # there are fewer than the preset's


def folder_of(flags, task=None):
    return str(pathlib.Path(parsed(flags, task).run_dir).relative_to(RESULTS))


def test_flags_override_a_preset_and_without_any_it_is_the_reference():
    config, resume, eval_only = parse_flags(["--preset", "quick", "--n_samples", "50", "--epochs", "3"])
    assert (config.n_samples, config.epochs, config.batch_size, config.eval_images) == (50, 3, 100, 1000)
    assert not resume and not eval_only
    reference = Config().resolved()  # the reference implementation's defaults
    assert (reference.n_samples, reference.objective, reference.stochastic_layers) == (5, "iwae_elbo", 1)
    assert (reference.batch_size, reference.epochs, reference.learning_rate) == (20, -1, 1e-4)
    assert parsed("").experiment() == reference.experiment()


@pytest.mark.parametrize(
    ("flags", "folder"),
    [
        ("", "paper/iwae-1l-k5"),
        ("--preset paper --seed 1", "paper/iwae-1l-k5-seed1"),
        ("--n_latent 50", "paper/iwae-1l-k5-n-latent-50"),
        ("--stochastic_layers 2", "paper/iwae-2l-k5"),
        ("--stochastic_layers 2 --n_latent 10 5", "paper/iwae-2l-k5-n-latent-10-5"),
        ("--preset quick --n_samples 50 --epochs 3", "quick/iwae-1l-k50-epochs-3"),
        ("--preset fast --epochs 3 --objective vae_elbo", "fast/vae-1l-k5-epochs-3"),
        ("--preset fast --conditional standard_prior", "fast/ciwae-standard-prior-1l-k5"),
        ("--preset fast --learning_rate 0.002", "fast/iwae-1l-k5-learning-rate-0.002"),
        ("--objective piwae", "paper/piwae-1l-k5-groups-1"),
        ("--objective ciwae", "paper/ciwae-1l-k5-elbo-weight-0.05"),
        ("--preset fast --objective miwae --groups 8 --n_samples 64", "fast/miwae-1l-k64-groups-8"),
        ("--objective piwae --groups 5 --seed 2", "paper/piwae-1l-k5-groups-5-seed2"),
        ("--eval_images 10 --threads 2 --gpu 1", "paper/iwae-1l-k5"),
        ("--binarise fixed", "paper/iwae-1l-k5-binarise-fixed"),
        ("--held_out 100", "paper/iwae-1l-k5-held-out-100"),
        ("--preset fast --objective rws --first_samples 5", "fast/rws-1l-k5-first-samples-5"),  # tasks/README.md
    ],
)
def test_the_default_folder_is_named_after_the_preset_and_what_it_does_not_say(flags, folder):
    assert folder_of(flags) == folder


@pytest.mark.parametrize("task", [None, *TASKS])
def test_the_paper_s_schedule_is_a_preset_for_every_program(task):
    config = parsed("--preset paper", task)
    assert (config.schedule, config.epochs, config.n_epochs, config.optimizer) == ("paper", -1, 3280, "adam")
    assert (config.batch_size, config.grow_samples, config.ema, config.beta_warmup) == (20, 0, 0, 0)
    assert folder_of("--preset paper", task).startswith("paper/")


@pytest.mark.parametrize("task", TASKS)
def test_with_fewer_epochs_the_kl_term_s_warmup_keeps_its_share_and_the_rate_s_its_length(task):
    config = parsed("--epochs 3", task)
    assert (config.preset, config.epochs, config.optimizer) == ("fast", 3, "soap")
    assert config.beta_warmup == pytest.approx(PRESETS["fast"]["beta_warmup"] * 3 / 328)
    assert [parsed(f"--epochs {n}", task).lr_warmup for n in (3, 10, 80)] == [0.3, 1.0, 1.0]
    assert parsed("--epochs 3 --beta_warmup 2", task).beta_warmup == 2  # said, and so taken as it is


@pytest.mark.parametrize(
    ("preset", "given", "said"),
    [
        ("fastest", {}, "--preset: fastest is not allowed; one of paper, fast, long, quick"),
        ("fast", {"epochs": -1}, "--epochs: -1 does not go with --preset fast; --preset paper is"),
        ("quick", {"epochs": -1}, "--epochs: -1 does not go with --preset quick"),
        ("fast", {"optimizer": "adam"}, "--optimizer: adam needs --learning_rate beside it"),
        ("quick", {"optimizer": "soap"}, "the rate of --preset quick is for adam"),
        ("paper", {"optimizer": "soap", "epochs": 3}, "--optimizer: soap needs --learning_rate"),
        ("fast", {"schedule": "constant"}, "--schedule: constant needs --learning_rate beside it"),
    ],
)
def test_flags_that_do_not_go_with_a_preset_are_refused(preset, given, said):
    with pytest.raises(UsageError) as error:
        settings_beside(preset, given)
    assert said in str(error.value)
    with pytest.raises(UsageError):
        parsed(" ".join([f"--preset {preset}", *(f"--{name} {value}" for name, value in given.items())]))


def test_flags_go_with_a_preset_beside_a_learning_rate_or_where_they_repeat_it():
    config = parsed("--preset fast --optimizer adam --schedule constant --learning_rate 1e-3")
    assert (config.optimizer, config.schedule, config.lr_warmup, config.beta_warmup) == ("adam", "constant", 0, 10)
    assert parsed("--preset fast --optimizer soap --schedule cosine") == parsed("--preset fast")
    assert parsed("--preset paper --epochs -1") == parsed("")


@pytest.fixture
def begun(tmp_path):
    """Begins a run with these flags, without training, and returns its folder."""

    def begin(flags):
        Run(tmp_path / "run").begin(parsed(f"{flags} --run_dir {tmp_path}/run"))
        return tmp_path / "run"

    return begin


MODES = ("--resume", "--eval_only")


@pytest.mark.parametrize("mode", MODES)
def test_the_settings_of_the_evaluation_are_used_again(mode, begun):
    folder = begun("--preset quick --eval_samples 30")
    again = parsed(f"{mode} --run_dir {folder}")
    assert (again.eval_images, again.eval_samples, again.preset) == (1000, 30, "quick")
    again = parsed(f"{mode} --run_dir {folder} --eval_images 20 --threads 1")
    assert (again.eval_images, again.eval_samples, again.threads) == (20, 30, 1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--preset fast", "--preset: fast has epochs 328, but {} holds 20"),
        ("--preset paper", "--preset: paper has epochs -1, but {} holds 20"),
        ("--first_samples 9", "--first_samples: 9, but {} holds 1"),
        ("--preset quick --epochs 10", "--epochs: 10, but {} holds 20"),
        ("--n_latent 7", "--n_latent: 7, but {} holds 100"),
        ("--groups 1", "--groups: 1, but {} holds 5"),
        ("--objective dreg", "--objective: dreg, but {} holds piwae"),
        ("--preset none", "--preset: none is not allowed"),
    ],
)
def test_flags_and_presets_that_contradict_a_saved_run_are_refused(mode, flags, said, begun):
    folder = begun("--preset quick --objective piwae --groups 5")
    with pytest.raises(UsageError) as error:
        parsed(f"{mode} --run_dir {folder} {flags}")
    assert said.format(folder) in str(error.value)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "flags", ["--preset quick", "--schedule cosine", "--groups 5", "--objective piwae", "--ema 0.99"]
)
def test_flags_and_presets_that_a_saved_run_agrees_with_are_taken(mode, flags, begun):
    folder = begun("--preset quick --objective piwae --groups 5")
    config = parsed(f"{mode} --run_dir {folder} {flags}")
    assert config.hyperparameters == {"groups": 5} and config == load_config(folder)


@pytest.mark.parametrize("flags", ["--preset long --n_samples 1 --epochs 7", "--conditional learned_prior"])
def test_the_command_that_began_a_run_goes_on_with_it(flags, begun):
    folder = begun(flags)
    assert parsed(f"{flags} --resume --run_dir {folder}") == load_config(folder)


@pytest.mark.parametrize("mode", MODES)
def test_a_preset_that_means_something_else_now_does_not_change_a_saved_run(mode, begun, monkeypatch):
    folder = begun("--preset fast --n_samples 4")
    saved = load_config(folder)
    monkeypatch.setitem(PRESETS, "fast", {**PRESETS["quick"], "batch_size": 10})
    assert parsed(f"{mode} --run_dir {folder}") == saved == load_config(folder)
    assert (saved.preset, saved.epochs, saved.optimizer) == ("fast", 328, "soap")
    with pytest.raises(UsageError, match="--preset: fast has epochs 20, but"):
        parsed(f"{mode} --run_dir {folder} --preset fast")


@pytest.mark.parametrize("mode", MODES)
def test_a_task_does_not_go_on_with_a_run_that_is_not_about_its_subject(mode, begun):
    folder = begun("--preset quick")
    with pytest.raises(UsageError, match="--conditional: no is not allowed; here it is learned_prior"):
        parsed(f"{mode} --run_dir {folder}", "task04")
