"""One experiment from the command line to its result: what main.py and every task share.

TensorFlow takes seconds to import, so it is imported only when flags and folder have been found good.
"""

import json
import pathlib
import sys
import time

from config import Config, UsageError, parse_flags
from data import N_LABELS, DataError, Dataset, load
from files import Run, provenance, whole_file, write_json
from startup import start_tensorflow

PCA_IMAGES = 2000  # test images in the picture of the posterior means


def command_line(work, description, argv=None):
    """Parses the flags, prepares a Session, calls work(session), and returns the program's exit code.

    0: done; 1: training diverged; 2: something the user can mend; 130: stopped by the user.
    """
    try:
        config, resume, eval_only = parse_flags(argv, description)
        run = Run(config.run_dir)
        run.begin(config, resume, eval_only)
    except UsageError as error:
        return _fail(error)
    print(f"run:    {run.path}")
    print(f"flags:  {' '.join(f'{name}={_text(value)}' for name, value in config.experiment().items())}", flush=True)
    try:
        print(f"device: {start_tensorflow(config.gpu, config.threads)}", flush=True)
        return _with_tensorflow(work, config, run, resume, eval_only)
    except KeyboardInterrupt:
        return _stopped("stopped", run)


def _with_tensorflow(work, config, run, resume, eval_only):
    from training.checkpoints import CheckpointError
    from training.loop import Interrupted, TrainingDiverged

    try:
        work(Session(config, run, resume, eval_only))
    except (UsageError, DataError, CheckpointError) as error:
        return _fail(error)
    except TrainingDiverged as error:
        return _fail(error, code=1)
    except Interrupted as error:
        return _stopped(error, run)
    return 0


def _stopped(how, run):
    """Says how to go on from what there is."""
    if run.weights.exists() or any(run.checkpoints.glob("*.index")):
        flag = "--eval_only" if run.weights.exists() else "--resume"
        how = f"{how}\ngo on with: python {sys.argv[0]} {flag} --run_dir {run.path}"
    print(f"\n{how}", file=sys.stderr)
    return 130


def _fail(error, code=2):
    print(f"{pathlib.Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
    return code


def _text(value):
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


class Session:
    """An experiment at work: its settings, its folder, its data and its model. Raises DataError if there is no data."""

    def __init__(self, config: Config, run: Run, resume=False, eval_only=False):
        self.config, self.run, self.resume, self.eval_only = config, run, resume, eval_only
        self.dataset: Dataset = load(config.dataset, config.data_dir)
        self.model = build_model(config, self.dataset.pixel_means)

    def train(self):
        """Trains to the end and saves the weights to test. Raises what training.loop.train raises."""
        from training.loop import train

        if left_out := len(self.dataset.train_images) % self.config.batch_size:
            print(f"each pass leaves out {left_out} images, others every time, for whole batches")
        seconds = train(self.config, self.run, self.dataset, self.model, self.resume)
        with whole_file(self.run.weights) as temporary:
            self.model.save_weights(temporary)
        write_json(self.run.training, {"passes": self.config.passes, "seconds": round(seconds, 1), **provenance()})

    def load_weights(self):
        """Loads the run's weights. Raises UsageError where they are not this model's."""
        try:
            self.model.load_weights(self.run.weights)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UsageError(
                f"--run_dir: {self.run.weights} does not fit this model, or is damaged: {reason}"
            ) from None

    def test_data(self):
        """The binarised test images and what the model is conditioned on: [10000, 784] and [10000, n_context]."""
        context = self.dataset.context("test", self.config.conditional != "no")
        return self.dataset.binarised_test_images(), context

    def draw(self):
        """Every figure of main.py."""
        import numpy as np

        import plots
        from evaluation import every, posterior_means

        x, y = (every(array, PCA_IMAGES) for array in self.test_data())
        means = posterior_means(self.model, x, y, jit=self.config.jit == "on")
        labels = every(self.dataset.test_labels, PCA_IMAGES)
        with whole_file(self.run.arrays / "posterior_means.npz") as temporary:
            np.savez_compressed(temporary, labels=labels, **{f"z{i}": z for i, z in enumerate(means, 1)})
        plots.draw_all(self.run, self.config.objective)

    def measure(self):
        """The test log likelihood: printed, and written to test_llh.json."""
        from evaluation import every, make_log_likelihood

        config, began = self.config, time.monotonic()
        x, y = (every(array, config.eval_images) for array in self.test_data())
        print(f"test log likelihood: {len(x)} images, {config.eval_samples} samples each", flush=True)
        estimate = make_log_likelihood(self.model, config.eval_samples, config.jit == "on")
        result, _ = estimate(x, y, config.seed, show_progress=True)
        if not self._is_recorded(result):
            seconds = round(time.monotonic() - began, 1)
            write_json(self.run.test_llh, {**result._asdict(), "seconds": seconds, **provenance()})
        if result.mc_error is not None:
            print(f"Monte Carlo error on these images: {result.mc_error:.3f} nats")
        error = f" ± {result.standard_error:.2f}" if result.standard_error is not None else ""
        print(f"test log likelihood (k={result.n_samples}): {result.test_llh:.2f}{error} nats", flush=True)

    def _is_recorded(self, result):
        """Whether test_llh.json has as many samples and images already: that record stays, and is shown beside."""
        try:
            old = json.loads(self.run.test_llh.read_text())
        except (OSError, ValueError):
            return False
        if old["n_samples"] < result.n_samples or old["n_images"] < result.n_images:
            return False
        print(f"{self.run.test_llh.name} keeps {old['test_llh']:.2f} (k={old['n_samples']}, {old['n_images']} images)")
        return True


def build_model(config, pixel_means):
    """The model that `config` describes, with its first weights drawn from `config.seed`."""
    import keras

    from models import IWAE

    keras.utils.set_random_seed(config.seed)
    return IWAE(
        config.n_hidden,
        config.n_latent,
        pixel_means=pixel_means,
        n_context=N_LABELS if config.conditional != "no" else 0,
        learned_prior=config.conditional == "learned_prior",
    )
