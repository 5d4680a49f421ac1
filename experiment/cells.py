"""The cells of the published tables, and the finished runs that fill them."""

import dataclasses
import statistics
from typing import NamedTuple

from data.catalogue import DATASETS
from experiment import run_folder
from experiment.flags import config_from
from experiment.presets import PRESETS, settings_beside
from experiment.run_folder import Run, load_config
from experiment.settings import Config
from utils import UsageError, left_out

# (objective, layers, k, conditional) -> test log likelihood at k = 5000, nats
REFERENCE = {
    ("iwae_elbo", 1, 1, "no"): -86.35, ("iwae_elbo", 1, 5, "no"): -85.18, ("iwae_elbo", 1, 50, "no"): -84.59,
    ("iwae_elbo", 2, 1, "no"): -84.83, ("iwae_elbo", 2, 5, "no"): -83.48, ("iwae_elbo", 2, 50, "no"): -82.82,
    ("vae_elbo", 1, 5, "no"): -86.10, ("vae_elbo", 1, 50, "no"): -86.06,
    ("vae_elbo", 2, 5, "no"): -84.08, ("vae_elbo", 2, 50, "no"): -83.89,
    ("dreg", 1, 1, "no"): -86.08, ("dreg", 1, 5, "no"): -84.90, ("dreg", 1, 50, "no"): -84.32,
    ("iwae_elbo", 1, 1, "learned_prior"): -82.32, ("iwae_elbo", 1, 5, "learned_prior"): -81.41,
    ("iwae_elbo", 1, 50, "learned_prior"): -80.78,
}  # fmt: skip
PAPER = {
    ("iwae_elbo", 1, 1, "no"): -86.76, ("iwae_elbo", 1, 5, "no"): -85.54, ("iwae_elbo", 1, 50, "no"): -84.78,
    ("iwae_elbo", 2, 1, "no"): -85.33, ("iwae_elbo", 2, 5, "no"): -83.89, ("iwae_elbo", 2, 50, "no"): -82.90,
    ("vae_elbo", 1, 5, "no"): -86.47, ("vae_elbo", 1, 50, "no"): -86.35,
    ("vae_elbo", 2, 5, "no"): -85.01, ("vae_elbo", 2, 50, "no"): -84.78,
}  # fmt: skip
SECTIONS = {  # title -> (objective, layers, conditional) of its rows; each with every k of KS
    "IWAE, 1 stochastic layer": ("iwae_elbo", 1, "no"),
    "IWAE, 2 stochastic layers": ("iwae_elbo", 2, "no"),
    "VAE, 1 stochastic layer": ("vae_elbo", 1, "no"),
    "VAE, 2 stochastic layers": ("vae_elbo", 2, "no"),
    "DReG, 1 stochastic layer": ("dreg", 1, "no"),
    "Conditional IWAE, learned prior": ("iwae_elbo", 1, "learned_prior"),
    "Conditional IWAE, standard prior": ("iwae_elbo", 1, "standard_prior"),
}
KS = (1, 5, 50)
SEEDS = (0, 1, 2)  # of each cell of README's table
TABLE = ("long", "fast")  # presets of README's table; a cell shows the first of them that it is trained with
# (name, objective, hyperparameters, published at k = 64, with its spread over runs, by Rainforth et al., 1802.04537)
ESTIMATORS = [
    ("VAE", "vae_elbo", {}, "-86.21 ± 0.19"),
    ("IWAE", "iwae_elbo", {}, "-84.52 ± 0.02"),
    ("DReG", "dreg", {}, ""),
    ("STL", "stl", {}, ""),
    ("MIWAE, 8 groups", "miwae", {"groups": 8}, "-84.97 ± 0.10"),
    ("MIWAE, 4 groups", "miwae", {"groups": 4}, "-84.56"),
    ("MIWAE, 5 groups", "miwae", {"groups": 5}, ""),
    ("PIWAE, 8 groups", "piwae", {"groups": 8}, "-84.46 ± 0.06"),
    ("PIWAE, 5 groups", "piwae", {"groups": 5}, ""),
    ("CIWAE, 0.05 of the ELBO", "ciwae", {"elbo_weight": 0.05}, "-84.57 ± 0.09"),
    ("VR-IWAE, α = 0.5", "vr_iwae", {"alpha": 0.5}, ""),
    ("VR-IWAE, α = 0.5, DReG", "vr_iwae_dreg", {"alpha": 0.5}, ""),
    ("RWS", "rws", {}, ""),
    ("RWS, DReG", "rws_dreg", {}, ""),
    ("JVI", "jvi", {}, ""),
    ("JVI, DReG", "jvi_dreg", {}, ""),
]
# The paper's of other data sets: (data set, objective, layers, k) -> test log likelihood, nats. From memory, but
# for binarized_mnist with one layer.
PAPER_OF_SETS = {
    ("binarized_mnist", "iwae_elbo", 1, 1): -88.71, ("binarized_mnist", "vae_elbo", 1, 50): -89.05,
    ("binarized_mnist", "iwae_elbo", 1, 50): -87.10, ("binarized_mnist", "iwae_elbo", 2, 1): -88.08,
    ("binarized_mnist", "vae_elbo", 2, 50): -87.86, ("binarized_mnist", "iwae_elbo", 2, 50): -85.32,
    ("omniglot", "iwae_elbo", 1, 1): -108.11, ("omniglot", "vae_elbo", 1, 50): -107.80,
    ("omniglot", "iwae_elbo", 1, 50): -104.67, ("omniglot", "iwae_elbo", 2, 1): -107.58,
    ("omniglot", "vae_elbo", 2, 50): -106.30, ("omniglot", "iwae_elbo", 2, 50): -103.38,
}  # fmt: skip
EPOCHS_OF_SETS = {  # in place of the preset's
    "fashion_mnist": 80,  # to save time
    "caltech101_silhouettes": 80,  # more overfit so few images
}
GROWTH = ("grow_samples", "first_samples")  # RWS and JVI need several samples from the first epoch on


class Result(NamedTuple):
    """A trained and measured run."""

    folder: str  # PRESET/NAME, below results/
    config: Config
    llh: dict  # test_llh.json
    training: dict  # training.json


def results_in(folders):
    """[Result] of the runs in these folders, by name; one that cannot be read is left out, and said to be."""
    results = []
    for folder in sorted(folders):
        run, name = Run(folder, lock=False), f"{folder.parent.name}/{folder.name}"
        try:
            result = Result(name, load_config(folder), run.recorded(), run.trained())
            if result.llh is None or result.training is None:
                raise UsageError(f"{folder} has no {run.test_llh.name} and {run.training.name}")
            results.append(result)
        except UsageError as error:
            left_out(name, error)
    return results


def measured():
    """Every trained and measured run of results/, as a Result, but for the recipe's."""
    paths = (path.parent for path in run_folder.RESULTS.glob("*/*/test_llh.json"))
    return results_in(path for path in paths if path.parent.name != "recipe")


def finished(results):
    """The runs that were measured in full, with 5,000 samples on all test images."""

    def in_full(config, llh):
        return (llh["n_samples"], llh["n_images"]) == (5000, config.data_entry.n_test) and not config.held_out

    return [result for result in results if in_full(result.config, result.llh)]


def cell_of(config):
    """The cell of the published tables that an experiment fills, or None if it is another model or data set."""
    objective = "iwae_elbo" if (config.objective, config.n_samples) == ("vae_elbo", 1) else config.objective
    if config.model != Config.model or config.hyperparameters or config.held_out:
        return None
    usual = Config(stochastic_layers=config.stochastic_layers).resolved()
    names = ("dataset", "binarise", "n_hidden", "n_latent")
    if any(getattr(config, name) != getattr(usual, name) for name in names):
        return None
    return objective, config.stochastic_layers, config.n_samples, config.conditional


def cell_of_set(config):
    """(data set, objective, layers, k) of a model that is, but for its data, one of the published tables, and that has
    been trained for the epochs of the table of data sets; or None.
    """
    entry, epochs = DATASETS.get(config.dataset), EPOCHS_OF_SETS.get(config.dataset, PRESETS["fast"]["epochs"])
    if entry is None or config.binarise != entry.binarise or config.epochs != epochs:
        return None
    cell = cell_of(dataclasses.replace(config, dataset=Config.dataset, binarise=DATASETS[Config.dataset].binarise))
    return (config.dataset, *cell[:3]) if cell and cell[3] == "no" else None


def follows(config, preset, but=()):
    """Whether the settings are those of `preset` as it is today, apart from those that pick a cell or a seed and those
    that `but` names.
    """
    names = ("model", "stochastic_layers", "n_hidden", "n_latent", "conditional", "objective", "n_samples",
             "hyperparameters", "dataset", "own_data", "seed", *but)  # fmt: skip
    wanted = config_from(settings_beside(preset, {name: getattr(config, name) for name in names}))
    try:
        return config.experiment() == wanted.resolved().experiment()
    except UsageError:  # the preset does not go with this objective
        return False


def grouped(results, key=cell_of, presets=TABLE, but=()):
    """The runs of a table: key(config) -> [Result], a seed each, the first seed first.

    All runs of a key are of one preset: the first of `presets` that has a run with seed 0. Of two runs with one seed
    the one that follows the preset exactly wins, then the first folder by name: results never decide. Keys that are
    None are left out.
    """
    groups = {}
    for preset in reversed(presets):
        found = {}  # place -> {seed: Result}
        for result in sorted(results, key=lambda result: (result.config.seed, not follows(result.config, preset))):
            if (place := key(result.config)) is not None and follows(result.config, preset, but):
                found.setdefault(place, {}).setdefault(result.config.seed, result)
        groups |= {place: list(runs.values()) for place, runs in found.items() if 0 in runs}
    return groups


def means(results):
    """cell -> the mean over seeds of the test log likelihood."""
    runs = grouped(results)
    return {cell: statistics.mean(run.llh["test_llh"] for run in runs[cell]) for cell in runs}


def configs_of_cells():
    """The Config of every cell of README's table with every seed; k = 1 of the VAE is that of the IWAE."""
    for objective, layers, conditional in SECTIONS.values():
        # With two layers `fast` meets the reference, and the fifteen runs of `long` would take days.
        preset = "long" if layers == 1 else "fast"
        for k, seed in ((k, seed) for k in KS for seed in SEEDS if (objective, k) != ("vae_elbo", 1)):
            given = dict(objective=objective, stochastic_layers=layers, conditional=conditional, n_samples=k, seed=seed)
            yield config_from(settings_beside(preset, given) | {"preset": preset}).resolved()
