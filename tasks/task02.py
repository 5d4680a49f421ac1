"""How noisy are the gradients of IWAE and of the estimators that were put beside it?

The IWAE bound's gradient for q gets noisier, not better, as k grows (Rainforth et al., 1802.04537). For each estimator:
signal and noise of the gradients of encoder and decoder against k, and what their means are off by; and how the
doubly reparameterised gradient (DReG, Tucker et al., 1810.04152) changes that, and training.
"""

import dataclasses
import functools
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # it can be run from anywhere

from experiment import command_line
from experiment.session import build_model
from experiment.siblings import finished_sibling, sibling
from models.catalogue import OBJECTIVES
from utils import ProgressBar, evenly_spaced, write_csv

DEFAULTS = dict(objective="dreg", n_samples=5, preset="fast")
FIXED = ("objective", "strategy")  # gradients are taken on one device
ESTIMATORS = {  # with their hyperparameters; piwae has the encoder's gradient of miwae, the decoder's of iwae_elbo
    "vae_elbo": {},
    "iwae_elbo": {},
    "dreg": {},
    "stl": {},
    "miwae": {"groups": 8},
    "ciwae": {"elbo_weight": 0.5},
    "vr_iwae": {"alpha": 0.5},
    "vr_iwae_dreg": {"alpha": 0.5},
    "rws": {},
    "rws_dreg": {},
    "jvi": {},
    "jvi_dreg": {},
}
SAMPLES = (1, 8, 64, 512)
IMAGES = 10  # training images in the batch whose gradient is looked at
DRAWS = 200  # gradients of every estimator at every k
REFERENCE_DRAWS = 1000  # gradients that the encoder's reference is the mean of
MANY_SAMPLES, MANY_DRAWS = 5000, 20  # samples k, and gradients, of what takes the place of infinitely many samples
ALONG_TRAINING = ("iwae_elbo", "dreg", "stl")  # those shown along training
STAGES = (1, 16, 256)  # epochs after which they are shown, besides the first weights, where such weights were kept
COMPARED = (1, 5, 50)  # samples k of the runs whose learning curves are shown


def stages(session):
    """[(epochs, weights file or None for the first weights)], those that there are, the last epoch first."""
    epochs = session.config.n_epochs
    kept = [(n, session.run.weights_after(n)) for n in STAGES if n < epochs]
    return [(epochs, session.run.weights), (0, None), *((n, path) for n, path in kept if path.exists())]


class Gradients:
    """The moments of every estimator's gradient for the same images, at the weights that the model has."""

    def __init__(self, session):
        self.config, dataset = session.config, session.dataset
        self.x = dataset.binarised_train_images(IMAGES, self.config.seed)
        self.y = evenly_spaced(dataset.context("train", self.config.is_conditional), IMAGES)
        self.model = build_model(self.config, dataset.pixel_means)
        self.first_weights = self.model.get_weights()
        self._compiled = functools.cache(self._compiled)  # a graph for each objective and k, kept with this object

    def load(self, weights):
        """The model has these weights: of a file, or for None the first ones."""
        if weights is None:
            self.model.set_weights(self.first_weights)
        else:
            self.model.load_weights(weights)

    def moments(self, objective, k, n_draws, first=0):
        """{"encoder", "decoder"} -> GradientMoments, of draws numbered from `first`."""
        if k == 1 and OBJECTIVES[objective].elbo_at_one:
            objective = "vae_elbo"
        return self._compiled(objective, k)(self.x, self.y, n_draws, first)

    def _compiled(self, objective, k):
        from training.gradients import make_gradient_moments

        changes = dict(objective=objective, hyperparameters=ESTIMATORS[objective], n_samples=k, batch_size=IMAGES)
        return make_gradient_moments(dataclasses.replace(self.config, backward_samples=None, **changes), self.model)


def references(gradients):
    """What the means are held against: {("decoder" or "rws" or k of the encoder): GradientMoments}, from other noise.

    The decoder's: the gradient of log p(x), by `iwae_elbo` with MANY_SAMPLES. The encoder's: that of L_k, by `dreg`; of
    reweighted wake-sleep that of -KL(p(z|x) || q(z|x)), by `rws_dreg` with MANY_SAMPLES.
    """
    of_encoder = {k: gradients.moments("dreg", k, REFERENCE_DRAWS, first=DRAWS)["encoder"] for k in SAMPLES}
    many = {name: gradients.moments(name, MANY_SAMPLES, MANY_DRAWS, first=DRAWS) for name in ("iwae_elbo", "rws_dreg")}
    return of_encoder | {"decoder": many["iwae_elbo"]["decoder"], "rws": many["rws_dreg"]["encoder"]}


def gradient_rows(session):
    """A row for each stage, estimator, k and network.

    variance: of a parameter's gradient, averaged over the parameters; snr: GradientMoments.snr; distance: of the mean
    from the reference, at the last epoch; by_chance: the norm that noise alone would give, as GradientMoments.distance
    has it; both over the reference's norm.
    """
    gradients, rows = Gradients(session), []
    bar = ProgressBar(len(ESTIMATORS), "estimator", "SNR")
    for epochs, weights in stages(session):
        gradients.load(weights)
        last = epochs == session.config.n_epochs
        reference = references(gradients) if last else None
        for objective in ESTIMATORS if last else ALONG_TRAINING:
            for k in SAMPLES:
                if k < OBJECTIVES[objective].least_samples:
                    continue
                for network, moments in gradients.moments(objective, k, DRAWS).items():
                    row = dict(objective=objective, **_numbers(objective), k=k, epochs=epochs, network=network)
                    row |= dict(variance=float(moments.variance.mean()), snr=float(moments.snr()))
                    rows.append(row | _distance(moments, reference, network, objective, k))
            if last:
                bar.update(list(ESTIMATORS).index(objective) + 1, rows[-1]["snr"])
    return rows


def pairs(session, plain):
    """{k: (the Run with dreg, the Run with iwae_elbo)}: this task's own, and those of COMPARED that have ended; if both
    have metrics.csv.
    """
    own = {session.config.n_samples: (session.run, plain.run)}
    others = {
        k: [finished_sibling(session, objective=name, n_samples=k) for name in ("dreg", "iwae_elbo")] for k in COMPARED
    }
    every = dict(sorted((others | own).items()))
    found = {k: runs for k, runs in every.items() if all(run and run.metrics.exists() for run in runs)}
    if missing := every.keys() - found.keys():
        ks = ", ".join(map(str, sorted(missing)))
        print(f"learning curves: none for k = {ks}, whose runs are not there, have not ended, or have no metrics.csv")
    return found


def _numbers(objective):
    return {"hyperparameters": ", ".join(f"{name} {value}" for name, value in ESTIMATORS[objective].items())}


def _distance(moments, reference, network, objective, k):
    if reference is None:
        return dict(distance=None, by_chance=None)
    of_encoder = "rws" if objective in ("rws", "rws_dreg") else k
    reference = reference["decoder" if network == "decoder" else of_encoder]
    return dict(zip(("distance", "by_chance"), (float(d / reference.norm()) for d in moments.distance(reference))))


def work(session):
    """Trains with `dreg` and, for comparison, with `iwae_elbo`; then the gradients, at the weights of the latter."""
    from plots.gradients import along_training, estimators
    from plots.tasks import dreg_beside_iwae

    plain = sibling(session, objective="iwae_elbo")  # before the training: that its folder is free is known at once
    session.train_or_load()
    session.report()
    print(f"run:    {plain.run.path}", flush=True)
    plain.train_or_load()
    plain.report()
    for run in (session.run, plain.run):
        run.check_metrics()
    if compared := pairs(session, plain):
        dreg_beside_iwae(compared, session.run.figures / "dreg_learning_curves.png")
    rows = gradient_rows(plain)
    write_csv(session.run.gradient_noise, rows)
    estimators(rows, session.run.figures / "estimators.png")
    along_training(rows, session.run.figures / "gradient_noise.png")
    print(f"gradient_noise.csv and its pictures are in {session.run.path}")


if __name__ == "__main__":
    sys.exit(command_line(work, __doc__, defaults=DEFAULTS, fixed=FIXED))
