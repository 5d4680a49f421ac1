"""The pictures of the tasks: what is drawn, read from the figures themselves."""

import types

import numpy as np
import pytest

import plots.runs
import plots.tasks
from experiment.run_folder import Run
from plots.gradients import AXES, NAMES, along_training, estimators
from plots.style import wrapped
from utils import write_csv


def lines_of(axis):
    """{label: [(x, y)]} of the lines of a panel."""
    return {line.get_label(): [*zip(*(np.asarray(part).tolist() for part in line.get_data()))] for line in axis.lines}


def run_with(folder, rows):
    run = Run(folder)
    write_csv(run.metrics, rows)
    return run


def test_dreg_less_iwae_is_above_0_where_dreg_is_ahead(tmp_path, figures):
    def logged(name, ahead):
        bounds = {"train_iwae_elbo": -80.0 + ahead, "test_iwae_elbo": -90.0 + 2 * ahead}
        return run_with(tmp_path / name, [{"epoch": n} | bounds for n in range(3)])

    plots.tasks.dreg_beside_iwae({5: (logged("dreg", 1), logged("iwae", 0))}, tmp_path / "curves.png")
    above, below = figures["curves.png"].axes
    found = {label: {y for _, y in points} for label, points in lines_of(above).items()}
    assert found == {"DReG, train images": {-79}, "DReG, test images": {-88}, "IWAE, train images": {-80},
                     "IWAE, test images": {-90}}  # fmt: skip
    assert lines_of(below)["train"] == [(1, 1), (2, 1)] and lines_of(below)["test"] == [(1, 2), (2, 2)]
    assert below.get_ylabel() == "DReG less IWAE, nats"


def test_logs_that_begin_later_are_compared_epoch_by_epoch(tmp_path, figures):
    """As after one was deleted; and one that ends before the other, or has the first weights alone."""

    def logged(name, bounds):
        rows = [{"epoch": n, "train_iwae_elbo": bound, "test_iwae_elbo": bound} for n, bound in bounds.items()]
        return run_with(tmp_path / name, rows)

    dreg, iwae = logged("dreg", {2: -82.0, 3: -80.0, 4: -79.0}), logged("iwae", {0: -200.0, 1: -90.0, 2: -85.0, 3: -84})
    plots.tasks.dreg_beside_iwae({1: (dreg, logged("short", {0: -200.0})), 5: (dreg, iwae)}, tmp_path / "curves.png")
    above, below = np.reshape(figures["curves.png"].axes, (2, 2))
    assert lines_of(above[1])["DReG, test images"] == [(2, -82), (3, -80), (4, -79)]
    assert lines_of(above[1])["IWAE, test images"] == [(1, -90), (2, -85), (3, -84)]
    assert lines_of(below[1])["test"] == [(2, 3), (3, 4)] and lines_of(below[0])["test"] == []


def test_the_second_opinion_s_picture_has_the_signs_that_its_axes_say(tmp_path, figures):
    test = [dict(annealed=-79, log_px=-80, annealed_mc_error=0.3, mc_error=0.4, pareto_k=0.6)]
    drawn = [dict(lower=-61.0, upper=-60.5, log_px=-61.5), dict(lower=-71.0, upper=-70.0, log_px=-72.0)]
    plots.tasks.second_opinion(test, drawn, tmp_path / "annealed.png")
    left, right = figures["annealed.png"].axes
    (bar,) = left.containers
    assert bar[0].get_xydata().tolist() == [[0.6, 1]]
    np.testing.assert_allclose(bar[2][0].get_segments(), [[[0.6, 0.5], [0.6, 1.5]]])
    assert "mean: +1.00 nats" in lines_of(left)
    lower, upper, sampled = (label for start in ("annealing from the prior", "annealing from the z", "importance")
                             for label in lines_of(right) if label.startswith(start))  # fmt: skip
    found = {label: [y for _, y in points] for label, points in lines_of(right).items()}
    assert (found[lower], found[upper], found[sampled]) == ([-1, -0.5], [0, 0], [-2, -1])  # the widest bracket first
    assert [label[-7:] for label in (lower, upper, sampled)] == [" -0.75)", " +0.00)", " -1.50)"]  # their means


def test_each_layer_s_units_have_a_panel_and_a_threshold(tmp_path, figures):
    rows = [{"epoch": n, "active_z1": 50 - n, "active_z2": 10 - n} for n in range(3)]
    plots.tasks.units_while_training({"two": {"a": run_with(tmp_path / "a", rows)}}, tmp_path / "units.png")
    drawn = {axis.get_title(): lines_of(axis)["a"] for axis in figures["units.png"].axes}
    assert drawn == {"two: z1": [(0, 50), (1, 49), (2, 48)], "two: z2": [(0, 10), (1, 9), (2, 8)]}
    plots.tasks.activity_histograms({"a": [np.array([1.0, 1e-9])]}, 0.01, tmp_path / "activity.png")
    (axis,) = figures["activity.png"].axes
    assert axis.lines[0].get_xdata() == pytest.approx([-2, -2])
    assert [bar.get_x() + bar.get_width() / 2 for bar in axis.patches if bar.get_height()] == pytest.approx([-7.9, 0.1])


def test_long_names_of_runs_are_parted_and_not_cut():
    assert wrapped("iwae-1l-k5-dataset-x", 12) == "iwae-1l-k5-\ndataset-x"
    assert wrapped("fast/iwae-1l-k5", 40) == "fast/iwae-1l-k5"


def test_upwards_in_the_picture_of_the_latent_space_is_upwards_in_the_second_unit(tmp_path, figures):
    asked = []
    plots.tasks.manifold(lambda z: asked.append(z) or np.zeros((9, 2, 2)), 3, tmp_path / "manifold.png")
    (z,) = asked
    assert figures["manifold.png"].axes[0].images[0].get_array().shape == (6, 6)  # three images a row
    assert (z[0] < [0, 9]).all() and z[0, 1] == -z[0, 0] == z[-1, 0] == -z[-1, 1] == pytest.approx(0.9674, abs=1e-4)
    np.testing.assert_allclose(z[1], [0, z[0, 1]], atol=1e-6)  # half of the prior is on either side


def test_a_posterior_s_samples_stand_under_their_names(tmp_path, figures, monkeypatch):
    shown, z, frames = {}, {"q(z|x)": np.zeros((4, 2)), "SIR": np.ones((4, 2))}, []

    def keep(figure, draw, n_frames, path, fps):
        for i in range(n_frames):
            shown.clear()
            draw(i)
            frames.append([title for title in shown if title.startswith("test image")])

    monkeypatch.setattr(plots.tasks, "save_animation", keep)
    monkeypatch.setattr(plots.tasks, "show_images", lambda axis, images, n, title: shown.update({title: images.max()}))
    points = np.linspace(-2.0, 2.0, 9)
    log_p = -((points - 1) ** 2) / 2 - points[:, np.newaxis] ** 2 / 2  # the first unit, across, is about 1
    grid = types.SimpleNamespace(first=points, second=points, log_p=log_p, log_q=log_p, log_px=-80.0, kl=2.0)
    decoded = {name: np.full((4, 2, 2), value) for name, value in (("q(z|x)", 0.25), ("SIR", 0.5))}
    pictures = [
        plots.tasks.Posterior(np.ones((2, 2)), grid, z, decoded, dict(test_image=i, effective_samples=123.4), 5000)
        for i in (60, 61)
    ]
    plots.tasks.posterior_figures(pictures, tmp_path)
    assert frames == [["test image 60"], ["test image 61"]]
    assert shown == {"test image 61": 1, "decoded samples, q(z|x)": 0.25, "decoded samples, SIR": 0.5}
    axes = [axis for axis in figures["0.png"].axes if axis.images]
    for axis, name in zip(axes, z, strict=True):
        (dots,) = axis.lines
        assert set(map(tuple, dots.get_xydata())) == {tuple(z[name][0])} and axis.get_title().endswith(f"dots: {name}")
        assert axis.get_legend() is None  # which would hide what lies in a corner
        densities = axis.images[0]
        down, across = np.unravel_index(densities.get_array().argmax(), (9, 9))
        assert (points[down], points[across]) == (0, 1) and densities.origin == "lower"
        assert densities.get_extent() == [-2, 2, -2, 2]


def test_estimators_have_their_own_lines_and_hollow_points_where_no_distance_is_seen(tmp_path, figures):
    def row(objective, network, k, epochs, **numbers):
        given = dict(objective=objective, network=network, k=k, epochs=epochs, hyperparameters="", distance=None)
        return given | dict(snr=k * epochs, variance=10 * k * epochs, by_chance=0.5) | numbers

    distances = {1: 0.7, 4: 0.8, 16: 0.2}  # 1.4, 1.6 and 0.4 times what noise alone would give
    rows = [row(name, network, k, epochs, distance=distances[k] if epochs == 2 else None, hyperparameters=given)
            for epochs in (0.5, 2) for k in distances
            for name, given in (("iwae_elbo", ""), ("dreg", "elbo_weight 0.5"))
            for network in ("encoder", "decoder")]  # fmt: skip
    estimators(rows, tmp_path / "estimators.png")
    above, below = np.reshape(figures["estimators.png"].axes, (2, 3))
    for axis, quantity in zip(above, AXES):
        expected = [(k, k * (2 if quantity == "snr" else 20)) for k in distances]
        assert lines_of(axis) == {"IWAE": expected, "IWAE: DReG (elbo weight 0.5)": expected}
        assert axis.get_title() == f"encoder: {AXES[quantity]}"
    points = [line for line in above[2].lines if line.get_marker() == "o"]
    shown = [(*np.atleast_1d(line.get_ydata()), line.get_mfc() == "white") for line in points[:3]]
    assert shown == [(0.7, True), (0.8, False), (0.5, True)]
    assert above[2].lines[0].get_ydata().tolist() == [0.7, 0.8, 0.5]  # the line goes through its points
    assert all(axis.get_xscale() == axis.get_yscale() == "log" for axis in (*above, *below))
    (legend,) = figures["estimators.png"].legends
    assert [text.get_text() for text in legend.get_texts()] == list(lines_of(above[0]))
    assert "of L_k" in above[2].get_ylabel() and "of log p(x)" in below[2].get_ylabel()
    assert set(lines_of(below[0])) == {"IWAE"}  # DReG's decoder is the same
    along_training([row for row in rows if row["epochs"] < 2], tmp_path / "along.png")
    snr, variance = figures["along.png"].axes
    assert lines_of(snr)["IWAE"] == [(k, 0.5 * k) for k in distances]
    assert lines_of(variance)["IWAE: DReG"] == [(k, 5 * k) for k in distances]
    assert [line.get_linestyle() for line in above[0].lines] == ["-", "--"]


def test_each_layer_s_means_are_its_own_standardised_where_asked(tmp_path, figures):
    run, labels = Run(tmp_path), np.array([0, 0, 1, 1])
    layers = dict(z1=np.array([[1.0, 2], [3, 4], [5, 6], [7, 9]]), z2=np.array([[10.0, 0], [20, 1], [30, 0], [50, 5]]))
    np.savez(run.arrays / "posterior_means.npz", labels=labels, **layers)
    for standardise in (False, True):
        plots.runs.posterior_pca(run, standardise)
        for axis, means in zip(figures["posterior_pca.png"].axes, layers.values(), strict=True):
            if standardise:
                means = (means - means.mean(axis=0)) / means.std(axis=0)
            np.testing.assert_allclose(np.concatenate([points.get_offsets() for points in axis.collections]), means)


def test_axes_of_posterior_means_say_what_they_are(tmp_path, figures):
    rng, run = np.random.default_rng(0), Run(tmp_path)
    spread = np.linalg.qr(rng.normal(size=(40, 5)) - 1)[0] * [9, 4, 2, 0, 0]
    spread -= spread.mean(axis=0)
    shares = np.linalg.svd(spread, compute_uv=False)[:2] ** 2 / np.sum(spread**2)
    np.savez(run.arrays / "posterior_means.npz", labels=np.arange(40) % 2, z1=spread, z2=spread[:, :2])
    plots.runs.posterior_pca(run)
    first, second = figures["posterior_pca.png"].axes
    said = [f"{which} component ({share:.0%} of the variance)" for which, share in zip(("first", "second"), shares)]
    assert [first.get_xlabel(), first.get_ylabel()] == said
    assert [second.get_xlabel(), second.get_ylabel()] == ["first unit", "second unit"]


def test_one_unit_is_drawn_along_a_line():
    points, names = plots.runs._in_two_dimensions(np.arange(4.0)[:, np.newaxis])
    assert points.tolist() == [[0, 0], [1, 0], [2, 0], [3, 0]] and names == ("first unit", "")


def test_p_is_shaded_and_q_drawn_at_one_two_and_three_standard_deviations(tmp_path, figures, monkeypatch):
    monkeypatch.setattr(plots.tasks, "save_animation", lambda *_, **__: None)
    points = np.linspace(-4.0, 4.0, 161)

    def around(first):
        return -((points - first) ** 2) / 2 - points[:, np.newaxis] ** 2 / 2

    grid = types.SimpleNamespace(first=points, second=points, log_p=around(1.0), log_q=around(-0.5),
                                 log_px=-80.0, kl=2.0)  # fmt: skip
    z, decoded = {"q(z|x)": np.zeros((4, 2))}, {"q(z|x)": np.zeros((4, 2, 2))}
    numbers = dict(test_image=61, effective_samples=123.4)
    plots.tasks.posterior_figures([plots.tasks.Posterior(np.ones((2, 2)), grid, z, decoded, numbers, 5000)], tmp_path)
    axes = figures["0.png"].axes
    (axis,) = [axis for axis in axes if axis.get_xlabel() == "first unit"]
    _, across = np.unravel_index(axis.images[0].get_array().argmax(), (161, 161))
    assert points[across] == pytest.approx(1)
    (contour,) = axis.collections
    for path, stds in zip(contour.get_paths(), (3, 2, 1), strict=True):
        np.testing.assert_allclose(np.hypot(*(path.vertices - [-0.5, 0]).T), stds, atol=0.02)
    (text,) = [text.get_text() for axis in axes for text in axis.texts]
    assert text == "log p(x), grid: -80.00\n\nKL(q || p): 2.00\n\neffective samples\nof 5000: 123"


def test_encoder_decoder_and_every_stage_have_their_own_numbers(tmp_path, figures):
    rows = [
        dict(objective="iwae_elbo", network=network, k=1, epochs=epochs, hyperparameters="", by_chance=0.1,
             snr=n * (1 + epochs), variance=10 * n * (1 + epochs), distance=2 * n * (1 + epochs))
        for network, n in (("encoder", 1), ("decoder", 100)) for epochs in (0, 1, 4)
    ]  # fmt: skip
    estimators(rows, tmp_path / "estimators.png")
    along_training(rows, tmp_path / "along.png")
    at_last = np.reshape(figures["estimators.png"].axes, (2, 3))
    assert [lines_of(axis)["IWAE"] for axis in at_last[:, :2].ravel()] == [[(1, y)] for y in (5, 50, 500, 5000)]
    assert [axis.lines[0].get_ydata().tolist() for axis in at_last[:, 2]] == [[10], [1000]]
    stages = np.reshape(figures["along.png"].axes, (2, 3))
    assert [lines_of(axis)["IWAE"] for axis in stages.ravel()] == [[(1, y)] for y in (1, 2, 5, 10, 20, 50)]
    assert [axis.get_title() for axis in stages[0]] == ["first weights", "after 1 epoch", "after 4 epochs"]


def test_estimators_of_one_target_have_one_colour_and_no_two_look_alike():
    looks = [(colour, style) for _, colour, style in NAMES.values()]
    assert len(set(looks)) == len(looks)
    for plain, doubly in (("iwae_elbo", "dreg"), *((name, f"{name}_dreg") for name in ("vr_iwae", "rws", "jvi"))):
        assert NAMES[plain][1] == NAMES[doubly][1] and NAMES[doubly][2] == "--"
    assert len({NAMES[name][1] for name in ("vae_elbo", "iwae_elbo", "miwae", "ciwae", "vr_iwae", "rws", "jvi")}) == 7


def test_estimators_are_called_what_they_are():
    said = {name: entry[0] for name, entry in NAMES.items() if name not in ("vae_elbo", "iwae_elbo", "dreg", "stl")}
    for name, words in said.items():
        assert words == name.removesuffix("_dreg").replace("_", "-").upper() + ": DReG" * name.endswith("_dreg")


def test_each_layer_s_units_are_under_its_name(tmp_path, figures):
    plots.tasks.activity_histograms({"a": [np.full(5, 1.0), np.full(2, 1e-3)]}, 0.01, tmp_path / "activity.png")
    (axis,) = figures["activity.png"].axes
    drawn = {bars[0].get_label(): sum(bar.get_height() for bar in bars) for bars in axis.containers}
    assert drawn == {"z1": 5, "z2": 2}


def test_titles_count_their_own_images(tmp_path, figures):
    test = [dict(annealed=-79, log_px=-80, annealed_mc_error=0.3, mc_error=0.4, pareto_k=0.6)]
    drawn = [dict(lower=-61.0, upper=-60.5, log_px=-61.5)] * 2
    plots.tasks.second_opinion(test, drawn, tmp_path / "annealed.png")
    titles = [axis.get_title() for axis in figures["annealed.png"].axes]
    assert titles == ["1 test images", "2 images drawn from the model"]
