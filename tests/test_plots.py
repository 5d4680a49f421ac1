"""Pictures: what is drawn, where a fault would show as a plausible picture of something else."""

import types

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.colors import same_color
from PIL import Image

import plots.comparison
import plots.runs
from experiment.run_folder import Run
from experiment.session import Session
from experiment.settings import Config
from plots.style import plt, save_animation
from utils import write_csv


class FakeModel:
    """Its images are the first unit of z1's noise, of z2's, of z3's, and the label."""

    n_latent, n_context = (2, 2, 2), 3

    def noise(self, n_samples, batch, seed):
        return tuple(tf.random.stateless_normal([n_samples, batch, 2], [seed[0], layer]) for layer in range(3))

    def decode(self, noise, y=None):
        label = np.zeros(noise[0].shape[1]) if y is None else np.argmax(y, axis=1)
        return np.stack([*(e[0, :, 0].numpy() for e in noise), label], axis=1)


@pytest.mark.parametrize("conditional", ["no", "standard_prior"])
def test_z1_is_redrawn_along_a_row_under_the_same_upper_layers_and_label(conditional, tmp_path, monkeypatch):
    in_a_row, show = [], plots.runs.show_images
    monkeypatch.setattr(
        plots.runs, "show_images", lambda axis, images, *how: in_a_row.append(how[0]) or show(axis, images, *how)
    )
    session = Session.__new__(Session)
    session.model, session.run = FakeModel(), Run(tmp_path)
    session.config = Config(conditional=conditional)
    session.dataset = types.SimpleNamespace(entry=types.SimpleNamespace(image_shape=(2, 2)))
    session.draw_z1_redrawn()
    with np.load(session.run.arrays / "z1_redrawn.npz") as arrays:
        drawn = arrays["means"].reshape(8, 12, 4)
    for layer in (1, 2):
        assert np.all(drawn[:, :, layer] == drawn[:, :1, layer])
        assert len(np.unique(drawn[:, 0, layer])) == 8
    assert len(np.unique(drawn[:, :, 0])) == 8 * 12
    labels = np.zeros(8) if conditional == "no" else np.arange(8) % 3
    assert np.array_equal(drawn[:, 5, 3], labels)
    assert (session.run.figures / "z1_redrawn.png").stat().st_size > 5000 and in_a_row == [12]


def test_z1_is_redrawn_with_the_run_s_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(plots.runs, "z1_redrawn", lambda *_: None)
    drawn = []
    for seed in (0, 1):
        one = Session.__new__(Session)
        one.model, one.run = FakeModel(), Run(tmp_path / str(seed))
        one.config = Config(seed=seed)
        one.dataset = types.SimpleNamespace(entry=types.SimpleNamespace(image_shape=(2, 2)))
        one.draw_z1_redrawn()
        with np.load(one.run.arrays / "z1_redrawn.npz") as arrays:
            drawn.append(arrays["means"])
    assert not np.array_equal(*drawn)


def test_an_animation_has_every_frame(tmp_path):
    figure, axis = plt.subplots(figsize=(1, 1))
    save_animation(figure, lambda i: axis.plot([0, i]), 3, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == 3


def test_two_units_are_not_called_components_along_training(tmp_path, monkeypatch):
    run, said, rng = Run(tmp_path), [], np.random.default_rng(0)
    np.savez(run.arrays / "q_means_0000.npz", labels=np.arange(9) % 2, z1=rng.normal(size=(9, 5)), z2=np.eye(9, 2))

    def keep(figure, draw, *_):
        draw(0)
        said.extend((axis.get_xlabel(), axis.get_ylabel()) for axis in figure.axes)

    monkeypatch.setattr(plots.runs, "save_animation", keep)
    plots.runs.means_while_training(run)
    assert said == [("in the plane of the first two principal components", ""), ("first unit", "second unit")]


def test_learning_curves_are_those_of_the_log(tmp_path, figures):
    run, names = Run(tmp_path), ("iwae_elbo", "vae_elbo", "log_px_z", "kl")
    columns = [f"{split}_{name}" for split in ("train", "test") for name in names]
    rows = [{"epoch": e, "step": e} | {name: 10 * e + i for i, name in enumerate(columns)} for e in range(3)]
    write_csv(run.metrics, rows)
    plots.runs.learning_curves(run, "dreg")
    assert figures["learning_curves.png"].get_suptitle() == "Trained with dreg"
    axes = figures["learning_curves.png"].axes
    assert [axis.get_title() for axis in axes] == ["IWAE bound at the training k", "ELBO", "log p(x|z)", "KL"]
    for panel, name in zip(axes, names):
        for line in panel.lines:
            i = columns.index(f"{line.get_label()}_{name}")
            assert line.get_xdata().tolist() == [0, 1, 2] and line.get_ydata().tolist() == [i, 10 + i, 20 + i]
        assert {line.get_label() for line in panel.lines} == {"train", "test"}


def test_layers_have_panels_of_their_own_from_the_epoch_on_that_has_them(tmp_path, figures):
    """The first epochs of a run that an earlier version began are without them."""
    run, names = Run(tmp_path), ("iwae_elbo", "vae_elbo", "log_px_z", "kl", "log_p_z1", "log_q_z1")
    columns = [f"{split}_{name}" for split in ("train", "test") for name in names]
    rows = [{"epoch": e, "step": e} | {name: 10 * e + i for i, name in enumerate(columns)} for e in range(3)]
    write_csv(run.metrics, [row | {name: "" for name in columns if "_z1" in name} for row in rows[:1]] + rows[1:])
    plots.runs.learning_curves(run, "iwae_elbo")
    panels = {axis.get_title(): axis for axis in figures["learning_curves.png"].axes}
    for title, name in (("log p of z1", "log_p_z1"), ("log q of z1", "log_q_z1")):
        for line in panels[title].lines:
            i = columns.index(f"{line.get_label()}_{name}")
            np.testing.assert_array_equal(line.get_ydata(), [np.nan, 10 + i, 20 + i])


def test_posterior_means_of_each_layer_say_how_many_units_it_has(tmp_path, figures):
    run = Run(tmp_path)
    np.savez(run.arrays / "posterior_means.npz", labels=np.arange(9) % 2, z1=np.eye(9, 5), z2=np.eye(9, 2))
    plots.runs.posterior_pca(run)
    titles = [axis.get_title() for axis in figures["posterior_pca.png"].axes]
    assert titles == ["posterior means of z1 (5 units)", "posterior means of z2 (2 units)"]


def test_reconstructions_stand_below_their_images(tmp_path, figures, monkeypatch):
    run, shown = Run(tmp_path), []
    monkeypatch.setattr(plots.runs, "show_images", lambda axis, images, *_: shown.extend(images[:, 0, 0]))
    images = np.arange(6.0)[:, np.newaxis, np.newaxis] * np.ones((1, 2, 2))
    np.savez(run.arrays / "reconstructions.npz", images=images, means=100 + images)
    plots.runs.reconstructions(run, columns=3)
    assert shown == [0, 1, 2, 100, 101, 102, 3, 4, 5, 103, 104, 105]


def test_reconstructions_of_narrow_images_are_not_endlessly_high(tmp_path, monkeypatch):
    run, heights = Run(tmp_path), []
    monkeypatch.setattr(plots.runs, "save", lambda figure, path: heights.append(figure.get_size_inches()[1]))
    for width in (28, 1):
        images = np.zeros((30, 28, width))
        np.savez(run.arrays / "reconstructions.npz", images=images, means=images)
        plots.runs.reconstructions(run)
    assert heights == [pytest.approx(0.5 + 6 * 0.78), 12]


def test_the_prior_s_picture_is_the_last_one(tmp_path):
    run = Run(tmp_path)
    for epoch in (0, 2, 16):
        np.savez(run.arrays / f"prior_{epoch:04d}.npz", means=np.full((10, 4, 4), epoch / 20))
    plots.runs.prior_samples(run)
    assert (run.figures / "prior.png").read_bytes() == (run.figures / "epochs/prior_0016.png").read_bytes()
    assert (run.figures / "prior.png").read_bytes() != (run.figures / "epochs/prior_0000.png").read_bytes()


def test_without_any_epoch_kept_there_is_no_picture_of_training(tmp_path):
    run = Run(tmp_path / "run")
    plots.runs.prior_samples(run)
    plots.runs.means_while_training(run)
    assert not any(run.figures.iterdir())


def test_the_comparison_s_lines_are_what_their_labels_say(tmp_path, figures):
    sections = {"A": ("iwae_elbo", 1, "no"), "B": ("vae_elbo", 1, "no")}
    values = {("iwae_elbo", 1, 1, "no"): -3.0, ("iwae_elbo", 1, 5, "no"): -2.0, ("vae_elbo", 1, 5, "no"): -4.0}
    ours, theirs = values, {cell: value - 1 for cell, value in values.items()}
    plots.comparison.comparison(sections, (1, 5), {"ours": ours, "theirs": theirs}, tmp_path / "comparison.png")
    lines = {
        (panel.get_title(), line.get_label()): [*zip(line.get_xdata().tolist(), line.get_ydata().tolist())]
        for panel in figures["comparison.png"].axes
        for line in panel.lines
    }
    assert lines["A", "ours"] == [(0, -3.0), (1, -2.0)] and lines["A", "theirs"] == [(0, -4.0), (1, -3.0)]
    assert lines["B", "ours"] == [(1, -4.0)] and lines["B", "theirs"] == [(1, -5.0)]
    for panel in figures["comparison.png"].axes:
        assert [label.get_text() for label in panel.get_xticklabels()] == ["1", "5"]


def test_bounds_against_time_are_the_test_bounds(tmp_path, figures):
    rows = [{"epoch": n, "seconds": 10 * n, "train_iwae_elbo": -n, "test_iwae_elbo": -100 - n} for n in range(4)]
    write_csv(tmp_path / "metrics.csv", rows)
    write_csv(tmp_path / "stopped.csv", rows[:1])  # in its first epoch
    runs = {5: {"stopped": tmp_path / "stopped.csv", "a run": tmp_path / "metrics.csv"}}
    plots.comparison.bounds_against_time(runs, tmp_path / "time.png")
    stopped, line = figures["time.png"].axes[0].lines
    assert len(stopped.get_xdata()) == 0
    assert line.get_xdata().tolist() == [10, 20, 30] and line.get_ydata().tolist() == [-101, -102, -103]


def test_points_that_only_turn_or_change_sign_stay_where_they_are_along_training(tmp_path, monkeypatch):
    """Means that are rotated from frame to frame, in a space of five units, are one cloud to the eye; but two units are
    shown as they are, and on axes that stay.
    """
    run, rng = Run(tmp_path), np.random.default_rng(0)
    cloud = rng.normal(size=(60, 5)) * [3, 2, 0.1, 0.1, 0.1]
    labels = np.arange(60) % 3
    for epoch in (0, 2, 16, 128):  # 16 before 2 as text
        turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
        two = cloud[:, :2] @ np.linalg.qr(rng.normal(size=(2, 2)))[0] * (1 + epoch)
        np.savez(run.arrays / f"q_means_{epoch:04d}.npz", labels=labels, z1=cloud @ turn, z2=two)
    frames, limits = [], set()

    def keep(figure, draw, n_frames, path):
        for i in range(n_frames):
            draw(i)
            for axis in figure.axes:
                assert f"after {(0, 2, 16, 128)[i]} epochs" in axis.get_title()
            frames.append(
                [np.concatenate([points.get_offsets() for points in axis.collections]) for axis in figure.axes]
            )
            limits.add(tuple(axis.get_xlim() for axis in figure.axes))

    monkeypatch.setattr(plots.runs, "save_animation", keep)
    plots.runs.means_while_training(run)
    assert len(frames) == 4 and np.ptp(frames[0][0], axis=0).min() > 3 and len(limits) == 1
    in_order = np.concatenate([np.flatnonzero(labels == label) for label in range(3)])
    for (z1, z2), (_, path) in zip(frames, run.kept("q_means"), strict=True):
        np.testing.assert_allclose(z1, frames[0][0], atol=1e-6)
        np.testing.assert_array_equal(z2, np.load(path)["z2"][in_order])


def test_fewer_images_than_a_row_holds_are_reconstructed(tmp_path, figures):
    run, images = Run(tmp_path), np.ones((4, 2, 3))
    np.savez(run.arrays / "reconstructions.npz", images=images, means=images / 2)
    plots.runs.reconstructions(run)
    (axis,) = figures["reconstructions.png"].axes
    shown = axis.images[0].get_array()
    assert shown.shape == (2 * 2, 4 * 3) and (shown[:2] == 1).all() and (shown[2:] == 0.5).all()


def test_samples_of_the_prior_stand_beside_their_means_ten_in_a_row(tmp_path, monkeypatch):
    run, frames = Run(tmp_path), []
    for epoch, mean in ((0, 0.25), (2, 0.75)):
        np.savez(run.arrays / f"prior_{epoch:04d}.npz", means=np.full((20, 4, 4), mean))

    def keep(figure, draw, n_frames, path):
        for i in range(n_frames):
            draw(i)
            frames.append({axis.get_title(): axis.images[0] for axis in figure.axes})

    monkeypatch.setattr(plots.runs, "save_animation", keep)
    plots.runs.prior_samples(run)
    for frame, epoch, mean in zip(frames, (0, 2), (0.25, 0.75), strict=True):
        samples, means = (frame[f"{what} from the prior, after {epoch} epochs"] for what in ("samples", "means"))
        assert np.array_equal(means.get_array(), np.full((2 * 4, 10 * 4), mean))
        assert samples.get_array().shape == (8, 40) and set(np.unique(samples.get_array())) == {0, 1}
        assert samples.get_array().mean() == pytest.approx(mean, abs=0.1)
        assert {(image.get_cmap().name, image.get_clim()) for image in frame.values()} == {("gray_r", (0, 1))}
    before, after = (next(iter(frame.values())).get_array() for frame in frames)
    assert (before <= after).all()  # the uniform numbers are the same, so that only the model's change is seen


def test_a_label_stands_amid_its_own_points_in_their_colour():
    axis = plots.runs.plt.figure().subplots()
    points, labels = np.array([[0.0, 0], [2, 2], [10, 20], [12, 22]]), np.array([3, 3, 7, 7])
    artists = plots.runs.scatter_labels(axis, points, labels)
    assert [(text.get_text(), text.get_position()) for text in axis.texts] == [("3", (1, 1)), ("7", (11, 21))]
    for text, artist, rows in zip(axis.texts, artists, (slice(2), slice(2, 4)), strict=True):
        assert artist.get_label() == text.get_text() and artist.get_offsets().tolist() == points[rows].tolist()
        assert same_color(text.get_color(), artist.get_facecolor()[0, :3])
    assert plots.runs.scatter_labels(axis, points, 0 * labels) == [] and len(axis.texts) == 2
    plots.runs.plt.close()


@pytest.mark.parametrize(("n_labels", "n_named"), [(12, 12), (25, 0)])
def test_every_point_is_drawn_however_many_labels_there_are(n_labels, n_named):
    axis = plots.runs.plt.figure().subplots()
    artists = plots.runs.scatter_labels(axis, np.zeros((50, 2)), np.arange(50) % n_labels)
    assert sum(len(points.get_offsets()) for points in axis.collections) == 50
    assert len(axis.collections) == n_labels and len(artists) == len(axis.texts) == n_named
    plots.runs.plt.close()
