"""Rebuilds the tables of README.md, results/README.md and tasks/README.md, results/comparison.png, and the comparisons
in results/recipe, from the records in results/.

With --measure it first measures every trained model in results/ again, from its weights and with its own seed, and says
by how much each differs from its record. With --commands it only prints the commands that train and measure what is not
there yet: a line for each cell of README's table and each of three seeds.
"""

import dataclasses
import sys

from experiment import run_folder, survey
from experiment.cells import (
    KS,
    PAPER,
    REFERENCE,
    SECTIONS,
    cell_of,
    configs_of_cells,
    finished,
    grouped,
    means,
    measured,
    results_in,
)
from experiment.commands import commands_for
from experiment.errors import UsageError, left_out
from experiment.markdown import annealed, estimators, every_run, rewrite, sets, summary, table, tables, with_vae_at_one
from experiment.run_folder import ROOT, Run, load_config
from utils import whole_file

README, TASKS = ROOT / "README.md", ROOT / "tasks" / "README.md"


def recipe_runs():
    """The runs compared with the fast preset, tested on held-out images: [Result], best first for each k."""
    runs = results_in(path.parent for path in (run_folder.RESULTS / "recipe").glob("*/test_llh.json"))
    return sorted(runs, key=lambda run: (run.config.n_samples, -run.llh["test_llh"]))


def recipe_curves():
    """{k: {run: its metrics.csv}} of the recipe's runs, those included that were stopped and are not measured."""
    curves = {}
    for path in sorted((run_folder.RESULTS / "recipe").glob("*/metrics.csv")):
        try:
            Run(path.parent, lock=False).check_metrics()
            curves.setdefault(load_config(path.parent).n_samples, {})[path.parent.name] = path
        except UsageError as error:
            left_out(path.parent, error)
    return dict(sorted(curves.items()))


def recipe_table(runs):
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
    return results_in((run_folder.RESULTS / "recipe" / "cells").glob("*"))


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


def print_commands(measure, commands):
    """Prints them where they were asked for, and returns whether they were."""
    if commands:
        done = [result.config.experiment() for result in finished(measured())]
        for line in commands_for([config for config in configs_of_cells() if config.experiment() not in done]):
            print(line)
    return commands


def measure_again(sessions):
    """Measures every run from its weights, with its seed, on as many images and samples as its record has."""
    for name, session in sessions:
        record = session.run.recorded()
        session.config = dataclasses.replace(
            session.config, eval_samples=record["n_samples"], eval_images=record["n_images"]
        )
        try:
            value = session.measure().test_llh
        except UsageError as error:  # no number
            left_out(name, error)
            continue
        print(f"{name}: {value:.3f}, recorded {record['test_llh']:.3f}: {value - record['test_llh']:+.3f} nats")


def work(settings, sessions, measure, commands=False):
    """Writes the tables and the figure."""
    from plots.comparison import bounds_against_time, comparison

    folder = run_folder.RESULTS
    if measure:
        measure_again(sessions)
    every = measured()
    results = finished(every)
    rewrite(README, results=summary(results))
    rewrite(
        folder / "README.md",
        results=tables(results),
        runs=every_run(every),
        annealed=annealed(every),
        sets=sets(results),
    )
    rewrite(TASKS, estimators=estimators(results))
    sources = {"this project": means(results), "reference": REFERENCE, "paper": PAPER}
    sources = {name: with_vae_at_one(values) for name, values in sources.items()}
    comparison(SECTIONS, KS, sources, folder / "comparison.png")
    if runs := recipe_runs():
        with whole_file(folder / "recipe" / "comparisons.md") as temporary:
            temporary.write_text(recipe_table(runs) + "\n" + variations_table(variations(), results))
        bounds_against_time(recipe_curves(), folder / "recipe" / "comparisons.png")
    print(
        f"tables of README.md, results/, results/recipe/ and tasks/, and figures, are rebuilt from {len(results)} runs"
    )


if __name__ == "__main__":
    sys.exit(survey(
        work, __doc__, first=print_commands, evaluation=False,
        measure="measure every model in results/ again, from its weights",
        commands="print the commands for each cell and seed of README's table that is not there yet, and end",
    ))  # fmt: skip
