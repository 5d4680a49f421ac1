"""The figures of signal and noise in the estimators' gradients."""

from plots.style import LINE_COLOURS, plt, save

NAMES = {  # objective: (label, colour, line style); one colour for one target, dashed: doubly reparameterised
    "vae_elbo": ("ELBO", "#000000", "-"),
    "iwae_elbo": ("IWAE", LINE_COLOURS[0], "-"),
    "dreg": ("IWAE: DReG", LINE_COLOURS[0], "--"),
    "stl": ("IWAE: STL", LINE_COLOURS[0], ":"),
    "miwae": ("MIWAE", LINE_COLOURS[1], "-"),
    "ciwae": ("CIWAE", LINE_COLOURS[2], "-"),
    "vr_iwae": ("VR-IWAE", LINE_COLOURS[3], "-"),
    "vr_iwae_dreg": ("VR-IWAE: DReG", LINE_COLOURS[3], "--"),
    "rws": ("RWS", LINE_COLOURS[4], "-"),
    "rws_dreg": ("RWS: DReG", LINE_COLOURS[4], "--"),
    "jvi": ("JVI", LINE_COLOURS[5], "-"),
    "jvi_dreg": ("JVI: DReG", LINE_COLOURS[5], "--"),
}
DECODERS = ("vae_elbo", "iwae_elbo", "miwae", "ciwae", "vr_iwae", "jvi")  # the others' gradient is one of these
CERTAIN = 1.5  # a distance of fewer times what noise alone would give may be chance
AXES = {"snr": "signal-to-noise ratio", "variance": "variance of a parameter's gradient"}


def estimators(rows, path):
    """Signal-to-noise ratio, variance and distance from the target against k, at the last epoch: the encoder's
    gradient above, the decoder's below. Hollow: a distance that may be chance, and is drawn no lower than what noise
    alone would give. rows: those of tasks/task02.py's gradient_rows.
    """
    last = max(row["epochs"] for row in rows)
    figure, axes = plt.subplots(2, 3, figsize=(13, 8.6), layout="constrained", sharex=True)
    for network, line in zip(("encoder", "decoder"), axes):
        for objective, (name, colour, style) in NAMES.items():
            if network == "decoder" and objective not in DECODERS:
                continue
            found = [row for row in rows if (row["objective"], row["epochs"], row["network"])
                     == (objective, last, network)]  # fmt: skip
            if not found:
                continue
            k = [row["k"] for row in found]
            numbers = found[0]["hyperparameters"].replace("_", " ")
            label = f"{name} ({numbers})" if numbers else name
            for axis, quantity in zip(line, AXES):
                axis.plot(k, [row[quantity] for row in found], style, color=colour, marker="o", ms=4, label=label)
            line[2].plot(k, [max(row["distance"], row["by_chance"]) for row in found], style, color=colour)
            for row in found:
                certain = row["distance"] > CERTAIN * row["by_chance"]
                line[2].plot(row["k"], max(row["distance"], row["by_chance"]), "o", ms=4, color=colour,
                             mfc=colour if certain else "white")  # fmt: skip
        for axis, title in zip(line, (*AXES.values(), "distance (hollow: unresolved)")):
            axis.set(xscale="log", yscale="log", title=f"{network}: {title}")
            axis.grid(alpha=0.3)
    axes[0, 2].set_ylabel("from the gradient of L_k (RWS: KL(p||q)), over its norm")
    axes[1, 2].set_ylabel("from the gradient of log p(x), over its norm")
    for axis in axes[1]:
        axis.set_xlabel("importance samples k")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=10)
    save(figure, path)


def along_training(rows, path):
    """Signal-to-noise ratio (above) and variance of the encoder's gradient against k; a column for each stage.
    rows: as for `estimators`.
    """
    rows = [row for row in rows if row["network"] == "encoder"]
    stages = sorted({row["epochs"] for row in rows})
    shown = [name for name in NAMES if {row["epochs"] for row in rows if row["objective"] == name} == set(stages)]
    figure, axes = plt.subplots(2, len(stages), figsize=(3.6 * len(stages), 6.4), layout="constrained",
                                sharex=True, sharey="row", squeeze=False)  # fmt: skip
    for column, epochs in zip(axes.T, stages):
        for axis, quantity in zip(column, AXES):
            for objective in shown:
                name, colour, style = NAMES[objective]
                points = [(r["k"], r[quantity]) for r in rows if (r["objective"], r["epochs"]) == (objective, epochs)]
                axis.plot(*zip(*points), style, color=colour, marker="o", ms=3.5, label=name)
            axis.set(xscale="log", yscale="log")
            axis.grid(alpha=0.3)
        column[0].set_title("first weights" if epochs == 0 else f"after {epochs} epoch{'s' * (epochs > 1)}")
        column[1].set_xlabel("importance samples k")
    for axis, name in zip(axes[:, 0], AXES.values()):
        axis.set_ylabel(name)
    axes[0, -1].legend(fontsize=9)
    figure.suptitle("Gradient of the encoder's parameters")
    save(figure, path)
