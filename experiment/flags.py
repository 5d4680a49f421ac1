"""The command line: a flag for every setting and every hyperparameter, and what they add up to."""

import argparse
import dataclasses
import os

from data import own
from data.catalogue import DATASETS
from experiment import run_folder
from experiment.presets import PRESETS, settings_beside
from experiment.rules import GROUPS, check_value, choices_of
from experiment.run_folder import load_config
from experiment.settings import CALL, EVALUATION, Config, flag_fields
from models.catalogue import MODELS, OBJECTIVES, hyperparameters
from utils import UsageError


class Parser(argparse.ArgumentParser):
    """argparse with its errors on one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}\n")


def make_parser(description, names=None, defaults=None, fixed=()):
    """A flag for each setting in `names`; without `names`, for every setting of Config and every hyperparameter.
    What is parsed holds only what was given.

    defaults: settings whose usual value, which --help shows, is not Config's; fixed: those that --help leaves out.
    Returns (the parser, its groups: name -> group).
    """
    defaults = defaults or {}
    parser = Parser(
        description=description,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30, width=100),
    )
    fields = [field for field in flag_fields() if names is None or field.name in names]
    used = {field.metadata["group"] for field in fields}
    groups = {name: parser.add_argument_group(title) for name, title in GROUPS.items() if name in used}
    for field in fields:
        rules, help = field.metadata, field.metadata["help"]
        choices = tuple(PRESETS) if field.name == "preset" else choices_of(rules)
        if field.name in defaults and field.default is None:
            help = help.partition(" (")[0]  # what stands there is Config's own
        if (usual := defaults.get(field.name, field.default)) is not None:
            help += f" ({as_words(usual)})"
        if entries := {"objective": OBJECTIVES, "model": MODELS}.get(field.name):
            help += ": " + "; ".join(f"{name}, {entry.help}" for name, entry in entries.items())
        help = argparse.SUPPRESS if field.name in fixed else help
        _add_flag(groups[rules["group"]], field.name, rules["type"], help, choices, rules.get("nargs"))
    for name, (parameter, owners) in hyperparameters().items() if names is None else ():
        help = f"with {' or '.join(owners)}: {parameter.help} ({parameter.default})"
        _add_flag(groups["model" if MODELS.keys() & owners else "objective"], name, parameter.type, help)
    return parser, groups


def _add_flag(group, name, type, help, choices=None, nargs=None):
    metavar = "{" + ",".join(map(str, choices)) + "}" if choices else type.__name__.upper()
    group.add_argument(f"--{name}", type=type, nargs=nargs, metavar=metavar, help=help.replace("%", "%%"))


def config_from(settings):
    """The Config of {flag: value}, in which hyperparameters stand among the rest."""
    numbers = {name: value for name, value in settings.items() if name in hyperparameters()}
    rest = {name: value for name, value in settings.items() if name not in numbers}
    return Config(**rest, **{"hyperparameters": numbers} if numbers else {})


def parse_flags(argv=None, description=None, defaults=None, fixed=()):
    """Command line -> (Config, resume, eval_only). Raises UsageError, or exits with code 2 and one line.

    defaults: a task's own settings. A preset's settings override them, and the flags given override both. fixed: the
    settings that the task is about; another value is refused.
    With --resume and --eval_only the experiment is the one saved in the run's folder, and a flag that contradicts it
    is an error. Without --run_dir the folder is the one that the given flags name.
    """
    usual = settings_beside(defaults["preset"], {}) | defaults if defaults else {}
    needed = {name: getattr(config_from(defaults).resolved(), name) for name in fixed}
    parser, groups = make_parser(description, None, usual, fixed)
    group = groups["run"]
    group.add_argument("--resume", action="store_true", help="go on with the run in the run's folder")
    group.add_argument("--eval_only", action="store_true", help="measure the run's saved weights again")
    given = _given(parser, argv)
    resume, eval_only = given.pop("resume", False), given.pop("eval_only", False)
    if resume and eval_only:
        raise UsageError("--eval_only: not together with --resume")
    if (resume or eval_only) and "start_from" in given:
        raise UsageError("--start_from: for a new run only, without --resume and --eval_only")
    for field in flag_fields():
        if field.name in given:  # what is never allowed is refused before what is not allowed together
            check_value(field.name, field.metadata, given[field.name])
    _check_fixed(needed, given)
    config = _saved(given, defaults or {}) if resume or eval_only else _beside_preset(given, defaults or {})
    _check_fixed(needed, vars(config))
    return config, resume, eval_only


def _check_fixed(needed, settings):
    """Raises UsageError where a setting of those `needed` has another value."""
    for name, value in needed.items():
        if settings.get(name, value) != value:
            raise UsageError(f"--{name}: {as_words(settings[name])} is not allowed; here it is {as_words(value)}")


def _given(parser, argv):
    """{flag: value} of those given. The path of data that exist is made absolute: however it is written, the experiment
    is the same.
    """
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in vars(parser.parse_args(argv)).items()}
    if (path := given.get("dataset", Config.dataset)) not in DATASETS and os.path.exists(path):
        given["dataset"] = os.path.abspath(path)
    return given


def _beside_preset(given, defaults):
    """A task's defaults, under its preset's settings, under the flags given: resolved, with the run's folder."""
    preset = given.get("preset", defaults.get("preset", Config.preset))
    settings = defaults | settings_beside(preset, given) | {"preset": preset}
    config = config_from(settings)
    if "eval_images" not in given and config.eval_images and config.eval_images > config.n_test:
        config = dataclasses.replace(config, eval_images=None)  # a preset's number is meant as at most so many
    config = config.resolved()
    if "learning_rate" in given and config.schedule == "paper":
        raise UsageError("--learning_rate: only with --epochs N; the paper's schedule sets its own")
    if "first_samples" in given and not config.beginning_epochs:
        raise UsageError("--first_samples: only with --grow_samples, in whose share of the epochs they are used")
    if given.get("first_samples", 0) > config.n_samples:
        raise UsageError(f"--first_samples: {given['first_samples']} is not allowed; at most --n_samples")
    if given.get("grow_samples") and not config.beginning_epochs:
        raise UsageError(
            f"--grow_samples: {config.grow_samples} is not allowed; it is less than one of {config.n_epochs} epochs"
        )
    return dataclasses.replace(config, run_dir=config.run_dir or str(default_path(config)))


def _saved(given, defaults):
    """The settings saved in --run_dir, or in the folder that the flags name, with the flags of this call. Raises
    UsageError where a flag or a preset that was given contradicts them.
    """
    held = load_config(given.get("run_dir") or _beside_preset(given, defaults).run_dir)
    asked = settings_beside(given["preset"], given) if "preset" in given else given
    there = held.experiment() | held.hyperparameters
    for name, value in asked.items():
        if name in EVALUATION | CALL:
            continue
        if name not in there:
            owners = " or ".join(hyperparameters()[name][1])
            raise UsageError(f"--{name}: only with {owners}, and {held.run_dir} holds another run")
        completed = min(value, held.n_samples) if name == "first_samples" else value  # as Config completes it
        if completed != there[name]:
            flag = f"--{name}:" if name in given else f"--preset: {given['preset']} has {name}"
            raise UsageError(f"{flag} {as_words(value)}, but {held.run_dir} holds {as_words(there[name])}")
    call = {name: value for name, value in given.items() if name in EVALUATION | CALL and name != "preset"}
    return dataclasses.replace(held, **call).resolved()


def default_path(config):
    """results/PRESET/NAME: the objective, the layers, k, and each setting that the preset does not have."""
    objective = config.objective.removesuffix("_elbo")
    model = f"c{objective}-{config.conditional}" if config.is_conditional else objective
    parts = [model, f"{config.stochastic_layers}l", f"k{config.n_samples}"]
    unsaid = _unsaid(config)
    for name, value in config.experiment().items():
        if name == "hyperparameters":
            parts += [f"{key}-{number}" for key, number in value.items()]
        elif value != unsaid[name]:
            value = own.name_of(value) if name == "dataset" and config.own_data else value
            words = "-".join(map(str, value if isinstance(value, tuple) else [value]))
            parts.append(f"seed{words}" if name == "seed" else f"{name}-{words}")
    return run_folder.RESULTS / config.preset / "-".join(parts).replace("_", "-")


def _unsaid(config):
    """{setting: value} that a run's name does not say: what its first words say already, and what its preset has."""
    preset = settings_beside(config.preset, {"epochs": config.epochs} if config.epochs > 0 else {})
    named = ("model", "stochastic_layers", "objective", "n_samples", "conditional")
    completed = config_from(preset | {name: getattr(config, name) for name in named}).completed().experiment()
    return completed | {
        "model": Config.model, "epochs": PRESETS[config.preset]["epochs"],
        "own_data": config.own_data, "binarise": config.data_entry.binarise,
    }  # fmt: skip


def as_words(value):
    """A setting's value in a message."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def parse_call_flags(argv=None, description=None, same=(), evaluation=True, **flags):
    """Command line of a program that looks at finished runs -> (Config of the flags of a call, {its own flag: value}).

    same: names of settings that are flags too; evaluation: whether those of the evaluation are; flags: name -> help, of
    switches of its own. Raises UsageError, or exits with code 2 and one line.
    """
    names = (CALL | {*same} | (EVALUATION if evaluation else set())) - {"run_dir", "start_from", "preset", "per_image"}
    parser, groups = make_parser(description, names)
    for name, help in flags.items():
        groups["call"].add_argument(f"--{name}", action="store_true", help=help)
    given = _given(parser, argv)
    own = {name: given.pop(name, False) for name in flags}
    # nothing is trained: few images must not be refused for the usual batch
    return Config(**{"batch_size": 1} | given).resolved(), own
