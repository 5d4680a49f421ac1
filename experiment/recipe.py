"""The runs in results/recipe, which the presets were chosen with, and their tables as Markdown."""

import statistics

from experiment import run_folder
from experiment.cells import cell_of, grouped, results_in
from experiment.flags import as_words
from experiment.markdown import table
from experiment.presets import PRESETS
from experiment.run_folder import Run, load_config
from utils import UsageError, left_out


def _folders(pattern):
    return (run_folder.RESULTS / "recipe").glob(pattern)


def compared():
    """The runs compared with the fast preset, tested on held-out images: [Result], best first for each k."""
    runs = results_in(path.parent for path in _folders("*/test_llh.json"))
    return sorted(runs, key=lambda run: (run.config.n_samples, -run.llh["test_llh"]))


def curves():
    """{k: {run: its metrics.csv}} of the recipe's runs, those included that were stopped and are not measured."""
    found = {}
    for path in sorted(_folders("*/metrics.csv")):
        try:
            Run(path.parent, lock=False).check_metrics()
            found.setdefault(load_config(path.parent).n_samples, {})[path.parent.name] = path
        except UsageError as error:
            left_out(path.parent, error)
    return dict(sorted(found.items()))


def compared_table(runs):
    """Markdown: what was compared on held-out images."""
    names = ("run", "k", "optimizer", "batch", "learning rate", "KL warm-up", "epochs", "log p(x), held out",
             "active units", "seconds")  # fmt: skip
    rows = []
    for name, config, llh, training in runs:
        rate = "the paper's" if config.schedule == "paper" else f"{config.learning_rate:g}, {config.schedule}"
        first, k = config.samples_at(0), config.n_samples
        rows.append([
            name.split("/")[1], f"{k}" if first == k else f"{first} for {config.grow_samples:.0%}, then {k}",
            config.optimizer, str(config.batch_size), rate, f"{config.beta_warmup:g}", str(training["epochs"]),
            f"{llh['test_llh']:.2f} (k={llh['n_samples']}, {llh['n_images']} images)",
            "+".join(map(str, llh["active_units"])), f"{training['seconds']:.0f}",
        ])  # fmt: skip
    title = "Runs compared for `--preset fast` and `long`, on the last 10,000 training images, held out:"
    return f"{title}\n\n{table(names, rows)}\n"


def _shown(result):
    llh = result.llh if result else None
    return [f"{llh['test_llh']:.2f}", "+".join(map(str, llh["active_units"]))] if llh else ["not measured yet", ""]


def variations():
    """The cells trained with the recipe before `fast`, kept without weights."""
    return results_in(_folders("cells/*"))


def variations_table(variations, results):
    """Markdown: cells trained with other settings, beside those trained with the fast preset."""
    shown = {cell: runs[0] for cell, runs in grouped(results, presets=("fast",)).items()}
    names = "run", "test log likelihood", "active units", "with the preset", "active units"
    rows = [
        [f"[{one.folder.split('/')[1]}]({one.folder})", *_shown(one), *_shown(shown.get(cell_of(one.config)))]
        for one in variations
    ]
    return (
        "Cells trained on all training images with an earlier recipe (the run's name has what differs), beside those\n"
        "of the present `--preset fast`, on the test images. [What led from one to the other](README.md).\n\n"
        f"{table(names, rows)}\n"
    )


def elements():
    """The runs in which one element of the fast preset is changed, and the preset as it is: [Result]."""
    return results_in(_folders("elements/*"))


def elements_table(runs):
    """Markdown: what each element of the fast preset is worth, held out; "" where there is nothing to compare."""
    changed = {}  # {what is changed: {seed: log p(x)}}
    usual = PRESETS["fast"]
    for one in runs:
        now = one.config.experiment()
        what = ", ".join(f"{name} {as_words(now[name])}" for name, value in usual.items() if now[name] != value)
        changed.setdefault(what, {})[one.config.seed] = one.llh["test_llh"]
    as_it_is = changed.pop("", None)
    if not (as_it_is and changed):
        return ""
    seeds = sorted(as_it_is)

    def row(name, values, gains):
        shown = [f"{values[seed]:.2f}" if seed in values else "" for seed in seeds]
        return [name, *shown, f"{statistics.mean(gains):+.2f}" if gains else ""]

    rows = [row("as it is", as_it_is, [])]
    for what, values in changed.items():
        rows.append(row(what, values, [as_it_is[seed] - values[seed] for seed in seeds if seed in values]))
    names = ["`--preset fast`, k = 1", *(f"seed {seed}" for seed in seeds), "the preset's lead"]
    return (
        f"What each element of `--preset fast` is worth: log p(x) of held-out images, nats.\n\n{table(names, rows)}\n"
    )


def comparisons(results):
    """The page results/recipe/comparisons.md, or "" where no runs were compared. results: [Result] of the tables."""
    if not (runs := compared()):
        return ""
    parts = compared_table(runs), elements_table(elements()), variations_table(variations(), results)
    return "\n".join(filter(None, parts))
