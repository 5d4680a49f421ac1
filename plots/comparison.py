"""The published numbers beside this project's."""

from plots.style import LINE_COLOURS, panels, save
from utils import read_csv


def comparison(sections, ks, sources, path):
    """Test log likelihood against k, one panel for each model.

    sections: title -> (objective, layers, conditional). sources: name -> {(objective, layers, k, conditional): nats}.
    """
    shown = {
        title: key
        for title, key in sections.items()
        if any((key[0], key[1], k, key[2]) in values for k in ks for values in sources.values())
    }
    figure, axes = panels(len(shown), 4, 3.7, 3.4)
    for axis, (title, (objective, layers, conditional)) in zip(axes, shown.items()):
        for (name, values), marker, style, colour in zip(sources.items(), "osD", ("-", "--", ":"), LINE_COLOURS):
            points = [(i, values.get((objective, layers, k, conditional))) for i, k in enumerate(ks)]
            points = [point for point in points if point[1] is not None]
            if points:
                axis.plot(*zip(*points), style, marker=marker, color=colour, label=name)
        axis.set(xticks=range(len(ks)), xticklabels=ks, xlim=(-0.3, len(ks) - 0.7), xlabel="importance samples k")
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    for axis in axes[::4]:
        axis.set_ylabel("test log likelihood, nats")
    save(figure, path)


def bounds_against_time(runs, path):
    """The bound on held-out images against the time of training, one panel for each k.

    runs: k -> {name: its metrics.csv}.
    """
    figure, axes = panels(len(runs), len(runs), 6, 6.4, sharex=True, sharey=True)
    for axis, (k, curves) in zip(axes, runs.items()):
        for name, metrics in curves.items():
            rows = [row for row in read_csv(metrics) if int(row["epoch"])]  # time is drawn on a logarithmic scale
            seconds, bound = ([float(row[name]) for row in rows] for name in ("seconds", "test_iwae_elbo"))
            axis.plot(seconds, bound, label=name)
        axis.set(title=f"k = {k}", xlabel="seconds of training", xscale="log")
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    axes[0].set_ylim(bottom=-115)  # last, when the shared axis has room for every curve's end
    axes[0].set_ylabel("bound at the training k on held-out images, nats")
    save(figure, path)
