"""Rebuilds the tables of README.md, results/README.md and tasks/README.md, results/comparison.png, and the comparisons
in results/recipe, from the records in results/.

With --measure it first measures every trained model in results/ again, from its weights and with its own seed, and says
by how much each differs from its record. With --commands it only prints the commands that train and measure what is not
there yet: a line for each cell of README's table and each of three seeds.
"""

import dataclasses
import sys

from experiment import recipe, run_folder, survey
from experiment.cells import (
    KS,
    PAPER,
    REFERENCE,
    SECTIONS,
    configs_of_cells,
    finished,
    means,
    measured,
)
from experiment.commands import commands_for
from experiment.markdown import annealed, estimators, every_run, rewrite, sets, summary, tables, with_vae_at_one
from experiment.run_folder import ROOT
from utils import UsageError, left_out, whole_file

README, TASKS = ROOT / "README.md", ROOT / "tasks" / "README.md"


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
    if page := recipe.comparisons(results):
        with whole_file(folder / "recipe" / "comparisons.md") as temporary:
            temporary.write_text(page)
        bounds_against_time(recipe.curves(), folder / "recipe" / "comparisons.png")
    print(
        f"tables of README.md, results/, results/recipe/ and tasks/, and figures, are rebuilt from {len(results)} runs"
    )


if __name__ == "__main__":
    sys.exit(survey(
        work, __doc__, first=print_commands, evaluation=False,
        measure="measure every model in results/ again, from its weights",
        commands="print the commands for each cell and seed of README's table that is not there yet, and end",
    ))  # fmt: skip
