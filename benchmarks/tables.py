"""The measurements as Markdown: what `python -m benchmarks` prints, and what README shows."""

import statistics

from experiment.markdown import table

BOUND = "matrix products alone"
OURS = "this project"
REFERENCE = "TensorFlow, the reference's style"


def tables(results):
    """results: as written to results.json -> Markdown, with a table for each part that was measured."""
    machines = " and ".join(sorted({part["machine"] for part in results.values()}))
    measured = {name: part["measured"] for name, part in results.items()}
    parts = [
        f"Measured on {machines}; medians, and in brackets the range, of interleaved readings. Each table was measured"
        " in one go, perhaps on another machine of this kind than the next: compare within a table."
    ]
    for name, title, goals in (("training", "Training", _goals), ("soap", "Training with SOAP", _soap_goals)):
        if name in measured:
            parts += _training(measured[name], title, goals)
    for name, title, part in (
        (
            "account",
            "Milliseconds of each part of a step, the time with it and all parts to its left less the time without:",
            _account,
        ),
        ("hours", "Hours to a cell of README's table, one layer, on one thread (steps alone):", _hours),
        ("estimators", "A step's time with other objectives, over that with `iwae_elbo`:", _estimators),
        (
            "evaluation",
            "Test log likelihood at k = 5000, seconds for 1,000 images (from 300; in the reference's style from 4):",
            _evaluation,
        ),
        ("scaling", "A step's time with replicas on logical devices of one CPU, over that of one device:", _scaling),
    ):
        if name in measured:
            parts += [title, part(measured[name])]
    rest = _rest(measured)
    if rest:
        parts.append("\n".join(f"* {line}" for line in rest))
    return "\n\n".join(parts)


def _cell(values):
    digits = 2 if statistics.median(values) < 100 else 0
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def _name(config):
    layers = config["layers"]
    return f"{layers} layer{'s' if layers > 1 else ''}, k={config['n_samples']}, batch {config['batch_size']}"


def _training(measured, title, goals):
    """For each number of layers the times, then the ratios of every configuration."""
    parts = []
    for layers in (1, 2):
        configs = [c for c in measured["configs"] if c["layers"] == layers]
        parts += [f"{title}, {layers} stochastic layer{'s' if layers > 1 else ''}, ms a step:", _times(configs)]
    parts += [f"Left out: {name} ({reason})." for name, reason in measured["missing"].items()]
    return [*parts, _ratios(measured["configs"], goals)]


def _times(configs):
    header = ["", *(f"k={c['n_samples']}, batch {c['batch_size']}" for c in configs)]
    names = list(dict.fromkeys(name for c in configs for name in c["ms"]))
    rows = [[name, *(_cell(c["ms"][name]) if name in c["ms"] else "" for c in configs)] for name in names]
    return table(header, rows)


def _ratios(configs, goals):
    """This project's time over the products', and the fastest alternative's over this project's."""
    rows = []
    for config in configs:
        medians = {name: statistics.median(values) for name, values in config["ms"].items()}
        ours, bound = medians[OURS], min(value for name, value in medians.items() if name.startswith(BOUND))
        others = {name: value for name, value in medians.items() if not name.startswith((BOUND, OURS))}
        most, least = goals(config)
        rows.append([
            _name(config),
            f"{ours / bound:.2f}" + (_verdict(ours / bound <= most, f"at most {most}") if most else ""),
            _ahead(ours, others, least) if others else "",
        ])  # fmt: skip
    return table(["", "times the products alone", "times faster than the fastest alternative"], rows)


def _ahead(ours, others, least):
    fastest = min(others, key=others.get)
    ahead = others[fastest] / ours
    return f"{ahead:.2f} ({fastest})" + (_verdict(ahead >= least, f"at least {least}") if least else "")


def _goals(config):
    """(at most so many times the products' time, at least so many times faster), None where there is no goal."""
    return (1.2 if config["n_samples"] == 50 else None), 1.3


def _soap_goals(config):
    return 1.5, 1.3


def _account(measured):
    """A row a configuration: the medians of the parts, each less the one before, and of the whole step."""
    *parts, step, soap = measured[0]["ms"]
    rows = []
    for config in measured:
        medians = {name: statistics.median(values) for name, values in config["ms"].items()}
        added = [medians[name] - before for name, before in zip([*parts, step], [0, *medians.values()])]
        row = [*added, medians[step], medians[soap] - medians[parts[-1]]]
        rows.append([_name(config), *(f"{value:.2f}" for value in row)])
    return table(["", *parts, "Adam", "the step", "SOAP in Adam's place"], rows)


def _estimators(measured):
    """A row an objective: at most 1.15 times the time is wanted, of the doubly reparameterised ones 1.3 times."""
    header, rows = ["", *map(_name, measured)], []
    for name in measured[0]["ratios"]:
        most, row = 1.3 if name.endswith("dreg") else 1.15, [f"`{name}`"]
        for values in (config["ratios"][name] for config in measured):
            row.append(_cell(values) + _verdict(statistics.median(values) <= most, f"at most {most}"))
        rows.append(row)
    return table(header, rows)


def _hours(measured):
    """A row a k: at most a tenth of the hours of the paper's schedule are wanted."""
    names, rows = [name for name in measured[0]["hours"] if name != "paper"], []
    for part in measured:
        paper, row = part["hours"]["paper"], [f"k={part['n_samples']}", f"{part['hours']['paper']:.1f}"]
        for hours in (part["hours"][name] for name in names):
            row.append(f"{hours:.1f}, {hours / paper:.2f} times{_verdict(hours / paper <= 0.1, 'at most 0.1')}")
        rows.append(row)
    return table(["", "`paper`", *(f"`{name}`" for name in names)], rows)


def _scaling(measured):
    replicas = list(measured[0]["ratios"])
    header = ["", "one device, ms a step", *(f"{n} replica{'s' if int(n) > 1 else ''}" for n in replicas)]
    rows = [
        [f"k={part['n_samples']}, {part['optimizer']}", _cell(part["ms"]), *map(_cell, part["ratios"].values())]
        for part in measured
    ]
    return table(header, rows)


def _verdict(met, goal):
    return f"; goal {goal}: {'met' if met else 'missed'}"


def _evaluation(evaluation):
    header = ["", *(f"{part['layers']} layer{'s' if part['layers'] > 1 else ''}" for part in evaluation["per_1000"])]
    names = list(evaluation["per_1000"][0]["seconds"])
    rows = [[name, *(_cell(part["seconds"][name]) for part in evaluation["per_1000"])] for name in names]
    ratios = []
    for part in evaluation["per_1000"]:
        ours, bound, reference = (
            statistics.median(part["seconds"][name]) for name in (OURS, f"{BOUND} (XLA)", REFERENCE)
        )
        over, ahead = ours / bound, reference / ours
        ratios.append(
            f"{over:.2f} times the products{_verdict(over <= 1.3, 'at most 1.3')};"
            f" {ahead:.1f} times faster than the reference's style{_verdict(ahead >= 5, 'at least 5')}"
        )
    return table(header, [*rows, ["this project is", *ratios]])


def _rest(results):
    lines = []
    if "evaluation" in results:
        peaks = ", ".join(f"{gb:.2f} GB at k = {int(k):,}" for k, gb in results["evaluation"]["peak_gb"].items())
        met = max(results["evaluation"]["peak_gb"].values()) < 1.5
        lines.append(f"All 10,000 images, 1 layer, in one go: {results['evaluation']['full']:.0f} s.")
        lines.append(f"Peak memory of an evaluation: {peaks}{_verdict(met, 'under 1.5 GB')}.")
    if "training_peak_gb" in results:
        gb = results["training_peak_gb"]
        lines.append(f"Peak memory of training, k = 50, batch 100: {gb:.2f} GB{_verdict(gb < 1.5, 'under 1.5 GB')}.")
    if "start" in results:
        to_help, to_steps = results["start"]["help"], results["start"]["first_steps"]
        lines.append(f"`--help` takes {to_help:.2f} s{_verdict(to_help < 1, 'under 1 s')}.")
        lines.append(f"From the command to trained steps: {to_steps:.1f} s{_verdict(to_steps < 15, 'under 15 s')}.")
    for pair in results.get("side_by_side", []):
        ratio = statistics.median(pair["two"]) / statistics.median(pair["one"])
        goal = _verdict(ratio >= 1.35, "at least 1.35") if pair["k"] < 50 else ""
        lines.append(
            f"Two runs with `--threads 1` side by side do {ratio:.2f} times the steps of one on all cores,"
            f" k = {pair['k']}{goal}."
        )
    return lines
