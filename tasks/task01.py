"""True and variational posteriors in a 2-D latent space.

With two latent units p(z|x) can be had exactly, on a grid. What does q(z|x) make of it, and what do the importance
weights mend? Sampling importance resampling turns samples of q into samples of p(z|x).
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # it can be run from anywhere

import numpy as np

from experiment import command_line
from utils import ProgressBar, evenly_spaced, write_csv

DEFAULTS = dict(n_latent=(2,), n_samples=5, preset="fast")
FIXED = ("n_latent", "stochastic_layers", "conditional")
PER_LABEL = 2  # test images of each label: the first ones
IMAGES = 20  # at most, of labels spread evenly where there are more; and so many where there are no labels
SAMPLES = 5000  # of q, for the estimate of log p(x) and for resampling
ENOUGH = 100  # effective samples, for the two estimates of log p(x) to be compared; even so q may have missed p(z|x)
SHOWN = 300  # samples in a picture
RECONSTRUCTED = 16
MANIFOLD = 20  # images along each side of the picture of the latent space


def chosen(labels):
    """The first PER_LABEL images of each label, labels in turn; the first IMAGES where there is one label."""
    shown = evenly_spaced(np.unique(labels), IMAGES // PER_LABEL)
    each = PER_LABEL if len(shown) > 1 else IMAGES
    return np.concatenate([np.flatnonzero(labels == label)[:each] for label in shown])


def posteriors(session):
    """What the figure shows of every chosen test image, with the table's row as its `numbers`: [Posterior]."""
    from evaluation import make_log_likelihood, make_true_posterior, sampling_importance_resampling
    from models.random import Stream, stateless_seed
    from plots.tasks import Posterior

    model, seed = session.model, session.config.seed
    x, _ = session.test_data()
    rows = chosen(session.dataset.test_labels)
    x, labels = x[rows], session.dataset.test_labels[rows]
    noise = model.noise(SHOWN, len(x), stateless_seed(seed, Stream.PICTURE, 0))
    q_samples = model.encode(x, noise)[0][1].numpy()  # [SHOWN, n, 2]
    jit = session.config.compiled
    (sir_samples,), effective = sampling_importance_resampling(model, x, None, SAMPLES, SHOWN, seed, jit)
    log_px = make_log_likelihood(model, SAMPLES, jit)(x, seed=seed)[1].log_px
    true_posterior, bar, result = make_true_posterior(model, jit), ProgressBar(len(x), "image", "log p(x)"), []
    for i, image in enumerate(x):
        grid = true_posterior(image)
        bar.update(i + 1, grid.log_px)
        samples = {"q(z|x)": q_samples[:, i], "SIR": sir_samples[:, i]}
        decoded = {name: session.decoded(z[:RECONSTRUCTED]) for name, z in samples.items()}
        row = {
            "test_image": int(rows[i]), "label": int(labels[i]), "log_px_grid": grid.log_px,
            f"log_px_k{SAMPLES}": float(log_px[i]), "kl_q_p": grid.kl, "effective_samples": float(effective[i]),
        }  # fmt: skip
        result.append(Posterior(session.as_images(image)[0], grid, samples, decoded, row, SAMPLES))
    return result


def work(session):
    """The figures and the table of the posteriors, and the latent space as images."""
    from plots.tasks import manifold, posterior_figures

    session.train_or_load()
    session.report()
    pictures = posteriors(session)
    rows = [picture.numbers for picture in pictures]
    write_csv(session.run.posteriors, rows)
    posterior_figures(pictures, session.run.figures / "posteriors")
    manifold(session.decoded, MANIFOLD, session.run.figures / "manifold.png")
    gap = sum(row["kl_q_p"] for row in rows) / len(rows)
    sampled = [row for row in rows if row["effective_samples"] >= ENOUGH]
    print(f"{len(rows)} test images: KL(q||p) is {gap:.2f} nats on average.")
    print(f"{len(sampled)} of them have {ENOUGH} or more effective samples.")
    if sampled:
        off = max(abs(row["log_px_grid"] - row[f"log_px_k{SAMPLES}"]) for row in sampled)
        print(f"For these log p(x) by the grid and by {SAMPLES} samples differ by {off:.2f} nats at most.")
    print(f"Pictures and posteriors.csv are in {session.run.path}")


if __name__ == "__main__":
    sys.exit(command_line(work, __doc__, defaults=DEFAULTS, fixed=FIXED))
