"""Rebuilds the tables of README.md, results/README.md and tasks/README.md, and results/comparison.png, from
results/*/*/test_llh.json.

With --measure it first measures every trained model in results/ again, from its weights and with its own seed, and says
by how much each differs from its record. With --commands it only prints the commands that fill what README's table
lacks, a line for each cell and seed.
"""

import dataclasses
import statistics
import sys

from experiment import run_folder, survey
from experiment.cells import (
    ESTIMATORS,
    GROWTH,
    KS,
    PAPER,
    REFERENCE,
    SECTIONS,
    cell_of,
    configs_of_cells,
    finished,
    first_seeds,
    follows,
    means,
    measured_folders,
    read_result,
)
from experiment.commands import commands_for
from experiment.run_folder import ROOT, load_config
from utils import whole_file

README, TASKS = ROOT / "README.md", ROOT / "tasks" / "README.md"


def with_vae_at_one(values):
    """Cells -> numbers, with those of IWAE at k = 1, where the two bounds are one, as the VAE's too."""
    at_one = {cell: value for cell, value in values.items() if (cell[0], *cell[2:]) == ("iwae_elbo", 1, "no")}
    return values | {("vae_elbo", *cell[1:]): value for cell, value in at_one.items()}


def _row(label, result, reference, paper):
    published = [f"{number:.2f}" if number else "" for number in (reference, paper)]
    if result is None:
        return "| " + " | ".join([label, "not measured yet", *published, "", "", "", "", ""]) + " |"
    llh, hours = result.llh, result.training["seconds"] / 3600
    value = llh["test_llh"]
    cells = [
        label,
        f"**{value:.2f}** ± {llh['standard_error']:.2f}",
        *published,
        f"{value - reference:+.2f}" if reference else "",
        "+".join(map(str, llh["active_units"])),
        f"{result.training['epochs']:,}",
        f"{hours:.1f}",
        f"[{result.folder}]({result.folder})",
    ]
    return "| " + " | ".join(cells) + " |"


HEADER = """| {} | this project | reference | paper | to the reference | active units | epochs | hours | run |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def _section(title, rows):
    return [f"{title}:", "", HEADER.format("k"), *rows, ""]


def tables(results):
    """The tables of results/README.md, a model each, as Markdown. results: [Result]."""
    lines = []
    fast, paper = first_seeds(results, "fast"), first_seeds(results, "paper")
    for title, (objective, layers, conditional) in SECTIONS.items():
        cells = [(objective, layers, k, conditional) for k in KS]
        shown = [(cell, fast.get(cell)) for cell in cells]
        shown = [(cell, result) for cell, result in shown if result or cell in REFERENCE]
        rows = [_row(str(cell[2]), result, REFERENCE.get(cell), PAPER.get(cell)) for cell, result in shown]
        lines += _section(title, rows) if rows else []
    shown = [(cell, result) for cell, result in sorted(paper.items(), key=str) if cell]
    rows = [_row(str(cell[2]), result, REFERENCE.get(cell), PAPER.get(cell)) for cell, result in shown]
    lines += _section("The paper's own schedule, IWAE, 1 stochastic layer", rows) if rows else []
    lines += _seeds(results)
    return "\n".join(lines).strip()


def summary(results):
    """README's table as Markdown: a row a model, a column a k; this project's means over seeds in bold."""
    ours, reference, paper = (with_vae_at_one(v) for v in (means(results, "fast"), REFERENCE, PAPER))
    header = "| test log likelihood, nats | " + " | ".join(f"k = {k}" for k in KS) + " |"
    lines = [header, "| --- |" + " --- |" * len(KS)]
    for title, (objective, layers, conditional) in SECTIONS.items():
        row = [title]
        for cell in ((objective, layers, k, conditional) for k in KS):
            value = f"**{ours[cell]:.2f}**" if cell in ours else "not measured yet"
            published = [f"{numbers[cell]:.2f}" for numbers in (reference, paper) if cell in numbers]
            row.append(f"{value} ({', '.join(published)})" if published else value)
        lines.append("| " + " | ".join(row) + " |")
    met = sum(ours[cell] >= value for cell, value in REFERENCE.items() if cell in ours)
    return "\n".join([
        *lines, "",
        "Bold: this project, the mean over seeds. In brackets: the reference (the TensorFlow 2 implementation that this"
        f" project\nsucceeds), then the paper. {met} of the reference's {len(REFERENCE)} values are met.",
    ])  # fmt: skip


def estimators(results):
    """The table of tasks/README.md: a row an estimator, one layer; the mean over seeds, with a link to the first."""
    runs = {}
    for result in sorted(results, key=lambda result: result.config.seed):
        cell = cell_of(dataclasses.replace(result.config, hyperparameters={}))
        if cell and (cell[1], cell[3]) == (1, "no") and follows(result.config, "fast", GROWTH):
            key = (result.config.objective, str(result.config.hyperparameters), result.config.n_samples)
            runs.setdefault(key, []).append(result)
    lines = ["| test log likelihood, nats | k = 50 | k = 64 | published, k = 64 |", "| --- | --- | --- | --- |"]
    for name, objective, hyperparameters, published in ESTIMATORS:
        cells = []
        for k in (50, 64):
            found = runs.get((objective, str(hyperparameters), k))
            mean = statistics.mean(run.llh["test_llh"] for run in found) if found else None
            unmeasured = "" if k % hyperparameters.get("groups", 1) else "not measured yet"
            cells.append(f"[{mean:.2f}](../results/{found[0].folder})" if found else unmeasured)
        lines.append("| " + " | ".join([name, *cells, published]) + " |")
    return "\n".join(lines)


def every_run(folders):
    """results/README.md's list of runs as Markdown: a line for each measured run among the folders."""
    lines = [
        "| run | test log likelihood | Monte Carlo error | Pareto k | samples | images | active units | epochs"
        " | hours |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, _, llh, training in (read_result(folder) for folder in sorted(folders)):
        lines.append(
            f"| [{name}]({name}) | {llh['test_llh']:.2f} ± {llh['standard_error']:.2f} | {llh['mc_error']:.3f}"
            f" | {_pareto_k(llh)} | {llh['n_samples']} | {llh['n_images']} | {'+'.join(map(str, llh['active_units']))}"
            f" | {training['epochs']:,} | {training['seconds'] / 3600:.1f} |"
        )
    return "\n".join(lines)


def _pareto_k(llh):
    if llh.get("pareto_k") is None:
        return ""
    return f"{llh['pareto_k']:.2f} ({llh['pareto_k_high']:.0%})"


def _seeds(results):
    """What several seeds say of the same cell: a line each."""
    cells = {}
    for result in results:
        if follows(result.config, "fast"):
            cells.setdefault(cell_of(result.config), []).append(result)
    lines = []
    for (objective, layers, k, conditional), runs in sorted((c for c in cells.items() if c[0]), key=str):
        if len(runs) < 2:
            continue
        values = [result.llh["test_llh"] for result in runs]
        links = ", ".join(f"[{value:.2f}]({r.folder})" for value, r in zip(values, runs, strict=True))
        model = f"`{objective}`, {layers} layer{'s' * (layers > 1)}" + f", {conditional}" * (conditional != "no")
        lines.append(
            f"* {len(values)} seeds of {model}, k={k}: {links}; mean {statistics.mean(values):.2f},"
            f" standard deviation between seeds {statistics.stdev(values):.2f} nats."
        )
    return [*lines, ""] if lines else []


def recipe_runs():
    """The runs compared with the fast preset, tested on held-out images: [(folder, Result)], best first for each k."""
    runs = []
    for folder in sorted((run_folder.RESULTS / "recipe").glob("*/test_llh.json")):
        runs.append((folder.parent, read_result(folder.parent)._replace(folder=folder.parent.name)))
    return sorted(runs, key=lambda run: (run[1].config.n_samples, -run[1].llh["test_llh"]))


def recipe_table(runs):
    """Markdown: what was compared on held-out images."""
    lines = [
        "Chosen between, for `--preset fast`, on the last 10,000 training images, held out:",
        "",
        "| run | k | optimizer | batch | learning rate | epochs | log p(x), held out | active units | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for _, (name, config, llh, training) in runs:
        rate = "the paper's" if config.schedule == "paper" else f"{config.learning_rate:g}, {config.schedule}"
        first, k = config.samples_at(0), config.n_samples
        k = k if first == k else f"{first}, then {k}"
        lines.append(
            f"| {name} | {k} | {config.optimizer} | {config.batch_size} | {rate} | {training['epochs']}"
            f" | {llh['test_llh']:.2f} (k={llh['n_samples']}, {llh['n_images']} images)"
            f" | {'+'.join(map(str, llh['active_units']))} | {training['seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _measured(result):
    llh = result.llh if result else None
    return f"{llh['test_llh']:.2f} | {'+'.join(map(str, llh['active_units']))}" if llh else "not measured yet |"


def variations_table(results):
    """Markdown: cells trained with the fast preset but for some settings, beside those trained with it as it is."""
    shown = first_seeds(results, "fast")
    lines = [
        "Cells trained on all training images with settings of `--preset fast` changed (the run's name has them)",
        "beside those of the preset, measured on the test images. What led from one to the other is in the README.",
        "",
        "| run | test log likelihood | active units | with the preset | active units |",
        "| --- | --- | --- | --- | --- |",
    ]
    for result in results:
        cell = cell_of(result.config)
        if cell and result.folder.startswith("fast/") and not follows(result.config, "fast"):
            measured = [_measured(run) for run in (result, shown.get(cell))]
            lines.append(f"| [{result.folder}](../{result.folder}) | {' | '.join(measured)} |")
    return "\n".join(lines) + "\n"


def print_commands(measure, commands):
    """Prints them where they were asked for, and returns whether they were."""
    if commands:
        done = [result.config.experiment() for result in finished()]
        print("\n".join(commands_for([c for c in configs_of_cells() if c.experiment() not in done])))
    return commands


def measure_again(sessions):
    """Measures every run from its weights, with its seed, on as many images and samples as its record has."""
    for name, open_session in sessions:
        session = open_session()
        record = session.run.recorded()
        session.config = dataclasses.replace(
            session.config, eval_samples=record["n_samples"], eval_images=record["n_images"]
        )
        session.load_weights()
        value = session.measure().test_llh
        print(f"{name}: {value:.3f}, recorded {record['test_llh']:.3f}: {value - record['test_llh']:+.3f} nats")


def work(settings, sessions, measure, commands=False):
    """Writes the tables and the figure."""
    from plots.comparison import bounds_against_time, comparison

    folder = run_folder.RESULTS
    if measure:
        measure_again(sessions)
    results = finished()
    _rewrite(README, results=summary(results))
    _rewrite(folder / "README.md", results=tables(results), runs=every_run(measured_folders()))
    _rewrite(TASKS, estimators=estimators(results))
    ours = means(results, "fast")
    sources = {"this project": ours, "reference": REFERENCE, "paper": PAPER}
    sources = {name: with_vae_at_one(values) for name, values in sources.items()}
    comparison(SECTIONS, KS, sources, folder / "comparison.png")
    if runs := recipe_runs():
        with whole_file(folder / "recipe" / "comparisons.md") as temporary:
            temporary.write_text(recipe_table(runs) + "\n" + variations_table(results))
        curves = {k: {} for k in sorted({result.config.n_samples for _, result in runs})}
        for path in sorted(folder.glob("recipe/*/metrics.csv")):
            curves[load_config(path.parent).n_samples][path.parent.name] = path
        bounds_against_time(curves, folder / "recipe" / "comparisons.png")
    print(
        f"README.md, results/README.md, tasks/README.md and results/comparison.png are rebuilt from {len(results)} runs"
    )


def _rewrite(page, **parts):
    """Puts each part of a page between its marks, <!-- name --> and <!-- /name -->."""
    text = page.read_text()
    for name, part in parts.items():
        before, _, rest = text.partition(f"<!-- {name} -->")
        _, _, after = rest.partition(f"<!-- /{name} -->")
        text = f"{before}<!-- {name} -->\n{part}\n<!-- /{name} -->{after}"
    with whole_file(page) as temporary:
        temporary.write_text(text)


def part_of(page, name):
    """What stands between the marks of a part of a page."""
    _, _, rest = page.read_text().partition(f"<!-- {name} -->")
    return rest.partition(f"<!-- /{name} -->")[0].strip()


if __name__ == "__main__":
    sys.exit(survey(
        work, __doc__, first=print_commands,
        measure="measure every model in results/ again, from its weights",
        commands="print the commands that fill what README's table lacks, and end",
    ))  # fmt: skip
