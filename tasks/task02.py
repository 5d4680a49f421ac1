"""The doubly reparameterised gradient (DReG, Tucker et al., 1810.04152).

The IWAE bound's gradient for q gets noisier, not better, as k grows (Rainforth et al., 1802.04537). How do the signal
and the noise of three estimators change with k, and with training?
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # it can be run from anywhere

from experiment import command_line  # noqa: E402

DEFAULTS = dict(objective="dreg", n_samples=5, preset="fast")
FIXED = ("objective",)
ESTIMATORS = ("iwae_elbo", "dreg", "stl")
SAMPLES = (1, 2, 8, 32, 128, 512)
IMAGES = 10  # training images in the batch whose gradient is looked at
DRAWS = 200  # gradients of every estimator at every k
COMPARED = (1, 5, 50)  # samples k of the runs whose learning curves are shown
STAGES = (0, 1, 16, 256)  # epochs after which a model is looked at, besides the last, where its weights are there


def stages(session):
    """[(epochs, weights file or None for the first weights)], those that there are."""
    epochs = session.config.n_epochs
    kept = [(n, session.run.weights_after(n)) for n in STAGES if 0 < n < epochs]
    return [(0, None), *((n, path) for n, path in kept if path.exists()), (epochs, session.run.weights)]


def noise_rows(session):
    """A row for each stage, estimator and k: the variance and the signal-to-noise ratio of the encoder's gradient."""
    import dataclasses

    import numpy as np

    from experiment.session import build_model
    from training.gradients import make_gradient_noise
    from utils import ProgressBar, evenly_spaced

    config, dataset = session.config, session.dataset
    means = evenly_spaced(dataset.train_images, IMAGES) / 255.0
    x = (np.random.default_rng(config.seed).random(means.shape) < means).astype(np.float32)
    y = evenly_spaced(dataset.context("train", config.conditional != "no"), IMAGES)
    model, rows, there = build_model(config, dataset.pixel_means), [], stages(session)
    bar = ProgressBar(len(ESTIMATORS) * len(there) * sum(SAMPLES), "sample", "SNR")
    done = 0
    for objective in ESTIMATORS:
        for k in SAMPLES:
            changes = dict(objective=objective, n_samples=k, batch_size=IMAGES, backward_samples=None)
            gradient_noise = make_gradient_noise(dataclasses.replace(config, **changes), model)
            for epochs, weights in there:
                if weights is None:
                    model.set_weights(build_model(config, dataset.pixel_means).get_weights())
                else:
                    model.load_weights(weights)
                variance, snr = gradient_noise(x, y, DRAWS)
                rows.append(dict(objective=objective, k=k, epochs=epochs, variance=variance, snr=snr))
                done += k
                bar.update(done, snr)
    return rows


def pairs(session, plain):
    """{k: (the Run with dreg, the Run with iwae_elbo)}: this task's own, and those of COMPARED that have ended."""
    found = {session.config.n_samples: (session.run, plain.run)}
    for k in COMPARED:
        runs = [session.finished_sibling(objective=name, n_samples=k) for name in ("dreg", "iwae_elbo")]
        if all(runs):
            found.setdefault(k, runs)
    if missing := sorted({*COMPARED} - found.keys()):
        print(f"learning curves: none for k = {', '.join(map(str, missing))}; this task with that --n_samples has them")
    return dict(sorted(found.items()))


def work(session):
    """Trains with `dreg` and, for comparison, with `iwae_elbo`; then the estimators' noise, on the latter's model."""
    from plots.tasks import dreg_beside_iwae, gradient_noise
    from utils import write_csv

    session.train_or_load()
    session.report()
    plain = session.sibling(objective="iwae_elbo")
    plain.report()
    dreg_beside_iwae(pairs(session, plain), session.run.figures / "dreg_learning_curves.png")
    rows = noise_rows(plain)
    write_csv(session.run.path / "gradient_noise.csv", rows)
    gradient_noise(rows, session.run.figures / "gradient_noise.png")
    print(f"gradient_noise.csv and its picture are in {session.run.path}")


if __name__ == "__main__":
    sys.exit(command_line(work, __doc__, defaults=DEFAULTS, fixed=FIXED))
