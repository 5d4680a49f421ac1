"""Numbers in the pages' sentences are those of the committed files, as the tables' are (test_repository.py)."""

import numpy as np
import pytest

from experiment.cells import REFERENCE
from experiment.run_folder import ROOT
from tests.prose import (
    LONG,
    WORDS,
    a_tenth_of_the_epochs,
    above_importance_sampling,
    above_the_reference,
    annealed,
    between_two_seeds,
    clock,
    dreg_along_training,
    effective_samples,
    ends,
    every_seed,
    fall,
    fixed_less_mnist,
    hours,
    lead,
    llh,
    logged,
    lost_without_inactive_units,
    missed_by_fast,
    noise,
    of_epochs_last,
    overfitting,
    pareto,
    posteriors,
    record,
    runs_of,
    seeds_each,
    times,
    units,
    worth,
)

THREE = "fast/iwae-1l-k50", "fast/dreg-1l-k50", "fast/ciwae-standard-prior-1l-k50"
R, T, B = "results/README.md", "tasks/README.md", "benchmarks/README.md"
E = "results/recipe/README.md"
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
    (R, "the {0:words} cells of one layer with k = 5 and 50 lay {1:.2f} to {2:.2f} nats below the reference",
     missed_by_fast),
    ("README.md", "with `fast` {0:words} one-layer cells lie {1:.2f} to {2:.2f} nats below", missed_by_fast),
    (E, "**SOAP**: {:.2f} nats better than Adam", lambda: [worth("adam")]),
    (E, "of SOAP's time, is {:.2f} behind", lambda: [worth("adam-656-epochs")]),
    (E, "The KL term's warm-up**: {:.2f}. **The rate's warm-up**: {:.2f}",
     lambda: [worth("no-kl-warmup"), worth("no-rate-warmup")]),
    (E, "**Averaged weights**: nothing ({:.2f})", lambda: [worth("no-average")]),
    (E, "with SOAP {:d} units are active, with Adam {:d} or {:d}",
     lambda: sorted(set(units(*(f"recipe/elements/{run}" for run in ("adam-seed0", "adam-seed1", "base-seed0")))))),
    (R, "have a standard deviation of {:.2f} nats at k = 1 and of {:.2f} at k = 5",
     lambda: [np.std(every_seed(f"fast/iwae-1l-k{k}"), ddof=1) for k in (1, 5)]),
    (R, "with it the three seeds of IWAE at k = 5 have {:.2f}, {:.2f} and {:.2f}",
     lambda: every_seed("fast/iwae-1l-k5")),
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
    ("README.md", "log p(x) ends {:.2f} nats above that of the other run",
     lambda: [llh("fast/iwae-1l-k50") - llh("fast/vae-1l-k50")]),
    ("README.md", "k = 50, annealed importance sampling finds [about {:.1f} and {:.1f} nats more]",
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
    (R, "With `long` IWAE with k = 50 has {:g} and {:g}, and lies {:.2f} nats above its run of `fast`",
     lambda: [*record("long/iwae-2l-k50")["active_units"], llh("long/iwae-2l-k50") - llh("fast/iwae-2l-k50")]),
    (T, "On test images that is {0:.2f} nats, of which a single image", lambda: annealed("fast/iwae-2l-k50")),
    (R, "models of one layer lie above the reference, {} each", lambda: [seeds_each(LONG)]),
    (T, "no more than two seeds differ by. ({} each,",
     lambda: [seeds_each([*LONG[2:4], *(f"fast/dreg-1l-k{k}" for k in (1, 5, 50))]).capitalize()]),
    (R, "(MNIST's with one layer and k = 1: {})", lambda: [WORDS[len(every_seed("fast/iwae-1l-k1"))]]),
    *((R, sentence, between_two_seeds) for sentence in (
        "so two single runs of one recipe differ by about {:.2f} (", "Two seeds differ by about {:.2f} nats ([below]",
        "two single seeds of `fast` differ by about {:.2f} nats")),
    (R, "run in full with k = 1, ends {:.2f} below the reference",
     lambda: [REFERENCE["iwae_elbo", 1, 1, "no"] - llh("paper/iwae-1l-k1")]),
    (R, "ends {:.2f} above it on average ({:.2f}, {:.2f} and {:.2f} with the three", a_tenth_of_the_epochs),
    (R, "They have {} to {} active units", lambda: ends(units(*LONG))),
    (R, "with {} or {} active units ([runs](#every-run)), and k = 50 has {:.2f} with {}. On the log's 500 images {:.0f}"
     " were active before k grew and {:.0f} at the end",
     lambda: [*ends(units(*(f"fast/iwae-1l-k5{seed}" for seed in ("", "-seed1", "-seed2")))), llh("fast/iwae-1l-k50"),
              *units("fast/iwae-1l-k50"), *fall("active_z1")]),
    (R, "IWAE and DReG end with {:g} and the VAE with {}",
     lambda: [np.mean(units("fast/iwae-1l-k50", "fast/dreg-1l-k50")), *units("fast/vae-1l-k50")]),
    (R, "first epoch on, they have {}, {} and {}: there",
     lambda: units(*(f"long/{name}-1l-k50" for name in ("iwae", "dreg", "vae")))),
    (R, "With two layers and `fast` {:g} units of z1 and {:g} of z2 are active whatever k",
     lambda: [np.mean(units(*(f"fast/iwae-2l-k{k}" for k in (1, 5, 50)), layer=layer)) for layer in (0, 1)]),
    (T, "ends {:.1f} nats above `iwae_elbo` with `--preset fast` at k = 1, 5 and 50 alike",
     lambda: [np.mean([lead(f"fast/dreg-1l-k{k}") for k in (1, 5, 50)])]),
    (R, "DReG's lead over IWAE shrinks from {:.1f} with `fast`",
     lambda: [np.mean([lead(f"fast/dreg-1l-k{k}") for k in (5, 50)])]),
    ("README.md", "With L_50 the ELBO falls by {2:.1f} nats", lambda: fall("test_vae_elbo")),
    (R, "falls from {0:.1f} to {1:.1f} and the ELBO by {5:.1f} nats within the run, while log p(x) ends {6:.2f} nats",
     lambda: [*fall("test_kl"), *fall("test_vae_elbo"), llh("fast/iwae-1l-k50") - llh("fast/vae-1l-k50")]),
    (R, "lies below it, by {1:.1f} to {0:.1f} nats with one layer and {2:.1f} with two",
     lambda: [*annealed("fast/iwae-1l-k50"), *annealed("fast/iwae-2l-k50")]),
    (R, "and lies {3:.1f} nats too low on the 20 digits", posteriors),
    (R, "One layer uses {:g} units, two use {:g} and {:g}; Pareto",
     lambda: [np.mean(units(*[name for name in runs_of("binarized-mnist") if layers in name], layer=layer))
              for layers, layer in (("-1l", 0), ("-2l", 0), ("-2l", 1))]),
    ("README.md", "results/long/iwae-1l-k5` measures {:.2f} again", lambda: [llh("long/iwae-1l-k5")]),
    (T, "For {0} of the {1} the weights tell: at most {2:.0f} effective samples of 5,000, where each of the eleven has"
     " {3:.0f} or more. For {4} they do not: image 0 has {6:,.0f} effective samples, and is {5:.1f} nats off",
     effective_samples),
    (T, "though {:.0f} and {:.0f} nats for one image",
     lambda: [above_importance_sampling(f"fast/iwae-{n}l-k50")[2] for n in (1, 2)]),
    (T, "below annealing, {0:.2f} where Pareto k is below 1 and {1:.2f} elsewhere",
     lambda: above_importance_sampling("fast/iwae-1l-k50")),
    (T, "the one with the largest Pareto k, makes up {3:.2f}", lambda: above_importance_sampling("fast/iwae-2l-k50")),
    (T, "DReG is ahead by {:.1f} to {:.1f} nats from epoch 20 to 130", dreg_along_training),
    ("README.md", "with Adam is {:.1f} to {:.1f} times as fast as JAX's scan and {:.1f} to {:.1f} times as fast as"
     " PyTorch's torch.compile on two cores, and at k = 50 takes {:.1f} to {:.1f} times as long as its matrix products"
     " alone; with SOAP it is about as fast as JAX ({:.1f} to {:.1f} times)",
     lambda: [*times("training", "JAX, lax.scan"), *times("training", "PyTorch, torch.compile"),
              *times("training", "this project", "matrix", ks=(50,)), *times("soap", "JAX, lax.scan")]),
    ("README.md", "needs {:.1f} hours at k = 5 where the paper's schedule would need {:.1f}, and {:.1f} at k = 50 where"
     " that would need {:.0f}", lambda: [*hours(5, "long", "paper"), *hours(50, "long", "paper")]),
    (B, "only {:.1f} to {:.1f} times as fast as JAX's whole step", lambda: times("soap", "JAX, lax.scan", "matrix")),
    (B, "took {:.1f} hours with `paper` at k = 1; {:.1f} to {:.1f}, {:.1f} and {:.1f} with `fast` at k = 1, 5 and 50;"
     " {:.1f} and {:.1f} with `long` at k = 5 and 50",
     lambda: [*clock("paper/iwae-1l-k1"), *ends(clock(*(f"fast/iwae-1l-k1{n}" for n in ("", "-seed1", "-seed2")))),
              *clock(*(f"{name}-1l-k{k}" for name in ("fast/iwae", "long/iwae") for k in (5, 50)))]),
]  # fmt: skip


@pytest.mark.parametrize(("page", "sentence", "numbers"), SENTENCES)
def test_a_sentence_has_the_numbers_of_the_files(page, sentence, numbers):
    found = list(numbers())
    said = sentence.replace("{0:words}", WORDS.get(found[0], "")).format(*found)
    text = " ".join((ROOT / page).read_text().split())
    assert said in text
