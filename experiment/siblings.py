"""Runs of the experiment of a session with other settings, which it is compared with."""

import dataclasses

from experiment.flags import default_path
from experiment.opening import open_folder
from experiment.presets import PRESETS
from experiment.run_folder import Run, load_config
from experiment.session import Session
from experiment.settings import Config
from models.catalogue import MODELS
from utils import UsageError, left_out


def sibling(session, **changes):
    """The Session of the same experiment with other settings, in the folder that these name, which it locks."""
    config = settings_of_sibling(session.config, changes)
    return Session(config, *open_folder(config, continue_existing=True), session.dataset)


def finished_sibling(session, **changes):
    """The Run of the same experiment with other settings, or None where there is none that has ended."""
    config = settings_of_sibling(session.config, changes)
    run = Run(config.run_dir, lock=False)
    try:
        alike = run.is_trained() and load_config(run.path).experiment() == config.experiment()
        run.check_metrics()
    except UsageError as error:
        return left_out(run.path, error)
    return run if alike else None


def settings_of_sibling(config, changes):
    """The Config with changes, {setting: value}, in the folder that they name."""
    of_this_run = dict(hyperparameters=config.numbers_of(MODELS[config.model]), start_from=None, per_image=None)
    usual = PRESETS.get(config.preset, {}).get("first_samples", Config.first_samples)
    # A larger k has the preset's first samples, where a small k had cut them.
    if changes.get("n_samples", 0) > config.n_samples == config.first_samples < usual:
        of_this_run["first_samples"] = usual
    other = dataclasses.replace(config, **of_this_run | changes).resolved()
    return dataclasses.replace(other, run_dir=str(default_path(other)))
