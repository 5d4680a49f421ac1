"""The figures of the tasks."""

import statistics
from typing import NamedTuple

import numpy as np

from plots.style import LABEL_COLOURS, LINE_COLOURS, panels, plt, save, save_animation, show_images, wrapped
from utils import read_csv


class Posterior(NamedTuple):
    """One image's posteriors, for posterior_figures."""

    image: np.ndarray  # [height, width]
    grid: object  # evaluation.posteriors.GridPosterior
    samples: dict  # name -> [n, 2]: "q(z|x)" and "SIR"
    decoded: dict  # name -> mean images [n, height, width] of the first samples
    numbers: dict  # the table's row
    n_samples: int  # of q, whose weights the effective samples are of


def posterior_figures(pictures, folder):
    """A figure an image, folder/0.png ..., and all.gif of all of them."""
    for number, picture in enumerate(pictures):
        figure = plt.figure(figsize=(11, 7), layout="constrained")
        _draw_posterior(figure, picture)
        save(figure, folder / f"{number}.png")
    figure = plt.figure(figsize=(11, 7), layout="constrained")
    save_animation(figure, lambda i: _draw_posterior(figure, pictures[i]), len(pictures), folder / "all.gif", fps=0.7)


def _draw_posterior(figure, picture):
    figure.clear()
    grid, numbers = picture.grid, picture.numbers
    axes = figure.subplots(2, 3, width_ratios=(0.7, 1.3, 1))
    show_images(axes[0, 0], picture.image[np.newaxis], 1, f"test image {numbers['test_image']}")
    axes[1, 0].set_axis_off()
    facts = {
        "log p(x), grid": grid.log_px,
        "KL(q || p)": grid.kl,
        f"effective samples\nof {picture.n_samples}": numbers["effective_samples"],
    }
    text = "\n\n".join(
        f"{name}: {value:.0f}" if value > 99 else f"{name}: {value:.2f}" for name, value in facts.items()
    )
    axes[1, 0].text(0, 0.95, text, va="top", fontsize=11)
    for row, (name, z) in zip(axes, picture.samples.items()):
        _draw_densities(row[1], grid)
        row[1].plot(*z.T, "o", ms=2.5, color=LINE_COLOURS[1], alpha=0.55, mew=0)
        row[1].set(xlabel="first unit", ylabel="second unit")  # no legend: it would hide what lies in a corner
        row[1].set_title(f"p(z|x) shaded; q(z|x) at 1, 2, 3 std; dots: {name}", fontsize=11)
        show_images(row[2], picture.decoded[name], 4, f"decoded samples, {name}")


def _draw_densities(axis, grid):
    """p(z|x) in grey, and the ellipses of q(z|x) one, two and three standard deviations out."""
    extent = (grid.first[0], grid.first[-1], grid.second[0], grid.second[-1])
    axis.imshow(np.exp(grid.log_p - grid.log_p.max()), origin="lower", extent=extent, aspect="auto", cmap="gray_r")
    levels = [grid.log_q.max() - r**2 / 2 for r in (3, 2, 1)]
    axis.contour(
        grid.first, grid.second, grid.log_q, levels, colors=LINE_COLOURS[0], linewidths=1.2, linestyles="solid"
    )


def manifold(decoded, side, path):
    """Mean images over the latent space: side x side points, equally spaced in the prior's probability.

    decoded: z [n, 2] -> mean images [n, height, width].
    """
    z = np.array([statistics.NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)], np.float32)
    first, second = np.meshgrid(z, z[::-1])  # upwards on the page is upwards in the second unit
    images = decoded(np.stack([first.ravel(), second.ravel()], axis=-1))
    figure, axis = plt.subplots(figsize=(8, 8.4), layout="constrained")
    show_images(axis, images, side, "decoded means; each axis is a latent unit, in steps of equal prior probability")
    save(figure, path)


def _column(run, name):
    rows = read_csv(run.metrics)
    return [int(row["epoch"]) for row in rows], [float(row[name]) for row in rows] if name in rows[0] else None


def _n_layers(run):
    return sum(name.startswith("active_z") for name in read_csv(run.metrics)[0])


def dreg_beside_iwae(pairs, path):
    """The IWAE bound along training with either gradient, and below it by how much the first is ahead.

    One column for each k. pairs: {k: (the Run with dreg, the Run with iwae_elbo)}.
    """
    figure, axes = plt.subplots(2, len(pairs), figsize=(2 + 4 * len(pairs), 6), layout="constrained", sharex=True,
                                sharey="row", squeeze=False, height_ratios=(3, 2))  # fmt: skip
    for (above, below), (k, runs) in zip(axes.T, pairs.items()):
        for split, style in (("train", "--"), ("test", "-")):
            dreg, iwae = ({epoch: bound for epoch, bound in zip(*_column(run, f"{split}_iwae_elbo")) if epoch}
                          for run in runs)  # epoch 0 has no place on a logarithmic axis  # fmt: skip
            for bounds, name, colour in ((dreg, "DReG", LINE_COLOURS[0]), (iwae, "IWAE", LINE_COLOURS[1])):
                above.plot([*bounds], [*bounds.values()], style, color=colour, lw=1.3, label=f"{name}, {split} images")
            both = sorted(dreg.keys() & iwae.keys())  # a log that was deleted begins later
            below.plot(both, [dreg[n] - iwae[n] for n in both], style, color=LINE_COLOURS[2], lw=1.3, label=split)
        above.set(title=f"k = {k}", xscale="log")
        below.axhline(0, color="black", lw=0.8)
        below.set_xlabel("epochs")
        for axis in (above, below):
            axis.grid(alpha=0.3)
    if bounds := [bound for axis in axes[0] for line in axis.lines for bound in line.get_ydata()]:
        # where they begin is far below where they differ
        axes[0, 0].set_ylim(max(max(bounds) - 20, min(bounds)), max(bounds) + 1)
    axes[0, 0].set_ylabel("IWAE bound at the epoch's k, nats")
    axes[1, 0].set_ylabel("DReG less IWAE, nats")
    axes[0, 0].legend(loc="upper left")
    axes[1, 0].legend(loc="upper left")
    save(figure, path)


def activity_histograms(activities, threshold, path):
    """log10 of the activity of every unit, one panel for each run.

    activities: run -> [A_u] for each layer; threshold: of an active unit.
    """
    figure, axes = panels(len(activities), 3, 4.4, 2.4, sharex=True)
    bins = np.linspace(-8, 3, 56)
    for axis, (name, layers) in zip(axes, activities.items()):
        shown = [np.maximum(np.log10(np.maximum(layer, 1e-300)), bins[0]) for layer in layers]
        labels = [f"z{i}" for i in range(1, len(layers) + 1)]
        axis.hist(shown, bins, stacked=True, color=LINE_COLOURS[: len(layers)], label=labels)
        axis.axvline(np.log10(threshold), color=LABEL_COLOURS[-1], lw=1, ls="--")
        axis.set_title(wrapped(name, 55), fontsize=9)
        axis.tick_params(labelbottom=True)
        axis.legend(fontsize=8)
    figure.supxlabel(f"log10 of the activity (dashed: the threshold {threshold:g}; at -8: what is below)")
    figure.supylabel("units")
    save(figure, path)


def units_while_training(groups, path):
    """Active units against epochs, on 500 test images; one panel for each layer of a group.

    groups: title -> {name: Run}, of runs that have metrics.csv.
    """
    shown = {}
    for title, runs in groups.items():
        for layer in range(1, 1 + max(_n_layers(run) for run in runs.values())):
            curves = {name: _column(run, f"active_z{layer}") for name, run in runs.items()}
            shown[f"{title}: z{layer}"] = {name: curve for name, curve in curves.items() if curve[1]}
    shown = {title: curves for title, curves in shown.items() if curves}
    figure, axes = panels(len(shown), 2, 5.4, 4)
    for axis, (title, curves) in zip(axes, shown.items()):
        widths = np.linspace(6, 1.2, max(2, len(curves)))  # runs of one beginning agree for long, and are nested here
        for width, (name, (epochs, units)) in zip(widths, curves.items()):
            axis.plot(epochs, units, lw=width, label=wrapped(name, 45))
        axis.set(title=title, xlabel="epochs", xscale="symlog", xlim=(0, None))
        axis.set_ylim(0, 1.4 * axis.get_ylim()[1])  # every curve begins high and falls: room for the legend above it
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7.5, loc="upper right", handlelength=3)
    figure.supylabel("active units")
    save(figure, path)


def second_opinion(test, drawn, path):
    """Two estimates of log p(x). Left: test images, annealing less importance sampling against the weights' Pareto k.
    Right: images drawn from the model, each estimate less the upper bound. test, drawn: rows of tasks/task07.py.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    above = np.array([row["annealed"] - row["log_px"] for row in test])
    errors = [np.hypot(row["annealed_mc_error"], row["mc_error"]) for row in test]
    shapes = [row["pareto_k"] for row in test]
    left.errorbar(shapes, above, errors, fmt="o", ms=4, lw=0.8, color=LINE_COLOURS[0], label="an image, \u00b1 1 error")
    left.axhline(0, color="black", lw=0.8)
    left.axhline(above.mean(), color=LINE_COLOURS[1], ls="--", label=f"mean: {above.mean():+.2f} nats")
    left.set(xlabel="Pareto k of the importance weights", ylabel="annealing less importance sampling, nats",
             title=f"{len(test)} test images")  # fmt: skip
    rows = sorted(drawn, key=lambda row: row["lower"] - row["upper"])
    for name, label, marker, colour in (
        ("upper", "annealing from the z it was drawn from: upper bound", "v", LINE_COLOURS[2]),
        ("lower", "annealing from the prior: lower bound", "^", LINE_COLOURS[1]),
        ("log_px", "importance sampling", "o", LINE_COLOURS[0]),
    ):
        values = np.array([row[name] - row["upper"] for row in rows])
        right.plot(values, marker, ms=4.5, color=colour, label=f"{label} (mean {values.mean():+.2f})")
    right.set(xlabel="image, by the width of its bracket", ylabel="log p(x) less the upper bound, nats",
              title=f"{len(drawn)} images drawn from the model")  # fmt: skip
    for axis in (left, right):
        low, high = axis.get_ylim()
        axis.set_ylim(low, high + 0.3 * (high - low))  # room for the legend above the points
        axis.grid(alpha=0.3)
        axis.legend(fontsize=9, loc="upper left")
    save(figure, path)
