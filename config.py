"""One experiment's settings: the object that describes it, the presets, and the command line built from it.

Nothing here imports TensorFlow, so a wrong flag is answered at once.
"""

import argparse
import dataclasses
import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent
RESULTS = ROOT / "results"
N_TRAIN = {"mnist": 60000}  # images in each data set, so that flags can be judged before any is loaded
N_TEST = {"mnist": 10000}
OBJECTIVES = ("iwae_elbo", "vae_elbo", "vae_elbo_kl", "iwae_eq14", "dreg", "stl")
STANDARD_LAYERS = {1: ((200,), (100,)), 2: ((200, 100), (100, 50))}  # n_hidden and n_latent, from the image up
PAPER_STAGES = 8  # stage i = 0 ... 7 is 3**i passes over the data
PAPER_PASSES = sum(3**i for i in range(PAPER_STAGES))


class UsageError(Exception):
    """Something the user can mend: shown as one line on stderr, with exit code 2."""


def setting(default, type, help, session=False, **rules):
    """A setting of Config, and with it a flag.

    An experiment's settings make its result what it is: they are saved, and fixed once a run has begun. `session` ones
    say how one call of the program works and may differ when a run is resumed or evaluated.
    rules: choices, minimum, above, below, nargs.
    """
    metadata = {"type": type, "help": help, "session": session, **rules}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
    """Every setting of an experiment, by the names of the flags. Where None stands, `resolved` fills in a value."""

    stochastic_layers: int = setting(1, int, "stochastic layers of the model", choices=(1, 2))
    n_hidden: tuple | None = setting(
        None, int, "units of the two tanh layers of each block, from the image up (200, or 200 100)",
        nargs="+", minimum=1,
    )  # fmt: skip
    n_latent: tuple | None = setting(
        None, int, "latent units of each stochastic layer, from the image up (100, or 100 50)", nargs="+", minimum=1
    )
    conditional: str = setting(
        "no", str, "all given the digit's label, with the prior learned for each label or standard normal",
        choices=("no", "learned_prior", "standard_prior"),
    )  # fmt: skip
    objective: str = setting("iwae_elbo", str, "what is maximised", choices=OBJECTIVES)
    n_samples: int = setting(5, int, "importance samples k while training", minimum=1)
    dataset: str = setting("mnist", str, "data set", choices=tuple(N_TRAIN))
    batch_size: int = setting(20, int, "images in a batch", minimum=1)
    epochs: int = setting(-1, int, "passes over the data; -1: the paper's schedule, 3,280 passes", minimum=-1)
    optimizer: str = setting(
        "adam", str, "Adam, or SOAP: Adam in the eigenbasis of the gradients' covariances", choices=("adam", "soap")
    )
    learning_rate: float = setting(1e-4, float, "with --epochs N; the paper's schedule has its own", above=0)
    schedule: str | None = setting(
        None, str, "learning rate over the run: the paper's eight stages (with --epochs -1), constant (with"
        " --epochs N), or cosine decay to a hundredth", choices=("paper", "constant", "cosine"),
    )  # fmt: skip
    rate_warmup: float = setting(
        0.0, float, "passes over which the learning rate grows from 0, with --schedule cosine", minimum=0
    )
    grow_samples: float = setting(
        0.0, float, "the share of the passes, at the beginning, that use --first_samples; the others use all samples",
        minimum=0, below=1,
    )  # fmt: skip
    first_samples: int = setting(1, int, "samples of the first passes, where --n_samples is more", minimum=1)
    beta_warmup: float = setting(0.0, float, "passes over which the KL term's weight grows from 0 to 1", minimum=0)
    ema: float = setting(
        0.0, float, "average the weights with this decay (0.999, say) and test the average; 0: off", minimum=0, below=1
    )
    backward_samples: int | None = setting(
        None, int, "back-propagate through this many of the k samples only, drawn in proportion to their weights (all)",
        minimum=1,
    )  # fmt: skip
    held_out: int = setting(
        0, int, "the last so many training images are not trained on but take the place of the test set, to choose"
        " settings by", minimum=0,
    )  # fmt: skip
    seed: int = setting(0, int, "seed of the first weights and of every random number", minimum=0, below=2**27)
    jit: str = setting("on", str, "compile with XLA", choices=("on", "off"))
    preset: str | None = setting(None, str, "a named set of flags; flags given beside it override it")
    eval_samples: int = setting(5000, int, "importance samples of the test log likelihood", session=True, minimum=1)
    eval_images: int | None = setting(
        None, int, "test images to measure, spread evenly over the test set (all)", session=True, minimum=1
    )
    run_dir: str | None = setting(None, str, "the run's folder (results/NAME, named after the flags)", session=True)
    start_from: str | None = setting(
        None, str, "folder of a run with the same beginning (see --grow_samples), to be taken over instead of trained"
        " again", session=True,
    )  # fmt: skip
    data_dir: str | None = setting(None, str, "folder with IDX files or mnist.npz, looked in first", session=True)
    gpu: int = setting(0, int, "the GPU to use, if there is one; -1: the CPU", session=True, minimum=-1)
    threads: int = setting(0, int, "CPU threads; 0: one per core", session=True, minimum=0)

    def resolved(self):
        """The same settings, complete and checked. Raises UsageError."""
        for field in dataclasses.fields(self):
            _check_value(field, getattr(self, field.name))
        config = self._complete()
        config._check_together()
        return dataclasses.replace(config, run_dir=self.run_dir or str(RESULTS / config._name()))

    def _complete(self):
        n_hidden, n_latent = STANDARD_LAYERS[self.stochastic_layers]
        return dataclasses.replace(
            self,
            n_hidden=self.n_hidden or n_hidden,
            n_latent=self.n_latent or n_latent,
            first_samples=min(self.first_samples, self.n_samples),
            schedule=self.schedule or ("paper" if self.epochs == -1 else "constant"),
        )

    def _check_together(self):
        for name in ("n_hidden", "n_latent"):
            if len(getattr(self, name)) != self.stochastic_layers:
                raise UsageError(f"--{name}: one number per stochastic layer, {self.stochastic_layers} in all")
        n_train, n_test = N_TRAIN[self.dataset] - self.held_out, self.held_out or N_TEST[self.dataset]
        if n_train < 1:
            raise UsageError(f"--held_out: {self.held_out} leaves no images of {self.dataset} to train on")
        for name, most in (("batch_size", n_train), ("eval_images", n_test)):
            if (getattr(self, name) or 0) > most:
                raise UsageError(f"--{name}: {getattr(self, name)} is not allowed; there are {most} images")
        if self.epochs == 0:
            raise UsageError("--epochs: 0 is not allowed; a number of passes, or -1 for the paper's schedule")
        if (self.schedule == "paper") != (self.epochs == -1):
            raise UsageError(
                f"--schedule: {self.schedule} does not go with --epochs {self.epochs};"
                " paper goes with -1, constant and cosine with a number of passes"
            )
        if self.rate_warmup and self.schedule != "cosine":
            raise UsageError("--rate_warmup: only with --schedule cosine")
        if self.rate_warmup >= self.passes:
            raise UsageError(f"--rate_warmup: {self.rate_warmup} is not allowed; less than the {self.passes} passes")
        if self.backward_samples is not None and self.objective not in ("iwae_elbo", "iwae_eq14"):
            raise UsageError(f"--backward_samples: only with iwae_elbo or iwae_eq14, not with {self.objective}")
        if (self.backward_samples or 0) > self.n_samples:
            raise UsageError(f"--backward_samples: {self.backward_samples} is not allowed; at most --n_samples")
        if self.start_from and not self.passes_alike:
            raise UsageError("--start_from: only with --grow_samples, whose first passes other runs can share")
        if self.schedule == "paper" and self.learning_rate != Config.learning_rate:
            raise UsageError("--learning_rate: only with --epochs N; the paper's schedule sets its own")

    @property
    def passes(self):
        """Passes over the training images in all."""
        return PAPER_PASSES if self.epochs == -1 else self.epochs

    @property
    def passes_alike(self):
        """Passes at the beginning that use `first_samples`."""
        return int(self.grow_samples * self.passes)

    def samples_at(self, number):
        """Importance samples k in pass `number`, counted from 0."""
        return self.first_samples if number < self.passes_alike else self.n_samples

    def _name(self):
        """A folder name that tells this experiment from others: the usual facts, then every other departure."""
        named = {"stochastic_layers", "objective", "n_samples", "preset"}
        preset = PRESETS.get(self.preset, {})
        same = dict(epochs=self.epochs, stochastic_layers=self.stochastic_layers, n_samples=self.n_samples)
        usual = Config(**same | preset)._complete()
        usual = usual.experiment() | {"epochs": preset.get("epochs", Config.epochs)}
        parts = [f"{self.stochastic_layers}L", self.objective, f"k{self.n_samples}", self.preset]
        for key, value in self.experiment().items():
            if key not in named and value is not None and value != usual[key]:
                parts.append(key + ("-".join(map(str, value)) if isinstance(value, tuple) else str(value)))
        return "_".join(filter(None, parts))

    def experiment(self):
        """The settings that make the result what it is: what is saved, and what a resumed run must share."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in SESSION}

    def beginning(self):
        """The settings that decide the first passes. With one sample the bounds of VAE and IWAE are the same."""
        k, through = self.first_samples, self.backward_samples
        one = k == 1 and self.objective in ("iwae_elbo", "iwae_eq14", "vae_elbo")
        same = {"n_samples": k, "backward_samples": through if k > (through or k) else None}
        return self.experiment() | same | {"objective": "vae_elbo" if one else self.objective}


SESSION = {field.name for field in dataclasses.fields(Config) if field.metadata["session"]}

PRESETS = {
    # Every cell of the published tables at a tenth of the passes; chosen on held-out images (results/recipe).
    "fast": dict(
        epochs=328,
        optimizer="soap",
        batch_size=100,
        learning_rate=3e-3,
        schedule="cosine",
        rate_warmup=1.0,
        beta_warmup=10.0,
        grow_samples=0.67,
        ema=0.999,
    ),
    # The README's first run: about three minutes on two CPU cores, evaluation included.
    "quick": dict(epochs=20, batch_size=100, learning_rate=2e-3, schedule="cosine", ema=0.99, eval_images=1000),
}


def _check_value(field, value):
    """Raises UsageError where a value lies outside what its flag allows."""
    rules = field.metadata
    for one in value if isinstance(value, tuple) else () if value is None else (value,):
        if "choices" in rules and one not in rules["choices"]:
            allowed = "one of " + ", ".join(map(str, rules["choices"]))
        elif "minimum" in rules and not rules["minimum"] <= one < float("inf"):
            allowed = f"at least {rules['minimum']}"
        elif "above" in rules and not rules["above"] < one < float("inf"):
            allowed = f"more than {rules['above']}, and finite"
        elif "below" in rules and not one < rules["below"]:
            allowed = f"less than {rules['below']}"
        else:
            continue
        raise UsageError(f"--{field.name}: {one} is not allowed; {allowed}")


def _text(value):
    return " ".join(map(str, value)) if isinstance(value, tuple) else value


def load_experiment(path, flag="run_dir"):
    """The settings saved in a run's config.json, as keywords of Config. Raises UsageError, which names `flag`; unknown
    keys are refused.
    """
    try:
        saved = json.loads(pathlib.Path(path).read_text())["experiment"]
    except FileNotFoundError:
        raise UsageError(f"--{flag}: no run in {pathlib.Path(path).parent} (it has no config.json)") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--{flag}: {path} cannot be read ({type(error).__name__}: {error})") from None
    if unknown := sorted(set(saved) - set(Config().experiment())):
        raise UsageError(f"--{flag}: {path} has settings this version does not know: {', '.join(unknown)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}


class _Parser(argparse.ArgumentParser):
    """argparse with its errors on one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}\n")


def _parser(description, settings=None):
    """A flag per setting, or for those named only. The parsed result holds only what was given."""
    parser = _Parser(
        description=description,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28, width=100),
    )
    fields = [field for field in dataclasses.fields(Config) if settings is None or field.name in settings]
    groups = {field.metadata["session"]: None for field in fields}
    for session in groups:
        groups[session] = parser.add_argument_group("this call" if session else "the experiment")
    for field in fields:
        rules, help = field.metadata, field.metadata["help"]
        choices = rules.get("choices") or (tuple(PRESETS) if field.name == "preset" else None)
        metavar = "{" + ",".join(map(str, choices)) + "}" if choices else rules["type"].__name__.upper()
        help += f" ({field.default})" if field.default is not None else ""
        groups[rules["session"]].add_argument(
            f"--{field.name}", type=rules["type"], nargs=rules.get("nargs"), metavar=metavar, help=help
        )
    return parser, groups[True]


def parse_flags(argv=None, description=None, defaults=None, fixed=()):
    """Command line -> (Config, resume, eval_only). Raises UsageError, or exits with code 2 and one line.

    defaults: a task's own settings; a preset's and then the flags given override them, but for the settings named in
    `fixed`, which the task is about.
    With --resume and --eval_only the experiment is the one saved in the run's folder, and a flag that contradicts it
    is an error. Without --run_dir the folder is the one that the given flags name.
    """
    parser, group = _parser(description)
    group.add_argument("--resume", action="store_true", help="go on with the run in the run's folder")
    group.add_argument("--eval_only", action="store_true", help="measure the run's saved weights again")
    given = vars(parser.parse_args(argv))
    resume, eval_only = given.pop("resume", False), given.pop("eval_only", False)
    if resume and eval_only:
        raise UsageError("--eval_only: not together with --resume")
    if (resume or eval_only) and "start_from" in given:
        raise UsageError("--start_from: for a new run only, without --resume and --eval_only")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    preset = given.get("preset", (defaults or {}).get("preset"))
    if preset is not None and preset not in PRESETS:
        raise UsageError(f"--preset: {preset} is not allowed; one of {', '.join(PRESETS)}")
    config = Config(**{**(defaults or {}), **PRESETS.get(preset, {}), **given}).resolved()
    for name in fixed:
        if (value := getattr(config, name)) != (needed := getattr(Config(**defaults)._complete(), name)):
            raise UsageError(f"--{name}: {_text(value)} is not allowed; here it is {_text(needed)}")
    if not (resume or eval_only):
        return config, resume, eval_only
    saved = load_experiment(pathlib.Path(config.run_dir) / "config.json")
    held = Config(**saved).resolved()
    for name in sorted(given.keys() - SESSION):
        if getattr(config, name) != getattr(held, name):
            raise UsageError(f"--{name}: {getattr(config, name)}, but {config.run_dir} holds {getattr(held, name)}")
    session = {name: value for name, value in PRESETS.get(saved.get("preset"), {}).items() if name in SESSION}
    session |= {name: value for name, value in given.items() if name in SESSION}
    return Config(**saved, **session | {"run_dir": config.run_dir}).resolved(), resume, eval_only


def parse_session_flags(argv=None, description=None, **flags):
    """Command line of a program that looks at finished runs -> (Config of session settings, {its own flag: value}).

    flags: name -> help, of switches of its own. Raises UsageError, or exits with code 2 and one line.
    """
    parser, group = _parser(description, SESSION - {"run_dir", "start_from"})
    for name, help in flags.items():
        group.add_argument(f"--{name}", action="store_true", help=help)
    given = vars(parser.parse_args(argv))
    own = {name: given.pop(name, False) for name in flags}
    return Config(**given).resolved(), own
