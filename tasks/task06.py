"""Active units (Burda et al., sec. 5.2): how much of its latent space does a model use?

For every trained model in results/ of one data set: the activity A_u = Cov_x(E_q(u|x)[u]) of its units, how many are
active, and whether the others can be taken away. In pictures: the activities, and the number of active units while
training.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # it can be run from anywhere

import numpy as np

from data import own
from data.catalogue import DATASETS
from experiment import run_folder, survey
from experiment.cells import Result, cell_of, grouped
from experiment.settings import Config
from utils import ProgressBar, UsageError, write_csv

FOLDER = "task06"
IMAGES = 1000  # test images on which a model with and without its inactive units is measured, unless --eval_images
# From memory.
PAPER = {  # Burda et al., Table 1, of models of their sizes: (objective, layers, k) -> active units in z1 and z2
    ("vae_elbo", 1, 5): "20", ("vae_elbo", 1, 50): "20",
    ("iwae_elbo", 1, 1): "19", ("iwae_elbo", 1, 5): "22", ("iwae_elbo", 1, 50): "25",
    ("vae_elbo", 2, 5): "17+5", ("vae_elbo", 2, 50): "17+5",
    ("iwae_elbo", 2, 1): "16+5", ("iwae_elbo", 2, 5): "21+5", ("iwae_elbo", 2, 50): "26+7",
}  # fmt: skip


def of_paper(config):
    """The paper's number of active units where it has such a model (its 1-layer ones have 50 units), to go by."""
    cell = cell_of(config)
    return PAPER.get(cell[:3], "") if cell and cell[3] == "no" else ""


def drawn(configs):
    """The runs in the pictures: another recipe or seed of a run in the README's tables is in active_units.csv alone.

    configs: run -> Config. Returns names, grouped: {layers and conditional, as a title: [name by objective and k]}.
    """
    runs = grouped([Result(name, config, None, None) for name, config in configs.items()])
    in_tables, groups = {cell: seeds[0].folder for cell, seeds in runs.items()}, {}
    for name, config in sorted(configs.items(), key=lambda item: (item[1].objective, item[1].n_samples)):
        cell = cell_of(config)
        if cell is None or in_tables.get(cell, name) == name:
            groups.setdefault((config.stochastic_layers, ", conditional" * config.is_conditional), []).append(name)
    return {
        f"{layers} stochastic layer{'s' * (layers > 1)}{rest}": groups[layers, rest] for layers, rest in sorted(groups)
    }


def without_inactive_units(session, activities, n_images):
    """log p(x) with all the units and with the active ones alone, on the same images; nats. The latter is None where a
    layer has no active unit, for without it there is no such model, and where the model cannot do it.
    """
    from evaluation import ACTIVE, make_log_likelihood, without_units

    config = session.config
    x, y = session.test_data(n_images)
    keep, jit = [units > ACTIVE for units in activities], config.compiled

    def log_px(model):
        return make_log_likelihood(model, config.eval_samples, jit)(x, y, config.seed)[0].test_llh

    whole = log_px(session.model)
    if not all(units.any() for units in keep):
        return whole, None
    try:
        return whole, log_px(without_units(session.model, keep, *session.test_data(), jit))
    except NotImplementedError:
        return whole, None


def folder_for(dataset):
    """Where the table and the pictures go: a folder of its own for each data set but the usual one."""
    if dataset == Config.dataset:
        return run_folder.RESULTS / FOLDER
    return run_folder.RESULTS / FOLDER / (dataset if dataset in DATASETS else own.name_of(dataset))


def work(settings, sessions):
    """The table and the pictures, in results/task06; those of other data sets than the tables' below that, by name."""
    from evaluation import ACTIVE, make_activity
    from plots.tasks import activity_histograms, units_while_training

    rows, activities, configs, runs = [], {}, {}, {}
    bar = ProgressBar(len(sessions), "model", "active units")
    for number, (name, session) in enumerate(sessions, 1):
        config = session.config
        units = activities[name] = make_activity(session.model, jit=config.compiled)(*session.test_data(), config.seed)
        configs[name], runs[name] = config, session.run
        active = "+".join(str(int(np.sum(layer > ACTIVE))) for layer in units)
        whole, reduced = without_inactive_units(session, units, settings.eval_images or IMAGES)
        lost = "" if reduced is None else f"; without the others {reduced - whole:+.3f} nats"
        rows.append({
            "run": name, "active": active, "units": "+".join(map(str, config.n_latent)),
            "paper": of_paper(config),
            "log_px": whole, "log_px_active_alone": "" if reduced is None else reduced,
        })  # fmt: skip
        bar.update(number, sum(map(int, active.split("+"))))
        print(f"{name}: {active} active of {rows[-1]['units']}{lost}")
    if not rows:
        raise UsageError("no model in results/ can be opened")
    folder = folder_for(settings.dataset)
    write_csv(folder / "active_units.csv", rows)
    groups = drawn(configs)
    shown = {name: activities[name] for names in groups.values() for name in names}
    activity_histograms(shown, ACTIVE, folder / "activity.png")
    written = ["active_units.csv", "activity.png"]
    logged = {
        title: {name: runs[name] for name in names if runs[name].metrics.exists()} for title, names in groups.items()
    }
    if logged := {title: group for title, group in logged.items() if group}:
        units_while_training(logged, folder / "while_training.png")
        written.append("while_training.png")
    print(f"{', '.join(written)} are in {folder}")


if __name__ == "__main__":
    sys.exit(survey(work, __doc__, same=("dataset",)))
