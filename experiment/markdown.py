"""The tables of README.md, results/README.md and tasks/README.md as Markdown, from runs' results."""

import dataclasses
import math
import statistics

from data import own
from data.catalogue import DATASETS
from experiment import run_folder
from experiment.cells import (
    EPOCHS_OF_SETS,
    ESTIMATORS,
    GROWTH,
    KS,
    PAPER,
    PAPER_OF_SETS,
    REFERENCE,
    SECTIONS,
    TABLE,
    cell_of,
    cell_of_set,
    follows,
    grouped,
    means,
)
from experiment.presets import PRESETS
from experiment.run_folder import Run
from experiment.settings import Config
from utils import UsageError, left_out, read_csv, whole_file

SEEDS_DIFFER = 0.2  # nats: a smaller lead may be the seed's (results/README.md, "What the tables say")


def table(header, rows):
    """A table as Markdown. header: [text]; rows: [[text]]."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *rows))


def with_vae_at_one(values):
    """Cells -> numbers, with those of IWAE at k = 1, where the two bounds are one, as the VAE's too."""
    at_one = {cell: value for cell, value in values.items() if (cell[0], *cell[2:]) == ("iwae_elbo", 1, "no")}
    return values | {("vae_elbo", *cell[1:]): value for cell, value in at_one.items()}


def _row(runs, cell):
    label, reference, paper = str(cell[2]), REFERENCE.get(cell), PAPER.get(cell)
    published = [f"{number:.2f}" if number else "" for number in (reference, paper)]
    if runs is None:
        return [label, "not measured yet", *published, "", "", "", "", ""]
    result = runs[0]
    llh, hours = result.llh, result.training["seconds"] / 3600
    value = llh["test_llh"]
    return [
        label,
        f"**{value:.2f}** ± {llh['standard_error']:.2f}",
        *published,
        f"{value - reference:+.2f}" if reference else "",
        "+".join(map(str, llh["active_units"])),
        f"{result.training['epochs']:,}",
        f"{hours:.1f}",
        f"[{result.folder}]({result.folder})",
    ]


def _section(title, rows):
    names = "k", "this project", "reference", "paper", "to the reference", "active units", "epochs", "hours", "run"
    return [f"{title}:", "", table(names, rows), ""]


def tables(results):
    """The tables of results/README.md, a model each, as Markdown. results: [Result]."""
    lines, of_paper = [], []
    ours, paper = grouped(results), grouped(results, presets=("paper",))
    for title, (objective, layers, conditional) in SECTIONS.items():
        cells = [(objective, layers, k, conditional) for k in KS]
        rows = [_row(ours.get(cell), cell) for cell in cells if cell in ours or cell in REFERENCE]
        lines += _section(title, rows) if rows else []
        rows = [_row(paper[cell], cell) for cell in cells if cell in paper]
        of_paper += _section(f"The paper's own schedule, {title}", rows) if rows else []
    lines += [*of_paper, *_seeds(results)]
    return "\n".join(lines).strip()


def summary(results):
    """README's table as Markdown: this project's means over seeds in bold."""
    ours, reference, paper = (with_vae_at_one(v) for v in (means(results), REFERENCE, PAPER))
    runs = with_vae_at_one(grouped(results))
    marks = {cell: "†" * follows(of[0].config, TABLE[0]) + "‡" * (len(of) > 1) for cell, of in runs.items()}
    rows = []
    for title, (objective, layers, conditional) in SECTIONS.items():
        row = [title]
        for cell in ((objective, layers, k, conditional) for k in KS):
            value = f"**{ours[cell]:.2f}**" if cell in ours else "not measured yet"
            value += marks.get(cell, "")
            published = [f"{numbers[cell]:.2f}" for numbers in (reference, paper) if cell in numbers]
            row.append(f"{value} ({', '.join(published)})" if published else value)
        rows.append(row)
    above = [ours[cell] - value for cell, value in REFERENCE.items() if cell in ours]
    met, below = [gap for gap in above if gap >= 0], [-gap for gap in above if gap < 0]
    close = sum(gap < SEEDS_DIFFER for gap in met)
    narrowly = f", {close} of them by less than {SEEDS_DIFFER} nats (two seeds may differ by that)" if close else ""
    by = " to ".join(f"{value:.2f}" for value in sorted({min(below), max(below)})) if below else ""
    others = f", {len(below)} missed by {by} nats" if below else ""
    epochs = [PRESETS[name]["epochs"] for name in TABLE]
    return "\n".join([
        table(["test log likelihood, nats", *(f"k = {k}" for k in KS)], rows), "",
        "Bold: this project. In brackets: the reference ([nbip/IWAE](https://github.com/nbip/IWAE), in TensorFlow 2),"
        " then the paper.\nConditional: log p(x given y)."
        f" {len(met)} of the reference's {len(REFERENCE)} values are met (reached or exceeded){narrowly}{others}.",
        f"† {epochs[0]} epochs, all others {epochs[1]}: compare cells of equal epochs only."
        " ‡ Mean over several seeds, all others one seed.",
    ])  # fmt: skip


def estimators(results):
    """The table of tasks/README.md: one layer, the mean over seeds, with a link to the first.

    All of one preset: where a longer one has trained some of them, their lead would be the preset's.
    """

    def key(config):
        cell = cell_of(dataclasses.replace(config, hyperparameters={}))
        alike = cell and (cell[1], cell[3]) == (1, "no")
        return (config.objective, str(config.hyperparameters), config.n_samples) if alike else None

    runs = grouped(results, key, presets=("fast",), but=GROWTH)
    rows = []
    for name, objective, hyperparameters, published in ESTIMATORS:
        cells = []
        for k in (50, 64):
            found = runs.get((objective, str(hyperparameters), k))
            mean = statistics.mean(run.llh["test_llh"] for run in found) if found else None
            unmeasured = "" if k % hyperparameters.get("groups", 1) else "not measured yet"
            cells.append(f"[{mean:.2f}](../results/{found[0].folder})" if found else unmeasured)
        rows.append([name, *cells, published])
    return table(["test log likelihood, nats", "k = 50", "k = 64", "published, k = 64"], rows)


def sets(results):
    """results/README.md's table of all data sets as Markdown: a row for each and each number of layers."""
    columns = {"IWAE and VAE, k = 1": ("iwae_elbo", 1), "VAE, k = 50": ("vae_elbo", 50),
               "IWAE, k = 50": ("iwae_elbo", 50)}  # fmt: skip
    runs = grouped(results, cell_of_set, presets=("fast",), but=("epochs",))
    rows = []
    for name, layers in ((name, layers) for name in DATASETS for layers in (1, 2)):
        cells = []
        for objective, k in columns.values():
            found, paper = (of.get((name, objective, layers, k)) for of in (runs, PAPER_OF_SETS))
            mean = found and statistics.mean(run.llh["test_llh"] for run in found)
            value = f"[{mean:.2f}]({found[0].folder})" if found else "not measured yet"
            cells.append(value + (f" ({paper:.2f})" if paper else ""))
        epochs = f", {EPOCHS_OF_SETS[name]} epochs" if name in EPOCHS_OF_SETS else ""
        rows.append([f"`{name}`, {layers} layer{'s' * (layers > 1)}{epochs}", *cells])
    return table(["test log likelihood, nats", *columns], rows)


def every_run(results):
    """results/README.md's list of runs as Markdown: a line for each measured run."""
    names = ("run", "test log likelihood", "Monte Carlo error", "Pareto k", "samples", "images", "active units",
             "epochs", "hours")  # fmt: skip
    rows = []
    for name, config, llh, training in results:
        error = "" if llh["standard_error"] is None else f" ± {llh['standard_error']:.2f}"
        mc_error = "" if llh["mc_error"] is None else f"{llh['mc_error']:.3f}"
        images = f"{llh['n_images']}" + " held out" * bool(config.held_out)
        images += f" of {own.name_of(config.dataset) if config.own_data else config.dataset}" * (
            config.dataset != Config.dataset
        )
        rows.append([
            f"[{name}]({name})", f"{llh['test_llh']:.2f}{error}", mc_error, _pareto_k(llh),
            str(llh["n_samples"]), images, "+".join(map(str, llh["active_units"])),
            f"{training['epochs']:,}", f"{training['seconds'] / 3600:.1f}",
        ])  # fmt: skip
    return table(names, rows)


def annealed(results):
    """results/README.md's table of the runs that tasks/task07.py looked at, as Markdown."""
    names = ("run", "test images", "importance sampling", "annealing", "difference", "images drawn",
             "width of the bracket", "importance sampling below the upper bound")  # fmt: skip
    rows = []
    for name in (result.folder for result in results):
        run = Run(run_folder.RESULTS / name, lock=False)
        if run.annealed.exists() and run.bracket.exists():
            try:
                rows.append(_annealed_row(name, run))
            except (ValueError, TypeError, LookupError, ArithmeticError) as error:
                left_out(f"{name}, in the table of annealing,", error)
    return table(names, rows)


def _annealed_row(name, run):
    test, drawn = (
        [{column: float(value) for column, value in row.items()} for row in read_csv(path)]
        for path in (run.annealed, run.bracket)
    )

    def with_error(column, less, *errors, sign=""):  # the images' samples are independent
        mean = statistics.mean(row[column] - row.get(less, 0) for row in test)
        error = math.sqrt(sum(row[name] ** 2 for row in test for name in errors)) / len(test)
        return f"{mean:{sign}.2f} ± {error:.2f}"

    def over_images(column, less):  # the standard error over the images drawn
        gaps = [row[column] - row[less] for row in drawn]
        error = f" ± {statistics.stdev(gaps) / math.sqrt(len(gaps)):.2f}" if len(gaps) > 1 else ""
        return f"{statistics.mean(gaps):.2f}{error}"

    return [
        f"[{name}]({name})",
        str(len(test)),
        with_error("log_px", None, "mc_error"),
        with_error("annealed", None, "annealed_mc_error"),
        with_error("annealed", "log_px", "mc_error", "annealed_mc_error", sign="+"),
        str(len(drawn)),
        over_images("upper", "lower"),
        over_images("upper", "log_px"),
    ]


def _pareto_k(llh):
    if llh.get("pareto_k_high") is None:
        return ""
    return f"{llh['pareto_k']:.2f} ({llh['pareto_k_high']:.0%})"


def _seeds(results):
    """What several seeds say of the same cell: a line each."""
    lines = []
    for (objective, layers, k, conditional), runs in sorted(grouped(results).items(), key=str):
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


def rewrite(page, **parts):
    """Puts each part of a page between its marks, <!-- name --> and <!-- /name -->. Raises UsageError without these."""
    text = page.read_text()
    for name, part in parts.items():
        before, begin, rest = text.partition(f"<!-- {name} -->")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if not end:
            raise UsageError(f"{page}: the marks <!-- {name} --> and <!-- /{name} --> are not there")
        text = f"{before}{begin}\n{part}\n{end}{after}"
    with whole_file(page) as temporary:
        temporary.write_text(text)
