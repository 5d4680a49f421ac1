"""Pictures: what is drawn, where a fault would show as a plausible picture of something else."""

import types

import numpy as np
import pytest
import tensorflow as tf

import plots.runs
from experiment.run_folder import Run
from experiment.session import REDRAWN_COLUMNS, REDRAWN_ROWS, Session


class FakeModel:
    """Its images are the first unit of z1's noise, of z2's, of z3's, and the label."""

    n_latent, n_context = (2, 2, 2), 3

    def noise(self, n_samples, batch, seed):
        return tuple(tf.random.stateless_normal([n_samples, batch, 2], [seed[0], layer]) for layer in range(3))

    def decode(self, noise, y=None):
        label = np.zeros(noise[0].shape[1]) if y is None else np.argmax(y, axis=1)
        return np.stack([*(e[0, :, 0].numpy() for e in noise), label], axis=1)


@pytest.mark.parametrize("conditional", ["no", "standard_prior"])
def test_z1_is_redrawn_along_a_row_under_the_same_upper_layers_and_label(conditional, tmp_path):
    session = Session.__new__(Session)
    session.model, session.run = FakeModel(), Run(tmp_path)
    session.config = types.SimpleNamespace(seed=0, conditional=conditional)
    session.dataset = types.SimpleNamespace(entry=types.SimpleNamespace(image_shape=(2, 2)))
    session.draw_z1_redrawn()
    with np.load(session.run.arrays / "z1_redrawn.npz") as arrays:
        drawn = arrays["means"].reshape(REDRAWN_ROWS, REDRAWN_COLUMNS, 4)
    for layer in (1, 2):
        assert np.all(drawn[:, :, layer] == drawn[:, :1, layer])
        assert len(np.unique(drawn[:, 0, layer])) == REDRAWN_ROWS
    assert len(np.unique(drawn[:, :, 0])) == REDRAWN_ROWS * REDRAWN_COLUMNS
    labels = np.zeros(REDRAWN_ROWS) if conditional == "no" else np.arange(REDRAWN_ROWS) % 3
    assert np.array_equal(drawn[:, 5, 3], labels)
    assert (session.run.figures / "z1_redrawn.png").stat().st_size > 5000


def test_points_that_only_turn_or_change_sign_stay_where_they_are_along_training(tmp_path, monkeypatch):
    """Means that are rotated from frame to frame, in a space of five units, are one cloud to the eye."""
    run, rng = Run(tmp_path), np.random.default_rng(0)
    cloud = rng.normal(size=(60, 5)) * [3, 2, 0.1, 0.1, 0.1]
    labels = np.arange(60) % 3
    for epoch in (0, 2, 16, 128):  # 16 before 2 as text
        turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
        np.savez(run.arrays / f"q_means_{epoch:04d}.npz", labels=labels, z1=cloud @ turn)
    frames = []

    def keep(figure, draw, n_frames, path):
        for i in range(n_frames):
            draw(i)
            (axis,) = figure.axes
            assert f"after {(0, 2, 16, 128)[i]} epochs" in axis.get_title()
            frames.append(np.concatenate([points.get_offsets() for points in axis.collections]))

    monkeypatch.setattr(plots.runs, "save_animation", keep)
    plots.runs.means_while_training(run)
    assert len(frames) == 4 and np.ptp(frames[0], axis=0).min() > 3
    for frame in frames[1:]:
        np.testing.assert_allclose(frame, frames[0], atol=1e-6)
