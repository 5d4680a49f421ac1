"""A session: one experiment at work, with its settings, its folder, its data and its model."""

import time

import numpy as np

from data import DataError, Dataset, load
from experiment.cluster import this_worker
from experiment.opening import check_shares
from experiment.run_folder import Run, provenance
from experiment.settings import Config
from experiment.startup import hardware
from models.catalogue import MODELS, model_class
from utils import UsageError, evenly_spaced, first_line, save_weights, whole_file, write_csv, write_json

PCA_IMAGES = 2000  # test images in the picture of the posterior means
RECONSTRUCTED = 30  # test images in the picture of reconstructions
REDRAWN_ROWS, REDRAWN_COLUMNS = 8, 12  # values of the upper layers, and draws of z1 for each


def load_data(config):
    """The data of an experiment, binarised and split as it asks for. Raises DataError."""
    try:
        dataset = _loaded(config).binarised(config.binarise).hold_out(config.held_out)
    except (OSError, MemoryError) as error:  # files that have gone since they were looked at; more than memory holds
        where, why = getattr(error, "filename", None) or config.dataset, getattr(error, "strerror", first_line(error))
        raise DataError(f"--dataset: {where} cannot be read ({why})") from None
    if config.is_conditional and (unknown := np.setdiff1d(dataset.test_labels, dataset.train_labels)).size:
        raise DataError(f"--conditional: no training image has the label {unknown[0]}, which test images have")
    return dataset


def _loaded(config):
    try:
        return load(config.dataset, config.data_dir, config.own_data)
    except DataError as error:
        raise DataError(f"--dataset: {error}") from None


class Session:
    """An experiment at work: its settings, its folder, its data and its model. Raises DataError if there is no data.

    dataset: load_data(config), where it has been loaded before.
    """

    def __init__(self, config: Config, run: Run, resume=False, eval_only=False, dataset: Dataset | None = None):
        self.config, self.run, self.resume, self.eval_only = config, run, resume, eval_only
        self.dataset = dataset or load_data(config)
        if not (resume or eval_only):
            run.begin(config)
        self.model = build_model(config, self.dataset.pixel_means)

    def train(self):
        """Trains to the end and saves the weights to test. Returns the seconds it took, of all sessions that did.

        Raises what training.loop.train raises.
        """
        from training.loop import train
        from training.replicas import n_replicas

        check_shares(self.config, n_replicas())
        if n_over := len(self.dataset.train_images) % self.config.batch_size:
            print(f"each epoch leaves out {n_over} images, different ones each time, so that every batch is full")
        start_from = Run(self.config.start_from, lock=False) if self.config.start_from else None
        seconds = train(self.config, self.run, self.dataset, self.model, self.resume, start_from)
        self.run.training.unlink(missing_ok=True)  # of other weights, that were damaged
        save_weights(self.model, self.run.weights)
        return seconds

    def train_or_load(self):
        """Gives the session a trained model: loads its weights where training has ended, or else trains and draws.

        training.json is written last: a run that is stopped while it draws is resumed, and draws.
        """
        if self.eval_only:
            return self.load_weights()
        seconds = self.train()
        self.draw()
        record = {"epochs": self.config.n_epochs, "seconds": round(seconds, 1), "weights": self.run.weights_sha256()}
        write_json(self.run.training, record | hardware(self.config.threads) | provenance())

    def load_weights(self):
        """Loads the run's weights. Raises UsageError where they are damaged, or not this model's."""
        self.run.check_weights()
        try:
            self.model.load_weights(self.run.weights)
        except Exception as error:  # damaged bytes raise whatever they lead to
            reason = first_line(error) or type(error).__name__
            raise UsageError(
                f"--run_dir: {self.run.weights} does not fit this model, or is damaged: {reason}"
            ) from None

    def test_data(self, n=None):
        """n of the binarised test images, spread evenly (None: all), and what the model is given beside them:
        [n, n_pixels] and [n, n_context].
        """
        context = self.dataset.context("test", self.config.is_conditional)
        return self.dataset.binarised_test_images(n), evenly_spaced(context, n)

    def draw(self):
        """Every figure of main.py."""
        from plots.runs import learning_curves, prior_samples

        prior_samples(self.run)
        learning_curves(self.run, self.config.objective)
        self.draw_reconstructions()
        self.draw_z1_redrawn()
        self.draw_posterior_means(PCA_IMAGES)
        self._draw_means_while_training()

    def draw_reconstructions(self):
        """Test images and their mean images at z1 = E_q[z1|x], into the run's arrays and a figure."""
        from evaluation import make_q_means
        from plots.runs import reconstructions

        x, y = self.test_data(RECONSTRUCTED)
        z1 = make_q_means(self.model, jit=self.config.compiled)(x, y, self.config.seed)[0]
        self._keep("reconstructions", images=self.as_images(x), means=self.as_images(self.model.mean_image(z1, y)))
        reconstructions(self.run)

    def draw_z1_redrawn(self):
        """With several stochastic layers: z1 drawn again and again under the layers above it, and a figure of that.

        For a conditional model each row has a label of its own.
        """
        import tensorflow as tf

        from models.random import Stream, stateless_seed
        from plots.runs import z1_redrawn

        if len(self.model.n_latent) == 1:
            return
        n, seed = REDRAWN_ROWS * REDRAWN_COLUMNS, stateless_seed(self.config.seed, Stream.PICTURE, 0)
        z1_noise, *above = self.model.noise(1, n, seed)
        above = [tf.repeat(noise[:, :REDRAWN_ROWS], REDRAWN_COLUMNS, axis=1) for noise in above]
        y = None
        if self.config.is_conditional:
            y = np.eye(self.model.n_context, dtype=np.float32)[np.arange(REDRAWN_ROWS) % self.model.n_context]
            y = np.repeat(y, REDRAWN_COLUMNS, axis=0)
        self._keep("z1_redrawn", means=self.as_images(self.model.decode((z1_noise, *above), y)))
        z1_redrawn(self.run, REDRAWN_COLUMNS)

    def _draw_means_while_training(self):
        """E_q[z|x] of test images after 0, 1, 2, 4, ... epochs, into the run's arrays, and the animation of them."""
        from evaluation import make_q_means
        from plots.runs import means_while_training

        x, y = self.test_data(PCA_IMAGES)
        labels = evenly_spaced(self.dataset.test_labels, PCA_IMAGES)
        q_means, trained = make_q_means(self.model, jit=self.config.compiled), self.model.get_weights()
        for epochs, weights in self.run.kept("after"):
            self.model.load_weights(weights)
            means = q_means(x, y, self.config.seed)
            self._keep(f"q_means_{epochs:04d}", labels=labels, **{f"z{i}": z for i, z in enumerate(means, 1)})
        self.model.set_weights(trained)
        means_while_training(self.run)

    def _keep(self, name, **arrays):
        """Keeps what a figure is drawn from, whole or not at all."""
        with whole_file(self.run.arrays / f"{name}.npz") as temporary:
            np.savez_compressed(temporary, **arrays)

    def draw_posterior_means(self, n_images=PCA_IMAGES, standardise=False):
        """Posterior means of n_images test images (None: all), into the run's arrays and a figure."""
        from evaluation import posterior_means
        from plots.runs import posterior_pca

        x, y = self.test_data(n_images)
        means = posterior_means(self.model, x, y, seed=self.config.seed, jit=self.config.compiled)
        labels = evenly_spaced(self.dataset.test_labels, n_images)
        self._keep("posterior_means", labels=labels, **{f"z{i}": z for i, z in enumerate(means, 1)})
        posterior_pca(self.run, standardise)

    def decoded(self, z1):
        """Mean images [n, height, width] of points z1 [n, n_latent] of the first stochastic layer."""
        return self.as_images(self.model.mean_image(z1))

    def as_images(self, pixels):
        """[..., n_pixels] -> NumPy [n, height, width]."""
        return np.asarray(pixels).reshape(-1, *self.dataset.entry.image_shape)

    def report(self):
        """Prints the recorded test log likelihood. With fewer recorded samples or images than asked for, or for
        --per_image, it is measured now.
        """
        config, record = self.config, self.run.recorded()
        asked = config.eval_samples, config.eval_images or config.n_test
        if config.per_image or record is None or any(was < n for was, n in zip(_size(record), asked)):
            return self.measure()
        print(_result_line(self._of_what(), record) + f", as {self.run.test_llh.name} has it")

    def measure(self):
        """Measures and prints the test log likelihood, and writes test_llh.json unless a finer record is there.

        Returns the LogLikelihood, in nats. Raises UsageError where it is not finite, and where the record is damaged.
        """
        from evaluation import ACTIVE, make_activity, make_log_likelihood
        from evaluation.monte_carlo import UNRELIABLE

        config, began = self.config, time.monotonic()
        x, y = self.test_data(config.eval_images)
        old = self.run.recorded()
        kept = old is not None and not self._replaces(old, (config.eval_samples, len(x)))
        if kept:
            size = f"k={old['n_samples']}, {old['n_images']} images"
            print(f"{self.run.test_llh.name} keeps {old['test_llh']:.2f} ({size})")
        of_what = self._of_what()
        print(f"{of_what} log likelihood: {len(x)} images, {config.eval_samples} samples each", flush=True)
        estimate = make_log_likelihood(self.model, config.eval_samples, config.compiled)
        result, per_image = estimate(x, y, config.seed, show_progress=True)
        if not np.isfinite(result.test_llh):
            raise UsageError(f"--run_dir: the weights of {self.run.path} give a log likelihood of {result.test_llh}")
        seconds = round(time.monotonic() - began, 1)
        if result.pareto_k is not None:
            high = f"above {UNRELIABLE} for {result.pareto_k_high:.0%}"
            print(f"Pareto k of the weights: median {result.pareto_k:.2f}, {high}")
        if result.mc_error is not None:
            print(f"Monte Carlo error on these images: {result.mc_error:.3f} nats")
        print(_result_line(of_what, result._asdict()), flush=True)
        if not kept:
            activity = make_activity(self.model, jit=config.compiled)(x, y, config.seed)
            active = {"active_units": [int(np.sum(units > ACTIVE)) for units in activity]}
            record = {**result._asdict(), **active, "seconds": seconds, **hardware(config.threads), **provenance()}
            write_json(self.run.test_llh, record)
        if config.per_image and not this_worker(config.strategy).number:
            self._write_per_image(per_image)
        return result

    def _of_what(self):
        return "held-out training" if self.config.held_out else "test"

    def _write_per_image(self, per_image):
        """A row for each measured test image: its number in the test set, its label, and its estimates."""
        numbers = evenly_spaced(np.arange(len(self.dataset.test_images)), self.config.eval_images)
        columns = {"test_image": numbers, "label": self.dataset.test_labels[numbers], **per_image._asdict()}
        write_csv(self.config.per_image, [dict(zip(columns, row)) for row in zip(*columns.values())])

    def _replaces(self, old, size):
        """Whether a measurement with (samples, images) = `size` takes the place of the record `old`."""
        old_size, full = _size(old), (Config.eval_samples, self.config.n_test)
        if size == old_size:
            return False
        if full in (size, old_size) and not self.config.held_out:  # the size that the tables show comes before others
            return size == full
        return all(was <= now for was, now in zip(old_size, size))


def _size(record):
    return record["n_samples"], record["n_images"]


def _result_line(of_what, llh):
    error = f" ± {llh['standard_error']:.2f}" if llh["standard_error"] is not None else ""
    return f"{of_what} log likelihood (k={llh['n_samples']}): {llh['test_llh']:.2f}{error} nats"


def build_model(config, pixel_means):
    """The model that `config` names, with its first weights drawn from `config.seed`.

    pixel_means: [n_pixels], the mean training image.
    """
    import keras

    keras.utils.set_random_seed(config.seed)
    numbers = config.numbers_of(MODELS[config.model])
    model = model_class(config.model)(
        n_hidden=config.n_hidden,
        n_latent=config.n_latent,
        n_pixels=config.data_entry.n_pixels,
        pixel_means=pixel_means,
        n_context=config.data_entry.n_labels if config.is_conditional else 0,
        learned_prior=config.conditional == "learned_prior",
        **numbers,
    )
    known = {id(variable) for variable in (*model.p_variables, *model.q_variables)}
    if known != {id(variable) for variable in model.trainable_variables}:  # what Keras does not see is not trained
        raise TypeError(f"{type(model).__name__}: p_variables and q_variables are not together trainable_variables")
    if numbers and not numbers.items() <= model.get_config().items():  # a copy would have others
        raise TypeError(f"{type(model).__name__}: get_config lacks one of {', '.join(numbers)}, or has another value")
    return model
