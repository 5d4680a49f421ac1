"""One experiment's settings: the object that describes it, and what its values may be.

Nothing here imports TensorFlow, so a wrong value is answered at once.
"""

import dataclasses
import json
import os

from data import DataError, own
from data.catalogue import BINARISE, DATASETS
from data.catalogue import DEFAULT as DEFAULT_DATASET
from experiment.cluster import this_worker
from experiment.rules import check_value, gpus, setting
from models.catalogue import MODELS, OBJECTIVES, hyperparameters, hyperparameters_of
from training.stages import PAPER_EPOCHS
from utils import UsageError


@dataclasses.dataclass(frozen=True)
class Config:
    """Every setting of an experiment, by the names of the flags. `resolved` fills in n_hidden, n_latent,
    hyperparameters, binarise, schedule and own_data; any other None means that nothing was asked for.
    """

    preset: str = setting(
        "paper", str, "a named set of flags; flags given beside it override it. paper: its schedule; long: a fifth of"
        " its epochs; fast: a tenth; quick: minutes", "run",
    )  # fmt: skip
    run_dir: str | None = setting(None, str, "the run's folder (results/PRESET/NAME, named after the flags)", "run")
    model: str = setting("iwae", str, "the model", "model", choices=lambda: tuple(MODELS))
    stochastic_layers: int = setting(1, int, "stochastic layers of the model", "model", minimum=1)
    n_hidden: tuple | None = setting(
        None, int, "units of the two tanh layers of each block, from the image up (200, or 200 100)", "model",
        nargs="+", minimum=1,
    )  # fmt: skip
    n_latent: tuple | None = setting(
        None, int, "latent units of each stochastic layer, from the image up (100, or 100 50)", "model",
        nargs="+", minimum=1,
    )  # fmt: skip
    conditional: str = setting(
        "no", str, "p and q are given the image's label; the prior is learned for each label, or standard normal",
        "model", choices=("no", "learned_prior", "standard_prior"),
    )  # fmt: skip
    objective: str = setting("iwae_elbo", str, "what is maximised", "objective", choices=lambda: tuple(OBJECTIVES))
    n_samples: int = setting(5, int, "importance samples k while training", "objective", minimum=1)
    hyperparameters: dict | None = None  # of objective and model: a flag each, from models/catalogue.py
    backward_samples: int | None = setting(
        None, int, "back-propagate through this many of the k samples only, drawn in proportion to their weights (all)",
        "objective", minimum=1,
    )  # fmt: skip
    dataset: str = setting(
        DEFAULT_DATASET, str, "data set, or the path of an .npz or .npy file or of a folder of pictures", "data",
        choices=lambda: (*DATASETS, "PATH"), or_path=True,
    )  # fmt: skip
    own_data: dict | None = None  # of a data set that is a path: what data.own.facts found when the run began
    binarise: str | None = setting(
        None, str, "how grey pixels become 0 and 1: " + "; ".join(f"{how}, {what}" for how, what in BINARISE.items())
        + " (dynamic; none for the published sets of 0 and 1)", "data", choices=tuple(BINARISE),
    )  # fmt: skip
    data_dir: str | None = setting(None, str, "folder with the data set's files, looked in first", "call")
    held_out: int = setting(
        0, int, "hold out so many of the last training images, and test on them, to choose settings", "data",
        minimum=0,
    )  # fmt: skip
    batch_size: int = setting(20, int, "images in a batch", "optimisation", minimum=1)
    epochs: int = setting(
        -1, int, f"epochs to train; -1: the paper's schedule, {PAPER_EPOCHS:,} epochs", "optimisation", minimum=-1
    )
    optimizer: str = setting(
        "adam", str, "Adam, or SOAP: Adam in the eigenbasis of the gradients' covariances", "optimisation",
        choices=("adam", "soap"),
    )  # fmt: skip
    learning_rate: float = setting(
        1e-4, float, "with --epochs N; the paper's schedule has its own", "optimisation", above=0
    )
    schedule: str | None = setting(
        None, str, "learning rate over the run: the paper's eight stages (with --epochs -1), constant (with"
        " --epochs N), or cosine decay to a hundredth", "optimisation", choices=("paper", "constant", "cosine"),
    )  # fmt: skip
    lr_warmup: float = setting(
        0.0, float, "epochs over which the learning rate grows from 0, with --schedule cosine", "optimisation",
        minimum=0,
    )  # fmt: skip
    beta_warmup: float = setting(0.0, float, "epochs over which the KL term's weight grows from 0 to 1", "optimisation",
                                 minimum=0)  # fmt: skip
    grow_samples: float = setting(
        0.0, float, "the share of the epochs, at the beginning, that use --first_samples; the others use all samples",
        "optimisation", minimum=0, below=1,
    )  # fmt: skip
    first_samples: int = setting(1, int, "samples of the first epochs, where --n_samples is more", "optimisation",
                                 minimum=1)  # fmt: skip
    ema: float = setting(
        0.0, float, "average the weights with this decay (0.999, say) and test the average; 0: off", "optimisation",
        minimum=0, below=1,
    )  # fmt: skip
    seed: int = setting(
        0, int, "seed of the first weights and of every random number, but not of images that are drawn once",
        "optimisation", minimum=0, below=2**27,
    )  # fmt: skip
    jit: str = setting("on", str, "compile with XLA", "optimisation", choices=("on", "off"))
    eval_samples: int = setting(5000, int, "importance samples of the test log likelihood", "evaluation", minimum=1)
    eval_images: int | None = setting(
        None, int, "test images to measure, spread evenly over the test set (all)", "evaluation", minimum=1
    )
    per_image: str | None = setting(
        None, str, "CSV file to write with log p(x) and its Monte Carlo error for each test image, in nats", "call"
    )
    start_from: str | None = setting(
        None, str, "folder of a run with the same beginning (see --grow_samples), whose first epochs are copied instead"
        " of trained again", "call",
    )  # fmt: skip
    strategy: str = setting(
        "one", str, "what shares the images of each batch: one device, this machine's GPUs, or the workers that the"
        " environment variable TF_CONFIG names", "call", choices=("one", "mirrored", "multi_worker"),
    )  # fmt: skip
    gpu: tuple | None = setting(
        None, gpus, "the GPUs to use, such as 0 or 0,1; -1: the CPU (the first GPU; all with --strategy mirrored or"
        " multi_worker)", "call", minimum=-1,
    )  # fmt: skip
    threads: int = setting(0, int, "CPU threads; 0: one per core", "call", minimum=0, maximum=1024)

    def resolved(self):
        """The same settings, complete and checked. Raises UsageError."""
        for field in flag_fields():
            check_value(field.name, field.metadata, getattr(self, field.name), optional=field.default is None)
        config = self.completed()
        for name, parameter in hyperparameters_of(config.model, config.objective).items():
            rules = parameter.rules | {"type": parameter.type}
            check_value(name, rules, config.hyperparameters[name], optional=False)
        config._check_together()
        return config

    def completed(self):
        """The same settings with what `resolved` fills in, but not checked together."""
        sizes = MODELS[self.model].sizes
        if self.stochastic_layers not in sizes:
            known = ", ".join(map(str, sizes))
            raise UsageError(
                f"--stochastic_layers: {self.stochastic_layers} is not allowed; one of {known}, whose sizes are in"
                " models/catalogue.py"
            )
        n_hidden, n_latent = sizes[self.stochastic_layers]
        known = {name: one.type(one.default) for name, one in hyperparameters_of(self.model, self.objective).items()}
        given = self.hyperparameters or {}
        if not isinstance(given, dict):
            raise UsageError(f"hyperparameters: {given} is not allowed; a number for each name")
        for name in given:
            if name not in known:
                owners = " or ".join(hyperparameters()[name][1]) if name in hyperparameters() else "another version"
                raise UsageError(f"--{name}: only with {owners}, not with {self.objective} and the model {self.model}")
        own_data = self._own_data()
        return dataclasses.replace(
            self,
            own_data=own_data,
            binarise=self.binarise or (DATASETS.get(self.dataset) or own.entry_of(own_data)).binarise,
            n_hidden=self.n_hidden or n_hidden,
            n_latent=self.n_latent or n_latent,
            hyperparameters=known | given,
            first_samples=min(self.first_samples, self.n_samples),
            schedule=self.schedule or ("paper" if self.epochs == -1 else "constant"),
        )

    def _own_data(self):
        """What own_data is to be: as it was saved, or as it is found at the path. None for a data set of the table."""
        if self.dataset in DATASETS:
            return None
        try:
            return own.checked(self.own_data) if self.own_data else own.facts(self.dataset, self.data_dir)
        except DataError as error:
            raise UsageError(f"--dataset: {error}") from None

    def _check_together(self):
        """Raises UsageError where settings do not go together."""
        for name in ("n_hidden", "n_latent"):
            if len(getattr(self, name)) != self.stochastic_layers:
                raise UsageError(f"--{name}: one number per stochastic layer, {self.stochastic_layers} in all")
        self._check_devices()
        self._check_data()
        self._check_schedule()
        self._check_samples()

    def _check_devices(self):
        this_worker(self.strategy)
        given = self.gpu or ()
        text = ",".join(map(str, given))
        if len(set(given)) < len(given) or (len(given) > 1 and -1 in given):
            raise UsageError(f"--gpu: {text} is not allowed; different numbers from 0, or -1 alone for the CPU")
        if len(given) > 1 and self.strategy == "one":
            raise UsageError(f"--gpu: {text} needs --strategy mirrored or multi_worker; one uses one device")

    def _check_data(self):
        data = self.data_entry
        if self.data_dir is not None and not os.path.isdir(self.data_dir):
            raise UsageError(f"--data_dir: {self.data_dir} is not a folder")
        if self.binarise == "none" != data.binarise and not self.own_data:
            raise UsageError(f"--binarise: none is not allowed; the images of {self.dataset} are grey")
        if self.is_conditional and not data.n_labels:
            raise UsageError(f"--conditional: {self.conditional} is not allowed; {self.dataset} has no labels")
        n_train, n_test = data.n_train - self.held_out, self.n_test
        if n_train < 1:
            raise UsageError(f"--held_out: {self.held_out} leaves no images of {self.dataset} to train on")
        if self.held_out == 1:  # the figures need two
            raise UsageError("--held_out: 1 is not allowed; 0, or 2 or more images")
        for name, most in (("batch_size", n_train), ("eval_images", n_test)):
            if (getattr(self, name) or 0) > most:
                raise UsageError(f"--{name}: {getattr(self, name)} is not allowed; there are {most} images")

    def _check_schedule(self):
        if self.epochs == 0:
            raise UsageError("--epochs: 0 is not allowed; a number of epochs, or -1 for the paper's schedule")
        if (self.schedule == "paper") != (self.epochs == -1):
            raise UsageError(
                f"--schedule: {self.schedule} does not go with --epochs {self.epochs};"
                " paper goes with -1, constant and cosine with a number of epochs"
            )
        if self.lr_warmup and self.schedule != "cosine":
            raise UsageError("--lr_warmup: only with --schedule cosine")
        for name in ("lr_warmup", "beta_warmup"):
            if (value := getattr(self, name)) >= self.n_epochs:
                raise UsageError(f"--{name}: {value} is not allowed; less than the {self.n_epochs} epochs")

    def _check_samples(self):
        entry = OBJECTIVES[self.objective]
        if self.backward_samples is not None and not entry.resamples:
            allowed = " or ".join(name for name, one in OBJECTIVES.items() if one.resamples)
            raise UsageError(f"--backward_samples: only with {allowed}, not with {self.objective}")
        if (self.backward_samples or 0) > self.n_samples:
            raise UsageError(f"--backward_samples: {self.backward_samples} is not allowed; at most --n_samples")
        if self.start_from and not self.beginning_epochs:
            raise UsageError("--start_from: only with --grow_samples, whose first epochs other runs can share")
        for flag, number in (("n_samples", self.n_samples), ("first_samples", self.samples_at(0))):
            if number < entry.least_samples:
                how = ": give --first_samples, or --grow_samples 0" if flag == "first_samples" else ""
                raise UsageError(
                    f"--{flag}: {number} is not allowed; --objective {self.objective} needs at least"
                    f" {entry.least_samples} samples in every epoch{how}"
                )
            for name, parameter in entry.hyperparameters.items():
                value = self.hyperparameters[name]
                least = value if flag == "n_samples" else min(value, number)  # first samples may be fewer than groups
                if "divides" in parameter.rules and number % least:
                    raise UsageError(f"--{name}: {value} is not allowed; it must divide --{flag}, {number}")

    @property
    def data_entry(self):
        """The data.catalogue.DatasetEntry of the data. Raises UsageError where there are no such."""
        return DATASETS.get(self.dataset) or own.entry_of(self._own_data())

    @property
    def n_test(self):
        """Images to test on, held-out ones included."""
        return self.held_out or self.data_entry.n_test

    @property
    def is_conditional(self):
        """Whether the model is given the labels."""
        return self.conditional != "no"

    @property
    def n_epochs(self):
        """Epochs in all: passes over the training images."""
        return PAPER_EPOCHS if self.epochs == -1 else self.epochs

    @property
    def beginning_epochs(self):
        """Epochs at the beginning that use `first_samples`."""
        return int(round(self.grow_samples * self.n_epochs, 6))  # 0.29 of 100 are 28.999999999999996

    @property
    def compiled(self):
        """Whether XLA compiles what TensorFlow does."""
        return self.jit == "on"

    def samples_at(self, epoch):
        """Importance samples k in epoch number `epoch`, counted from 0."""
        return self.first_samples if epoch < self.beginning_epochs else self.n_samples

    def backward_with(self, n_samples):
        """How many of n_samples samples the gradient goes through; None: all."""
        return self.backward_samples if n_samples > (self.backward_samples or n_samples) else None

    def experiment(self):
        """The settings that make the trained model what it is: saved, and what a resumed run must share."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in EVALUATION | CALL}

    def beginning(self):
        """The settings that decide the first epochs. With one sample many objectives are the ELBO."""
        k = self.first_samples
        elbo = k == 1 and OBJECTIVES[self.objective].elbo_at_one
        objective = {"objective": "vae_elbo", "hyperparameters": self.numbers_of(MODELS[self.model])} if elbo else {}
        samples = {"n_samples": k, "backward_samples": self.backward_with(k)}
        return self.experiment() | samples | objective

    def numbers_of(self, entry):
        """The hyperparameters that an entry of OBJECTIVES or MODELS has: name -> value."""
        return {name: value for name, value in (self.hyperparameters or {}).items() if name in entry.hyperparameters}

    def fingerprint(self):
        """What a checkpoint is known by: the experiment's settings as text."""
        return _as_text(self.experiment())

    def beginning_fingerprint(self):
        """What a checkpoint after the first epochs is known by."""
        return _as_text(self.beginning())


def flag_fields():
    """The fields of Config that are flags of their own."""
    return [field for field in dataclasses.fields(Config) if field.metadata]


EVALUATION = {field.name for field in flag_fields() if field.metadata["group"] == "evaluation"}
CALL = {field.name for field in flag_fields() if field.metadata["group"] in ("run", "call")}


def _as_text(settings):
    """Settings as text, without those at their default, so that a setting added later changes no older text."""
    usual = dataclasses.asdict(Config().completed())
    return json.dumps({name: value for name, value in settings.items() if value != usual[name]}, sort_keys=True)
