"""A session: one experiment at work, with its settings, its folder, its data and its model."""

import dataclasses
import time

import numpy as np

from data import Dataset, load
from data.catalogue import DATASETS
from experiment.errors import UsageError
from experiment.flags import as_words, default_path
from experiment.run_folder import Run, load_config, provenance
from experiment.settings import Config
from models.catalogue import model_class
from utils import evenly_spaced, save_weights, whole_file, write_csv, write_json

PCA_IMAGES = 2000  # test images in the picture of the posterior means
RECONSTRUCTED = 30  # test images in the picture of reconstructions


def open_folder(config, resume=False, eval_only=False, continue_existing=False):
    """(the run's folder, resume, eval_only). Raises UsageError.

    continue_existing: finished weights in the folder are taken as they are, and a run that was stopped is resumed.
    """
    found = Run(config.run_dir, lock=False)
    if config.start_from and not (resume or eval_only or found.weights.exists() or found.has_checkpoints()):
        _check_beginning(config)  # before the folder is made
    run = Run(config.run_dir)
    if continue_existing and not (resume or eval_only) and run.config.exists():
        saved = load_config(run.path).experiment()
        for name, value in config.experiment().items():
            if value != saved[name]:
                raise UsageError(
                    f"--run_dir: {run.path} holds a run with {name} {as_words(saved[name])}, not {as_words(value)}"
                )
        eval_only = run.weights.exists()
        resume = not eval_only and run.has_checkpoints()
    run.begin(config, resume, eval_only)
    return run, resume, eval_only


def _check_beginning(config):
    """Raises UsageError unless the run in --start_from has the beginning that `config` asks for."""
    other = Run(config.start_from, lock=False)
    saved = load_config(other.path, "start_from").beginning()
    for name, value in config.beginning().items():
        if value != saved[name]:
            raise UsageError(f"--start_from: {other.path} has {name} {as_words(saved[name])}, not {as_words(value)}")
    if not other.beginning.with_suffix(".index").exists():
        raise UsageError(
            f"--start_from: {other.path} has no checkpoint after its {config.beginning_epochs} such epochs"
        )


class Session:
    """An experiment at work: its settings, its folder, its data and its model. Raises DataError if there is no data."""

    def __init__(self, config: Config, run: Run, resume=False, eval_only=False):
        self.config, self.run, self.resume, self.eval_only = config, run, resume, eval_only
        self.dataset: Dataset = load(config.dataset, config.data_dir).hold_out(config.held_out)
        self.model = build_model(config, self.dataset.pixel_means)

    def train(self):
        """Trains to the end and saves the weights to test. Raises what training.loop.train raises."""
        from training.loop import train

        if left_out := len(self.dataset.train_images) % self.config.batch_size:
            print(f"each epoch leaves out {left_out} images, others every time, for whole batches")
        start_from = Run(self.config.start_from, lock=False) if self.config.start_from else None
        seconds = train(self.config, self.run, self.dataset, self.model, self.resume, start_from)
        save_weights(self.model, self.run.weights)
        record = {"epochs": self.config.n_epochs, "seconds": round(seconds, 1), "weights": self.run.weights_sha256()}
        write_json(self.run.training, record | provenance())

    def train_or_load(self):
        """The trained model, and the figures of its training: from its weights where there are any."""
        if self.eval_only:
            self.load_weights()
        else:
            self.train()
            self.draw()

    def sibling(self, **changes):
        """The Session of the same experiment with other settings, trained, in the folder that these name."""
        config = dataclasses.replace(self.config, hyperparameters=None, start_from=None, **changes).resolved()
        config = dataclasses.replace(config, run_dir=str(default_path(config)))
        sibling = Session(config, *open_folder(config, continue_existing=True))
        print(f"run:    {sibling.run.path}", flush=True)
        sibling.train_or_load()
        return sibling

    def load_weights(self):
        """Loads the run's weights. Raises UsageError where they are not this model's."""
        try:
            self.model.load_weights(self.run.weights)
        except Exception as error:  # damaged bytes raise whatever they lead to
            reason = f"{error} ".splitlines()[0].strip() or type(error).__name__
            raise UsageError(
                f"--run_dir: {self.run.weights} does not fit this model, or is damaged: {reason}"
            ) from None

    def test_data(self):
        """The binarised test images and what the model is given beside them: [n, n_pixels] and [n, n_context]."""
        context = self.dataset.context("test", self.config.conditional != "no")
        return self.dataset.binarised_test_images(), context

    def draw(self):
        """Every figure of main.py."""
        from plots.runs import learning_curves, prior_samples, reconstructions

        prior_samples(self.run)
        self._keep_reconstructions()
        reconstructions(self.run)
        learning_curves(self.run, self.config.objective)
        self.draw_posterior_means()

    def _keep_reconstructions(self):
        """Test images and their mean images at z1 = E_q[z1|x], into the run's arrays."""
        from evaluation import q_means

        x, y = (evenly_spaced(array, RECONSTRUCTED) for array in self.test_data())
        z1 = q_means(self.model, x, y, seed=self.config.seed, jit=self.config.jit == "on")[0]
        means = self.as_images(self.model.mean_image(z1, y))
        with whole_file(self.run.arrays / "reconstructions.npz") as temporary:
            np.savez_compressed(temporary, images=self.as_images(x), means=means)

    def draw_posterior_means(self, n_images=PCA_IMAGES, standardise=False):
        """Posterior means of n_images test images (None: all), into the run's arrays and a figure."""
        from evaluation import posterior_means
        from plots.runs import posterior_pca

        x, y = (evenly_spaced(array, n_images) for array in self.test_data())
        means = posterior_means(self.model, x, y, jit=self.config.jit == "on")
        labels = evenly_spaced(self.dataset.test_labels, n_images)
        with whole_file(self.run.arrays / "posterior_means.npz") as temporary:
            np.savez_compressed(temporary, labels=labels, **{f"z{i}": z for i, z in enumerate(means, 1)})
        posterior_pca(self.run, standardise)

    def decoded(self, z1):
        """Mean images [n, height, width] of points z1 [n, n_latent] of the first stochastic layer."""
        return self.as_images(self.model.mean_image(z1))

    def as_images(self, pixels):
        """[..., n_pixels] -> NumPy [n, height, width]."""
        return np.asarray(pixels).reshape(-1, *self.dataset.entry.image_shape)

    def report(self):
        """The test log likelihood as it was measured, or measured now."""
        if (record := self.run.recorded()) is None:
            return self.measure()
        print(_result_line("test", record) + f", as {self.run.test_llh.name} has it")

    def measure(self):
        """The test log likelihood: printed, and written to test_llh.json. Returns it."""
        from evaluation import ACTIVE, make_activity, make_log_likelihood

        config, began = self.config, time.monotonic()
        x, y = (evenly_spaced(array, config.eval_images) for array in self.test_data())
        kept = self._kept_record(config.eval_samples, len(x))
        of_what = "held-out training" if config.held_out else "test"
        print(f"{of_what} log likelihood: {len(x)} images, {config.eval_samples} samples each", flush=True)
        estimate = make_log_likelihood(self.model, config.eval_samples, config.jit == "on")
        result, per_image = estimate(x, y, config.seed, show_progress=True)
        if not np.isfinite(result.test_llh):
            raise UsageError(f"--run_dir: the weights of {self.run.path} give a log likelihood of {result.test_llh}")
        seconds = round(time.monotonic() - began, 1)
        if result.pareto_k is not None:
            print(f"Pareto k of the weights: median {result.pareto_k:.2f}, above 0.7 for {result.pareto_k_high:.0%}")
        if result.mc_error is not None:
            print(f"Monte Carlo error on these images: {result.mc_error:.3f} nats")
        print(_result_line(of_what, result._asdict()), flush=True)
        if not kept:
            activity = make_activity(self.model, jit=config.jit == "on")(x, y, config.seed)
            active = {"active_units": [int(np.sum(units > ACTIVE)) for units in activity]}
            write_json(self.run.test_llh, {**result._asdict(), **active, "seconds": seconds, **provenance()})
        if config.per_image:
            self._write_per_image(per_image)
        return result

    def _write_per_image(self, per_image):
        """A row for each measured test image: its number in the test set, its label, and its estimates."""
        numbers = evenly_spaced(np.arange(len(self.dataset.test_images)), self.config.eval_images)
        columns = {"test_image": numbers, "label": self.dataset.test_labels[numbers], **per_image._asdict()}
        write_csv(self.config.per_image, [dict(zip(columns, row)) for row in zip(*columns.values())])

    def _kept_record(self, n_samples, n_images):
        """Whether test_llh.json has as many samples and images already: that record stays, and is shown beside.

        One of the same size whose error is not of the present kind is replaced. Raises UsageError if it is damaged.
        """
        if (old := self.run.recorded()) is None:
            return False
        size, new_size = (old["n_samples"], old["n_images"]), (n_samples, n_images)
        if size[0] < n_samples or size[1] < n_images or (size == new_size and "pareto_k" not in old):
            return False
        print(f"{self.run.test_llh.name} keeps {old['test_llh']:.2f} (k={size[0]}, {size[1]} images)")
        return True


def _result_line(of_what, llh):
    error = f" ± {llh['standard_error']:.2f}" if llh["standard_error"] is not None else ""
    return f"{of_what} log likelihood (k={llh['n_samples']}): {llh['test_llh']:.2f}{error} nats"


def build_model(config, pixel_means):
    """The model that `config` names, with its first weights drawn from `config.seed`.

    pixel_means: [n_pixels], the mean training image.
    """
    import keras

    keras.utils.set_random_seed(config.seed)
    return model_class(config.model)(
        n_hidden=config.n_hidden,
        n_latent=config.n_latent,
        n_pixels=DATASETS[config.dataset].n_pixels,
        pixel_means=pixel_means,
        n_context=DATASETS[config.dataset].n_labels if config.conditional != "no" else 0,
        learned_prior=config.conditional == "learned_prior",
    )
