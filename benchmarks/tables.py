"""The measurements as Markdown: what `python -m benchmarks` prints, and what README shows."""

import statistics

BOUND = "matrix products alone"
OURS = "this project"


def tables(results):
    """results: as written to results.json -> Markdown, with a table for each part that was measured."""
    parts = [f"Measured on {results['machine']}; medians, and in brackets the range, of interleaved readings."]
    if "training" in results:
        for layers in (1, 2):
            configs = [c for c in results["training"]["configs"] if c["layers"] == layers]
            parts += [f"Training, {layers} stochastic layer{'s' if layers > 1 else ''}, ms a step:", _training(configs)]
        for name, reason in results["training"]["missing"].items():
            parts.append(f"Left out: {name} ({reason}).")
        parts.append(_goals(results))
    if "evaluation" in results:
        parts += ["Test log likelihood at k = 5000, seconds for 1,000 images:", _evaluation(results["evaluation"])]
    rest = _rest(results)
    if rest:
        parts.append("\n".join(f"* {line}" for line in rest))
    return "\n\n".join(parts) + "\n"


def _cell(values):
    digits = 2 if statistics.median(values) < 100 else 0
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def _table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _training(configs):
    header = ["", *(f"k={c['n_samples']}, batch {c['batch_size']}" for c in configs)]
    names = list(dict.fromkeys(name for c in configs for name in c["ms"]))
    rows = [[name, *(_cell(c["ms"][name]) if name in c["ms"] else "" for c in configs)] for name in names]
    return _table(header, rows)


def _ratios(config):
    """This project's time over the products', and the fastest alternative's over this project's: (.., .., its name)."""
    medians = {name: statistics.median(values) for name, values in config["ms"].items()}
    bound = min(value for name, value in medians.items() if name.startswith(BOUND))
    others = {name: v for name, v in medians.items() if not name.startswith((BOUND, OURS))}
    fastest = min(others, key=others.get)
    return medians[OURS] / bound, others[fastest] / medians[OURS], fastest


def _goals(results):
    """Ratios of every configuration, with the goals where there are some, met or missed."""
    rows = []
    for config in results["training"]["configs"]:
        over_bound, ahead, fastest = _ratios(config)
        k, batch, layers = config["n_samples"], config["batch_size"], config["layers"]
        most, least = {50: (1.2, 1.2), 5: (None, 1.3), 1: (None, 1.3)}[k]
        if layers == 2 or (k < 50 and batch == 100):
            most = least = None
        rows.append([
            f"{layers} layer{'s' if layers > 1 else ''}, k={k}, batch {batch}",
            f"{over_bound:.2f}" + (_verdict(over_bound <= most, f"at most {most}") if most else ""),
            f"{ahead:.2f} ({fastest})" + (_verdict(ahead >= least, f"at least {least}") if least else ""),
        ])  # fmt: skip
    return _table(["", "times the products alone", "times faster than the fastest alternative"], rows)


def _verdict(met, goal):
    return f"; goal {goal}: {'met' if met else 'missed'}"


def _evaluation(evaluation):
    header = ["", *(f"{part['layers']} layer{'s' if part['layers'] > 1 else ''}" for part in evaluation["per_1000"])]
    names = list(evaluation["per_1000"][0]["seconds"])
    rows = [[name, *(_cell(part["seconds"][name]) for part in evaluation["per_1000"])] for name in names]
    ratios = []
    for part in evaluation["per_1000"]:
        ours, bound, reference = (statistics.median(part["seconds"][name]) for name in names)
        over, ahead = ours / bound, reference / ours
        ratios.append(
            f"{over:.2f} times the products{_verdict(over <= 1.5, 'at most 1.5')};"
            f" {ahead:.1f} times faster than the reference's style{_verdict(ahead >= 5, 'at least 5')}"
        )
    return _table(header, [*rows, ["this project is", *ratios]])


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
