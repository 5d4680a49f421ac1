"""Every figure. Each is drawn from the files in a run's folder, so any can be drawn again without the model."""

import csv
import shutil

import matplotlib

matplotlib.use("Agg")

import matplotlib.animation
import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA

from files import whole_file

# Ten colours that stay apart for colour-blind readers too (Paul Tol's muted scheme, with black).
DIGIT_COLOURS = [
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#000000",
]  # fmt: skip
TRAIN_COLOUR, TEST_COLOUR = "#0072B2", "#D55E00"
SIDE = 28  # pixels


def _save(figure, path):
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def _sheet(images, columns=10):
    """[n, 784] -> one picture of n digits in rows of `columns`."""
    rows = images.reshape(-1, columns, SIDE, SIDE)
    return rows.transpose(0, 2, 1, 3).reshape(-1, columns * SIDE)


def _prior_frames(run):
    """[(pass, mean images, samples)], oldest first. The samples come from the same uniform numbers throughout."""
    frames = []
    for path in sorted(run.arrays.glob("prior_pass_*.npz"), key=lambda path: int(path.stem.split("_")[-1])):
        with np.load(path) as arrays:
            means = arrays["means"]
        uniform = np.random.default_rng(0).random(means.shape)
        frames.append((int(path.stem.split("_")[-1]), means, (uniform < means).astype(float)))
    return frames


def _draw_prior(axes, number, means, samples):
    for axis, images, title in zip(axes, (samples, means), ("samples", "means")):
        axis.clear()
        axis.imshow(_sheet(images), cmap="gray_r", vmin=0, vmax=1)
        axis.set_title(f"{title} from the prior, after {number} pass{'' if number == 1 else 'es'}", fontsize=12)
        axis.set_axis_off()


def prior_samples(run):
    """Samples from the prior beside their means: prior.png, passes/ for every pass kept, prior.gif of them all."""
    frames = _prior_frames(run)
    (run.figures / "passes").mkdir(exist_ok=True)
    for frame in frames:
        figure, axes = plt.subplots(1, 2, figsize=(10, 5.5), layout="constrained")
        _draw_prior(axes, *frame)
        _save(figure, run.figures / "passes" / f"prior_{frame[0]:04d}.png")
    shutil.copyfile(run.figures / "passes" / f"prior_{frames[-1][0]:04d}.png", run.figures / "prior.png")
    figure, axes = plt.subplots(1, 2, figsize=(10, 5.5), layout="constrained")
    animation = matplotlib.animation.FuncAnimation(figure, lambda i: _draw_prior(axes, *frames[i]), frames=len(frames))
    with whole_file(run.figures / "prior.gif") as temporary:
        animation.save(temporary, writer=matplotlib.animation.PillowWriter(fps=1.5), dpi=70)
    plt.close(figure)


def learning_curves(run, objective):
    """The bounds, and the two parts the ELBO is made of, against passes, on the monitored training and test images."""
    with open(run.metrics, newline="") as file:
        rows = list(csv.DictReader(file))
    passes = [int(row["pass"]) for row in rows]
    panels = {"iwae_elbo": "IWAE bound at the training k", "vae_elbo": "ELBO", "log_px_z": "log p(x|z)", "kl": "KL"}
    figure, axes = plt.subplots(1, len(panels), figsize=(14, 3.6), layout="constrained")
    for axis, (name, title) in zip(axes, panels.items()):
        for split, colour, style in (("train", TRAIN_COLOUR, "-"), ("test", TEST_COLOUR, "--")):
            axis.plot(passes, [float(row[f"{split}_{name}"]) for row in rows], style, color=colour, label=split)
        axis.set(title=title, xlabel="passes over the data", xscale="symlog", xlim=(0, None))
        axis.set_xticks([0] + [2**i for i in range(12) if 2**i <= max(passes)][:: 2 if max(passes) > 64 else 1])
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("nats per image")
    axes[0].legend()
    figure.suptitle(f"Trained with {objective}")
    _save(figure, run.figures / "learning_curves.png")


def posterior_pca(run):
    """The first two principal components of the posterior means of each stochastic layer, coloured by digit."""
    with np.load(run.arrays / "posterior_means.npz") as arrays:
        labels, layers = arrays["labels"], [arrays[f"z{i + 1}"] for i in range(len(arrays.files) - 1)]
    figure, axes = plt.subplots(1, len(layers), figsize=(6.4 * len(layers), 5.4), layout="constrained", squeeze=False)
    for number, (axis, means) in enumerate(zip(axes[0], layers), 1):
        pca = PCA(n_components=2).fit(means)
        points, share = pca.transform(means), pca.explained_variance_ratio_
        for digit, colour in enumerate(DIGIT_COLOURS):
            axis.scatter(*points[labels == digit].T, s=9, alpha=0.7, color=colour, linewidths=0)
        for digit in range(10):  # the number itself says what the colours alone might not
            centre = np.median(points[labels == digit], axis=0)
            axis.text(*centre, str(digit), fontsize=15, weight="bold", color=DIGIT_COLOURS[digit], ha="center",
                      va="center", bbox=dict(boxstyle="round,pad=0.15", fc="white", ec="none", alpha=0.8))  # fmt: skip
        axis.set(
            title=f"posterior means of z{number} ({means.shape[1]} units)",
            xlabel=f"first component ({share[0]:.0%} of the variance)",
            ylabel=f"second component ({share[1]:.0%})",
        )
    _save(figure, run.figures / "posterior_pca.png")


def draw_all(run, objective):
    """Every figure of a trained run."""
    prior_samples(run)
    learning_curves(run, objective)
    posterior_pca(run)
