"""Experiments as command lines, for job schedulers."""

import shlex

from experiment.flags import config_from, default_path
from experiment.run_folder import ROOT, Run, load_config
from utils import UsageError, left_out

NAMED = ("objective", "stochastic_layers", "conditional", "n_samples", "seed")  # what a command says besides its preset


def commands_for(configs):
    """A command that trains and measures each of `configs`, which may differ from their preset in NAMED only.

    Runs that share their first epochs train them once; the others copy them with --start_from, and stand last. One that
    is started too early ends with code 2, and can be started again. A stopped run is resumed; one that was trained but
    not measured in full is measured.
    """
    runs = [(config, Run(default_path(config), lock=False)) for config in configs]
    makers = {}  # text of a beginning -> the run that has it, or the first one here that will
    for folder in {run.path.parent for _, run in runs}:
        for path in sorted(folder.glob("*/checkpoints/beginning.index")):
            maker = Run(path.parent.parent, lock=False)
            try:
                makers.setdefault(load_config(maker.path).beginning_fingerprint(), maker)
            except UsageError as error:
                left_out(maker.path.name, error)
    first, second = [], []
    for config, run in runs:
        if run.is_trained() or run.has_checkpoints():
            flag = "--eval_only" if run.is_trained() else "--resume"
            try:
                first.append(f"python main.py {flag} --run_dir {_shown(run)}{_in_full(run, config)}")
            except UsageError as error:
                left_out(run.path.name, error)
        else:
            maker = makers.setdefault(config.beginning_fingerprint(), run)
            command = f"python main.py --preset {config.preset} {_flags(config)}"
            if maker.path == run.path:
                first.append(command)
            else:
                ready = maker.beginning.with_suffix(".index").exists()
                (first if ready else second).append(f"{command} --start_from {_shown(maker)}")
    return [*first, *second]


def _flags(config):
    usual = config_from({})
    given = {name: value for name in NAMED if (value := getattr(config, name)) != getattr(usual, name)}
    return " ".join(f"--{name} {value}" for name, value in ({"seed": config.seed} | given).items())


def _in_full(run, config):
    """Flags that measure it with all samples and on all test images, where its own settings would not."""
    saved = load_config(run.path)
    full = {"eval_samples": config.eval_samples, "eval_images": config.n_test}
    alike = (saved.eval_samples, saved.eval_images or config.n_test) == tuple(full.values())
    return "" if alike else "".join(f" --{name} {value}" for name, value in full.items())


def _shown(run):
    path = run.path.relative_to(ROOT) if run.path.is_relative_to(ROOT) else run.path
    return shlex.quote(str(path))
