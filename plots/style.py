"""What all figures share: a backend without a screen, colours, and how a figure is saved."""

import math
import re

import matplotlib

matplotlib.use("Agg")

import matplotlib.animation
import matplotlib.pyplot as plt
import numpy as np

from utils import sheet, whole_file

# Ten colours that stay apart for colour-blind readers too (Paul Tol's muted scheme, with black).
LABEL_COLOURS = [
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#000000",
]  # fmt: skip
MOST_NAMED = 2 * len(LABEL_COLOURS)  # labels that a figure has room for
LINE_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]  # Okabe and Ito's
LINES = plt.cycler(linestyle=["-", "--", ":", "-."]) * plt.cycler(color=LINE_COLOURS)  # all colours, then dashed, ...
TRAIN_COLOUR, TEST_COLOUR = LINE_COLOURS[:2]


def panels(n, most_columns, width, height, **how):
    """A figure of n panels, each so many inches wide and high, in rows of at most `most_columns`: (figure, axes). One
    alone is wider, so that there is room for what is written beside it.
    """
    columns = min(most_columns, max(1, n))
    rows = math.ceil(max(1, n) / columns)
    size = max(width * columns, 6.5), max(height * rows, 3.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **how)
    for axis in axes.ravel():
        axis.set_prop_cycle(LINES)
    for axis in axes.ravel()[n:]:
        axis.set_axis_off()
    return figure, axes.ravel()[:n]


def wrapped(name, width):
    """The name of a run in lines of at most `width` characters where it can be: parted after hyphens."""
    lines = [""]
    for part in re.findall("[^-/]+[-/]*", name):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def save(figure, path):
    """Writes the figure whole, and closes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def save_animation(figure, draw, n_frames, path, fps=1.5):
    """Writes a GIF of draw(0), draw(1), ... on the figure."""
    animation = matplotlib.animation.FuncAnimation(figure, draw, frames=n_frames)
    with whole_file(path) as temporary:
        animation.save(temporary, writer=matplotlib.animation.PillowWriter(fps=fps), dpi=70)
    plt.close(figure)


def show_images(axis, images, columns=10, title=None):
    """Draws [n, height, width] in [0, 1], ink on paper, in rows of `columns`."""
    axis.imshow(sheet(images, columns), cmap="gray_r", vmin=0, vmax=1)
    axis.set_axis_off()
    if title:
        axis.set_title(title, fontsize=12)


def scatter_labels(axis, points, labels):
    """A point an image, coloured by its label; the label, written amid its points, says it without colour.

    Colours repeat where there are more labels than colours. Returns the points' artists, labelled, for a legend; none,
    and nothing is written, where there is one label alone or more than MOST_NAMED of them.
    """
    coloured = [(label, LABEL_COLOURS[i % len(LABEL_COLOURS)]) for i, label in enumerate(np.unique(labels))]
    artists = [
        axis.scatter(*points[labels == label].T, s=9, alpha=0.7, color=colour, linewidths=0, label=str(label))
        for label, colour in coloured
    ]
    if not 1 < len(coloured) <= MOST_NAMED:
        return []
    for label, colour in coloured:
        centre = np.median(points[labels == label], axis=0)
        axis.text(*centre, str(label), fontsize=15, weight="bold", color=colour, ha="center", va="center",
                  bbox=dict(boxstyle="round,pad=0.15", fc="white", ec="none", alpha=0.8))  # fmt: skip
    return artists
