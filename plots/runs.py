"""The figures of one run, each drawn from the files in its folder, so that any can be drawn again without the model."""

import math
import re
import shutil

import matplotlib.ticker
import numpy as np
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from plots.style import TEST_COLOUR, TRAIN_COLOUR, panels, plt, save, save_animation, scatter_labels, show_images
from utils import read_csv, whole_file


def _prior_frames(run):
    """[(epoch, mean images, samples)], oldest first. The samples come from the same uniform numbers throughout."""
    frames = []
    for epoch, path in run.kept("prior"):
        with np.load(path) as arrays:
            means = arrays["means"]
        uniform = np.random.default_rng(0).random(means.shape)
        frames.append((epoch, means, (uniform < means).astype(float)))
    return frames


def _draw_prior(axes, number, means, samples):
    for axis, images, title in zip(axes, (samples, means), ("samples", "means")):
        axis.clear()
        show_images(axis, images, title=f"{title} from the prior, after {number} epoch{'' if number == 1 else 's'}")


def prior_samples(run):
    """Samples from the prior beside their means: prior.png, epochs/ for every epoch kept, prior.gif of them all.

    Nothing where no epoch is kept, because the files were damaged and deleted.
    """
    if not (frames := _prior_frames(run)):
        return
    (run.figures / "epochs").mkdir(exist_ok=True)
    (n, height, width), columns = frames[0][1].shape, 10
    size = 10, 0.5 + 5 * min(3.0, math.ceil(n / columns) * height / (columns * width))
    for frame in frames:
        figure, axes = plt.subplots(1, 2, figsize=size, layout="constrained")
        _draw_prior(axes, *frame)
        save(figure, run.figures / "epochs" / f"prior_{frame[0]:04d}.png")
    with whole_file(run.figures / "prior.png") as temporary:
        shutil.copyfile(run.figures / "epochs" / f"prior_{frames[-1][0]:04d}.png", temporary)
    figure, axes = plt.subplots(1, 2, figsize=size, layout="constrained")
    save_animation(figure, lambda i: _draw_prior(axes, *frames[i]), len(frames), run.figures / "prior.gif")


def reconstructions(run, columns=10):
    """Test images, and below each what the model makes of it: E[x|z1] at z1 = E_q[z1|x]."""
    with np.load(run.arrays / "reconstructions.npz") as arrays:
        images, means = arrays["images"], arrays["means"]
    columns = min(columns, len(images))
    images, means = (part[: len(part) // columns * columns] for part in (images, means))
    rows = [part for i in range(0, len(images), columns) for part in (images[i : i + columns], means[i : i + columns])]
    height = 7.8 / columns * images.shape[1] / images.shape[2]
    figure, axis = plt.subplots(figsize=(8, min(12.0, 0.5 + height * len(rows))), layout="constrained")
    show_images(axis, np.concatenate(rows), columns, "test images, and below each its reconstruction")
    save(figure, run.figures / "reconstructions.png")


def z1_redrawn(run, columns):
    """Mean images: a row for each draw of the layers above z1, and along it z1 drawn again."""
    with np.load(run.arrays / "z1_redrawn.npz") as arrays:
        means = arrays["means"]
    figure, axis = plt.subplots(figsize=(9, 6.4), layout="constrained")
    show_images(axis, means, columns, "each row: one z2 from the prior, and z1 drawn again and again from p(z1|z2)")
    save(figure, run.figures / "z1_redrawn.png")


def learning_curves(run, objective):
    """The bounds, and the parts they are made of, against epochs, on the monitored training and test images.

    With several stochastic layers further rows have log p and log q of each, given the layers drawn before it. A run
    that was begun by an earlier version has no numbers for its first epochs there.
    """
    rows = read_csv(run.metrics)
    epochs = [int(row["epoch"]) for row in rows]
    titles = {"iwae_elbo": "IWAE bound at the training k", "vae_elbo": "ELBO", "log_px_z": "log p(x|z)", "kl": "KL"}
    layers = [name.removeprefix("train_") for name in rows[-1] if re.fullmatch(r"train_log_[pq]_z\d+", name)]
    titles |= {name: f"log {name[4]} of {name[6:]}" for name in layers}
    figure, axes = panels(len(titles), 4, 3.5, 3.5)
    for axis, (name, title) in zip(axes, titles.items()):
        for split, colour, style in (("train", TRAIN_COLOUR, "-"), ("test", TEST_COLOUR, "--")):
            axis.plot(
                epochs, [float(row[f"{split}_{name}"] or "nan") for row in rows], style, color=colour, label=split
            )
        axis.set(title=title, xlabel="epochs", xscale="symlog", xlim=(0, None))
        axis.set_xticks([0] + [2**i for i in range(12) if 2**i <= max(epochs)][:: 2 if max(epochs) > 64 else 1])
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axis.grid(alpha=0.3)
    for axis in axes[::4]:
        axis.set_ylabel("nats per image")
    axes[0].legend()
    figure.suptitle(f"Trained with {objective}")
    save(figure, run.figures / "learning_curves.png")


def _means(path):
    """(labels [n], [means [n, n_latent] of each layer])."""
    with np.load(path) as arrays:
        return arrays["labels"], [arrays[f"z{i + 1}"] for i in range(len(arrays.files) - 1)]


def _in_two_dimensions(means):
    """[n, n_latent] -> ([n, 2], the axes' names): the first principal components, or the units if there are two."""
    if means.shape[1] == 1:
        return np.hstack([means, np.zeros_like(means)]), ("first unit", "")
    if means.shape[1] == 2:
        return means, ("first unit", "second unit")
    with np.errstate(invalid="ignore"):  # means that are all alike have no variance
        pca = PCA(n_components=2).fit(means)
    shares = zip(("first", "second"), np.nan_to_num(pca.explained_variance_ratio_))
    return pca.transform(means), [f"{which} component ({share:.0%} of the variance)" for which, share in shares]


def posterior_pca(run, standardise=False):
    """The posterior means of each stochastic layer, coloured by label: their first two principal components, or the
    units themselves where there are two. standardise: each unit is first brought to mean 0 and variance 1.
    """
    labels, layers = _means(run.arrays / "posterior_means.npz")
    figure, axes = plt.subplots(1, len(layers), figsize=(6.4 * len(layers), 5.4), layout="constrained", squeeze=False)
    for number, (axis, means) in enumerate(zip(axes[0], layers), 1):
        if standardise:
            means = StandardScaler().fit_transform(means)
        points, names = _in_two_dimensions(means)
        artists = scatter_labels(axis, points, labels)
        title = f"posterior means of z{number} ({layers[number - 1].shape[1]} units"
        axis.set(title=title + (", standardised)" if standardise else ")"), xlabel=names[0], ylabel=names[1])
    if artists:
        figure.legend(handles=artists, loc="outside right center", markerscale=3, title="label")
    save(figure, run.figures / "posterior_pca.png")


def means_while_training(run):
    """posterior_pca.gif: E_q[z|x] of each stochastic layer in two dimensions, a frame for each epoch kept.

    The components of a frame are turned within their plane so that its points lie as near as can be to those of the
    frame after it: otherwise components that change places, or sign, would look like change of the model.
    """
    if not (kept := run.kept("q_means")):
        return
    epochs, paths = zip(*kept)
    labels, frames = _means(paths[-1])[0], [_means(path)[1] for path in paths]
    n_units, layers = [means.shape[1] for means in frames[-1]], []  # layers: [[n, 2] of each frame] of each layer
    for means in zip(*frames):
        points = [_in_two_dimensions(frame)[0] for frame in means]
        if means[0].shape[1] > 2:
            for i in reversed(range(len(points) - 1)):
                points[i] = points[i] @ orthogonal_procrustes(points[i], points[i + 1])[0]
        layers.append(points)
    figure, axes = plt.subplots(1, len(layers), figsize=(5.4 * len(layers), 5.4), layout="constrained", squeeze=False)

    def draw(i):
        for number, (axis, points) in enumerate(zip(axes[0], layers), 1):
            axis.clear()
            scatter_labels(axis, points[i], labels)
            limits = 1.05 * np.maximum(np.abs(np.concatenate(points)).max(axis=0), 1e-3)
            title = f"means of q(z{number}), after {epochs[i]} epoch{'' if epochs[i] == 1 else 's'}"
            axis.set(title=title, xlim=(-limits[0], limits[0]), ylim=(-limits[1], limits[1]))
            if n_units[number - 1] > 2:
                axis.set(xlabel="in the plane of the first two principal components", ylabel="")
            else:
                axis.set(xlabel="first unit", ylabel="second unit" if n_units[number - 1] > 1 else "")

    save_animation(figure, draw, len(frames), run.figures / "posterior_pca.gif")
