"""The numbers of the sentences in test_prose.py, from the committed files."""

import json

import numpy as np

from experiment.cells import REFERENCE
from experiment.run_folder import RESULTS, ROOT
from utils import read_csv

WORDS = dict(enumerate("no one two three four five six seven eight nine ten".split()))


def record(name):
    return json.loads((RESULTS / name / "test_llh.json").read_text())


def llh(name):
    return record(name)["test_llh"]


def logged(name, column, epoch=-1):
    return float(read_csv(RESULTS / name / "metrics.csv")[epoch][column])


def lead(name, other="iwae"):
    """Of DReG, or of another run, over that of the IWAE."""
    return llh(name) - llh(name.replace("dreg", other))


def pareto(names):
    found = [record(name)["pareto_k"] for name in names]
    return min(found), max(found)


def runs_of(dataset):
    folders = RESULTS.glob(f"fast/*dataset-{dataset}*")
    return sorted(str(folder.relative_to(RESULTS)) for folder in folders if (folder / "model.weights.h5").exists())


def fixed_less_mnist():
    gaps = [llh(name.removesuffix("-dataset-binarized-mnist")) - llh(name) for name in runs_of("binarized-mnist")]
    return min(gaps), max(gaps)


def overfitting():
    names = "fast/iwae-1l-k1-dataset-binarized-mnist", "fast/iwae-1l-k1"
    return [logged(name, f"{split}_vae_elbo") for name in names for split in ("train", "test")]


def of_epochs_last(name, n):
    return logged(name, "test_vae_elbo") - logged(name, "test_vae_elbo", -1 - n)


def missed_by_fast():
    """(how many one-layer cells miss the reference with `fast`, by how little, by how much)"""
    names = {"iwae_elbo": "iwae", "vae_elbo": "vae", "dreg": "dreg"}
    gaps = []
    for (objective, layers, k, conditional), value in REFERENCE.items():
        if layers != 1 or k == 1 or conditional == "standard_prior":
            continue
        name = names[objective] if conditional == "no" else "ciwae-learned-prior"
        gaps.append(value - np.mean(every_seed(f"fast/{name}-1l-k{k}")))
    gaps = [gap for gap in gaps if gap > 0]
    return len(gaps), min(gaps), max(gaps)


def above_the_reference(name, objective, conditional="no"):
    return [np.mean(every_seed(f"long/{name}-1l-k{k}")) - REFERENCE[objective, 1, k, conditional] for k in (5, 50)]


def posteriors():
    """(images by the grid near the estimate, all others: the least and the largest gap; the mean gap and KL)"""
    rows = read_csv(RESULTS / "fast/iwae-1l-k5-n-latent-2/posteriors.csv")
    gaps = [float(row["log_px_grid"]) - float(row["log_px_k5000"]) for row in rows]
    kls = [float(row["kl_q_p"]) for row in rows]
    far = [gap for gap in gaps if gap >= 0.1]
    return len(gaps) - len(far), min(far), max(far), np.mean(gaps), np.mean(kls), max(kls)


def noise(objective, k, network="encoder", column="snr"):
    (row,) = [
        row for row in read_csv(RESULTS / "fast/dreg-1l-k5/gradient_noise.csv")
        if (row["objective"], row["k"], row["network"], row["epochs"]) == (objective, str(k), network, "328")
    ]  # fmt: skip
    return float(row[column])


def annealed(name):
    """Mean differences: annealing above importance sampling on test images; on images drawn, the upper end above it."""
    test, drawn = (read_csv(RESULTS / name / f"{file}.csv") for file in ("annealed", "bracket"))
    above = np.mean([float(row["annealed"]) - float(row["log_px"]) for row in test])
    return above, np.mean([float(row["upper"]) - float(row["log_px"]) for row in drawn])


def lost_without_inactive_units():
    """name -> nats, by how much a run's log p(x) falls without its inactive units."""
    rows = read_csv(RESULTS / "task06/active_units.csv")
    return {row["run"]: float(row["log_px"]) - float(row["log_px_active_alone"]) for row in rows}


def every_seed(name):
    names = [name, *(f"{name}-seed{n}" for n in (1, 2) if (RESULTS / f"{name}-seed{n}/test_llh.json").exists())]
    return [llh(name) for name in names]


def seeds_each(names):
    return "one seed" if all(len(every_seed(name)) == 1 for name in names) else "several seeds"


def units(*names, layer=0):
    return [record(name)["active_units"][layer] for name in names]


def worth(element):
    """How much log p(x) of held-out images is lost, over the seeds, where an element of `fast` is changed."""
    changed, usual = ([llh(f"recipe/elements/{name}-seed{seed}") for seed in (0, 1)] for name in (element, "base"))
    return np.mean(usual) - np.mean(changed)


def ends(values):
    return min(values), max(values)


def between_two_seeds():
    """The root of the mean square of two seeds' difference, of k = 1 and k = 5 together."""
    return [np.sqrt(2 * np.mean([np.var(every_seed(f"fast/iwae-1l-k{k}"), ddof=1) for k in (1, 5)]))]


def fall(column):
    """(before k grows, at the end, the difference)"""
    values = [logged("fast/iwae-1l-k50", column, epoch) for epoch in (219, -1)]
    return *values, values[0] - values[1]


def a_tenth_of_the_epochs():
    gaps = [value - REFERENCE["iwae_elbo", 1, 1, "no"] for value in every_seed("fast/iwae-1l-k1")]
    return np.mean(gaps), *sorted(gaps)


def effective_samples():
    """Of the images far off: how many the weights tell, of all, up to what; the least of the others; then image 0."""
    rows = read_csv(RESULTS / "fast/iwae-1l-k5-n-latent-2/posteriors.csv")
    gaps = [float(row["log_px_grid"]) - float(row["log_px_k5000"]) for row in rows]
    every = {row["test_image"]: (gap, float(row["effective_samples"])) for row, gap in zip(rows, gaps)}
    least = min(size for gap, size in every.values() if gap < 0.1)
    far = [size for gap, size in every.values() if gap >= 0.1]
    told = [size for size in far if size < least]
    return WORDS[len(told)], WORDS[len(far)], max(told), least, WORDS[len(far) - len(told)], *every["0"]


def above_importance_sampling(name):
    """Annealing: where Pareto k is below 1, and elsewhere; the largest; of the mean, the largest Pareto k's part."""
    rows = [(float(row["pareto_k"]), float(row["annealed"]) - float(row["log_px"]))
            for row in read_csv(RESULTS / name / "annealed.csv")]  # fmt: skip
    low, high = ([gap for k, gap in rows if (k < 1) == below] for below in (True, False))
    return np.mean(low), np.mean(high), max(low + high), max(rows)[1] / len(rows)


def dreg_along_training():
    dreg, iwae = (read_csv(RESULTS / f"fast/{name}-1l-k50/metrics.csv")[20:131] for name in ("dreg", "iwae"))
    return ends([float(one["test_iwae_elbo"]) - float(other["test_iwae_elbo"]) for one, other in zip(dreg, iwae)])


def benchmark(part):
    return json.loads((ROOT / "benchmarks/results.json").read_text())[part]["measured"]


def times(part, over, under="this project", ks=(1, 5, 50)):
    """The least and the largest ratio of two programs' median times; "matrix": the faster of the products alone."""
    ratios = []
    for config in (config for config in benchmark(part)["configs"] if config["n_samples"] in ks):
        ms = {name: np.median(values) for name, values in config["ms"].items()}
        ms["matrix"] = min(ms[name] for name in ms if name.startswith("matrix"))
        ratios.append(ms[over] / ms[under])
    return ends(ratios)


def hours(k, *presets):
    return [part["hours"][preset] for part in benchmark("hours") if part["n_samples"] == k for preset in presets]


def clock(*names):
    return [json.loads((RESULTS / name / "training.json").read_text())["seconds"] / 3600 for name in names]


LONG = [f"long/{name}-1l-k{k}" for name in ("iwae", "dreg", "vae", "ciwae-learned-prior") for k in (5, 50)]
