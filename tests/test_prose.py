"""Numbers in the pages' sentences are those of the committed files, as the tables' are (test_repository.py)."""

import json

import numpy as np
import pytest

from experiment.cells import REFERENCE
from experiment.run_folder import RESULTS, ROOT
from utils import read_csv


def record(name):
    return json.loads((RESULTS / name / "test_llh.json").read_text())


def llh(name):
    return record(name)["test_llh"]


def logged(name, column, epoch=-1):
    return float(read_csv(RESULTS / name / "metrics.csv")[epoch][column])


def seeds(name):
    return [llh(name + rest) for rest in ("", "-seed1", "-seed2")]


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
        every = seeds("fast/iwae-1l-k5") if (name, k) == ("iwae", 5) else [llh(f"fast/{name}-1l-k{k}")]
        gaps.append(value - np.mean(every))
    gaps = [gap for gap in gaps if gap > 0]
    return len(gaps), min(gaps), max(gaps)


def above_the_reference(name, objective, conditional="no"):
    return [llh(f"long/{name}-1l-k{k}") - REFERENCE[objective, 1, k, conditional] for k in (5, 50)]


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


THREE = "fast/iwae-1l-k50", "fast/dreg-1l-k50", "fast/ciwae-standard-prior-1l-k50"
R, T = "results/README.md", "tasks/README.md"
SENTENCES = [  # (page, what stands there, its numbers)
    (R, "Fixed MNIST lies {:.1f} to {:.1f} nats below MNIST", fixed_less_mnist),
    (R, "the ELBO of the last epoch is {:.1f} on 500 training images and {:.1f} on 500 test images; with MNIST, where"
     " every epoch draws new binary images, it is {:.1f} and {:.1f}", overfitting),
    (R, "Pareto k is {:.1f} to {:.1f}. Fashion-MNIST's", lambda: pareto(runs_of("binarized-mnist"))),
    (R, "rises by {:.2f} nats with one layer in the last ten epochs, and by {:.2f} with two",
     lambda: [of_epochs_last(f"fast/iwae-{n}l-k1-dataset-fashion-mnist-epochs-80", 10) for n in (1, 2)]),
    (R, "it is {:.1f} to {:.1f}, highest with IWAE and k = 50", lambda: pareto(runs_of("omniglot"))),
    (R, "where one layer uses 12 units, {:.1f} to {:.1f}", lambda: pareto(runs_of("fashion-mnist"))),
    (R, "The model with two latent units has {:.2f} and {:.3f}, and",
     lambda: [record("fast/iwae-1l-k5-n-latent-2")[name] for name in ("pareto_k", "mc_error")]),
    (R, "the eight cells of one layer with k = 5 and 50 lay {1:.2f} to {2:.2f} nats below the reference",
     missed_by_fast),
    ("README.md", "with `fast` {0:words} one-layer cells lie {1:.2f} to {2:.2f} nats below", missed_by_fast),
    (R, "have a standard deviation of {:.2f} nats at k = 1 and of {:.2f} at k = 5",
     lambda: [np.std(seeds(f"fast/iwae-1l-k{k}"), ddof=1) for k in (1, 5)]),
    (R, "with it the three seeds of IWAE at k = 5 have {:.2f}, {:.2f} and {:.2f}", lambda: seeds("fast/iwae-1l-k5")),
    (R, "IWAE by {:.2f} at k = 5 and {:.2f} at k = 50", lambda: above_the_reference("iwae", "iwae_elbo")),
    (R, "DReG by {:.2f} and {:.2f}", lambda: above_the_reference("dreg", "dreg")),
    (R, "the VAE by {:.2f} and {:.2f}", lambda: above_the_reference("vae", "vae_elbo")),
    (R, "a learned prior by {:.2f} and {:.2f}",
     lambda: above_the_reference("ciwae-learned-prior", "iwae_elbo", "learned_prior")),
    (R, "the VAE gains most ({:.2f} nats at k = 5, {:.2f} at k = 50)",
     lambda: [llh(f"long/vae-1l-k{k}") - llh(f"fast/vae-1l-k{k}") for k in (5, 50)]),
    (R, "to {:.2f} at k = 5 and {:.2f} at k = 50 with `long`", lambda: [lead(f"long/dreg-1l-k{k}") for k in (5, 50)]),
    (T, "With `long` it is {:.2f} at k = 5 and {:.2f} at k = 50",
     lambda: [lead(f"long/dreg-1l-k{k}") for k in (5, 50)]),
    (T, "and at the end by {:.2f}, {:.2f} and {:.2f} with k = 1, 5 and 50",
     lambda: [logged(f"fast/dreg-1l-k{k}", "test_iwae_elbo") - logged(f"fast/iwae-1l-k{k}", "test_iwae_elbo")
              for k in (1, 5, 50)]),
    (T, "At k = 1 log p(x) gains more than the bound, {:.2f} nats: DReG's model has two more active units ({:.0f}), and"
     " there log p(x given z) under q is {:.2f} nats higher and the KL divergence to the prior {:.2f}",
     lambda: [lead("fast/dreg-1l-k1"), record("fast/dreg-1l-k1")["active_units"][0], *(
         logged("fast/dreg-1l-k1", name) - logged("fast/iwae-1l-k1", name) for name in ("test_log_px_z", "test_kl"))]),
    ("README.md", "By the paper's schedule itself one cell has been trained: IWAE with one layer and k = 1 has {:.2f}",
     lambda: [llh("paper/iwae-1l-k1")]),
    ("README.md", "log p(x) ends {:.2f} nats above that of the run with the ELBO",
     lambda: [llh("fast/iwae-1l-k50") - llh("fast/vae-1l-k50")]),
    ("README.md", "k = 50, [about {:.1f} and {:.1f} nats below it]",
     lambda: sorted(annealed(f"fast/iwae-{n}l-k50")[0] for n in (1, 2))),
    (T, "within 0.1 nats for {0} of the 20 digits", posteriors),
    (T, "the estimate of log p(x) is too low: by {1:.0f} to {2:.0f} nats, {3:.1f} on average over all 20", posteriors),
    (T, "the gap that the ELBO leaves, is {4:.0f} nats on average and {5:.0f} at most", posteriors),
    (T, "this model's test log likelihood, {:.2f}, is too low", lambda: [llh("fast/iwae-1l-k5-n-latent-2")]),
    (T, "a much smaller gap: {:.2f} and {:.2f} nats on average",
     lambda: [annealed(f"fast/iwae-{n}l-k50")[0] for n in (1, 2)]),
    (T, "the decoder's gradient gets better (a ratio of {:.2f} at k = 1, {:.2f} at k = 512) and the encoder's worse"
     " ({:.2f} and {:.2f})",
     lambda: [noise("iwae_elbo", k, network) for network in ("decoder", "encoder") for k in (1, 512)]),
    (T, "{:.2f} for the encoder at k = 64 where IWAE has {:.2f}",
     lambda: [noise(o, 64) for o in ("dreg", "iwae_elbo")]),
    (T, "at k = 64 their decoders' gradients are {:.2f}, {:.2f} and {:.2f} off that of log p(x), where IWAE's {:.2f}",
     lambda: [noise(o, 64, "decoder", "distance") for o in ("miwae", "ciwae", "vr_iwae", "iwae_elbo")]),
    (T, "its mean is off by {:.1f} times the norm of the bound's gradient at k = 64, and by {:.1f} times at k = 512",
     lambda: [noise("stl", k, column="distance") for k in (64, 512)]),
    (T, "RWS** gains signal with k, {:.2f} at k = 64, and {:.2f} in the DReG form",
     lambda: [noise(o, 64) for o in ("rws", "rws_dreg")]),
    (T, "({:.2f} for the encoder at k = 64, {:.2f} in the DReG form)",
     lambda: [noise(o, 64) for o in ("jvi", "jvi_dreg")]),
    (T, "At k = 5 log p(x|y) is {:.2f} nats with the learned prior and {:.2f} with the standard one, where the model"
     " without labels has {:.2f}",
     lambda: [llh(f"fast/{name}-1l-k5") for name in ("ciwae-learned-prior", "ciwae-standard-prior", "iwae")]),
    (T, "log 10, which is {:.2f} with the learned prior", lambda: [llh("fast/ciwae-learned-prior-1l-k5") - np.log(10)]),
    (T, "costs at most {:.2f} nats on 1,000 test images, except",
     lambda: [max(lost for name, lost in lost_without_inactive_units().items() if name not in THREE)]),
    (T, "units below it matter: {:.2f} nats with IWAE, {:.2f} with DReG and with this conditional model",
     lambda: [lost_without_inactive_units()[name] for name in THREE]),
    (T, "importance sampling with 5,000 samples lies {1:.2f} below its upper end. Left: on test images it lies {0:.2f}",
     lambda: annealed("fast/iwae-1l-k50")),
    (T, "On test images that is {0:.2f} nats, of which a single image", lambda: annealed("fast/iwae-2l-k50")),
]  # fmt: skip
WORDS = {7: "seven", 8: "eight", 9: "nine"}


@pytest.mark.parametrize(("page", "sentence", "numbers"), SENTENCES)
def test_a_sentence_has_the_numbers_of_the_files(page, sentence, numbers):
    found = list(numbers())
    said = sentence.replace("{0:words}", WORDS.get(found[0], "")).format(*found)
    text = " ".join((ROOT / page).read_text().split())
    assert said in text
