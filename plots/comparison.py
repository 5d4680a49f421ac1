"""The published numbers beside this project's."""

from plots.style import LINE_COLOURS, LINE_STYLES, plt, save
from utils import read_csv


def comparison(sections, ks, sources, path):
    """Test log likelihood against k, a panel a model.

    sections: title -> (objective, layers, conditional). sources: name -> {(objective, layers, k, conditional): nats}.
    """
    shown = {
        title: key
        for title, key in sections.items()
        if any((key[0], key[1], k, key[2]) in values for k in ks for values in sources.values())
    }
    columns = min(4, max(1, len(shown)))
    n_rows = -(-max(1, len(shown)) // columns)
    figure, axes = plt.subplots(n_rows, columns, figsize=(3.7 * columns, 3.4 * n_rows), layout="constrained",
                                squeeze=False)  # fmt: skip
    for axis in axes.ravel()[len(shown) :]:
        axis.set_axis_off()
    for axis, (title, (objective, layers, conditional)) in zip(axes.ravel(), shown.items()):
        for (name, values), marker, style, colour in zip(sources.items(), "osD", ("-", "--", ":"), LINE_COLOURS):
            points = [(i, values.get((objective, layers, k, conditional))) for i, k in enumerate(ks)]
            points = [point for point in points if point[1] is not None]
            if points:
                axis.plot(*zip(*points), style, marker=marker, color=colour, label=name)
        axis.set(xticks=range(len(ks)), xticklabels=ks, xlim=(-0.3, len(ks) - 0.7), xlabel="importance samples k")
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    for row in axes:
        row[0].set_ylabel("test log likelihood, nats")
    save(figure, path)


def bounds_against_time(runs, path):
    """The bound on held-out images against the time of training, a panel a k. runs: k -> {name: its metrics.csv}."""
    figure, axes = plt.subplots(1, len(runs), figsize=(6 * len(runs), 6.4), layout="constrained", squeeze=False,
                                sharex=True, sharey=True)  # fmt: skip
    for axis, (k, curves) in zip(axes[0], runs.items()):
        for number, (name, metrics) in enumerate(curves.items()):
            rows = read_csv(metrics)[1:]
            colour, style = LINE_COLOURS[number % len(LINE_COLOURS)], LINE_STYLES[number // len(LINE_COLOURS) % 4]
            seconds, bound = zip(*[(float(row["seconds"]), float(row["test_iwae_elbo"])) for row in rows])
            axis.plot(seconds, bound, style, color=colour, label=name)
        axis.set(title=f"k = {k}", xlabel="seconds of training", xscale="log")
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    axes[0][0].set_ylim(bottom=-115)  # last, when the shared axis has room for every curve's end
    axes[0][0].set_ylabel("bound at the training k on held-out images, nats")
    save(figure, path)
