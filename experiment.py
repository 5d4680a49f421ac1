"""One experiment from the command line to its result: what main.py and every task share.

TensorFlow takes seconds to import, so it is imported only when flags and folder have been found good.
"""

import dataclasses
import functools
import json
import pathlib
import sys
import time

from config import RESULTS, SESSION, Config, UsageError, load_experiment, parse_flags, parse_session_flags
from data import N_LABELS, DataError, Dataset, load
from files import Run, provenance, whole_file, write_json
from startup import start_tensorflow

PCA_IMAGES = 2000  # test images in the picture of the posterior means


def command_line(work, description, argv=None, defaults=None, fixed=()):
    """Parses the flags, prepares a Session, calls work(session), and returns the program's exit code.

    defaults: a task's own settings, in the place of Config's. A task goes on from what its folder holds: finished
    weights are taken as they are and a run that was stopped is resumed, where main.py wants to be told so.
    fixed: names of settings that the flags may not change.
    0: done; 1: training diverged; 2: something the user can mend; 130: stopped by the user.
    """
    try:
        config, resume, eval_only = parse_flags(argv, description, defaults, fixed)
        run = _open(config, resume, eval_only, take_up=defaults is not None)
    except UsageError as error:
        return _fail(error)
    print(f"run:    {run[0].path}")
    print(f"flags:  {' '.join(f'{name}={_text(value)}' for name, value in config.experiment().items())}", flush=True)
    return _with_tensorflow(lambda: work(Session(config, *run)), config, run[0])


def survey(work, description, argv=None, **flags):
    """As command_line, for a program that looks at finished runs: calls work(settings, sessions).

    settings: the session settings given, a Config. sessions: by name, (folder, a function that makes its Session) of
    every run in results/ with weights and a measured test log likelihood.
    flags: of the program's own, as in config.parse_session_flags.
    """
    try:
        settings, own = parse_session_flags(argv, description, **flags)
    except UsageError as error:
        return _fail(error)

    def open_session(folder):
        saved = load_experiment(folder / "config.json")
        session = {name: getattr(settings, name) for name in SESSION} | {"run_dir": str(folder)}
        return Session(Config(**saved, **session).resolved(), Run(folder), eval_only=True)

    folders = sorted(path.parent for path in RESULTS.glob("*/test_llh.json") if Run.has_weights(path.parent))
    sessions = [(folder, functools.partial(open_session, folder)) for folder in folders]
    return _with_tensorflow(lambda: work(settings, sessions, **own), settings, None)


def _open(config, resume=False, eval_only=False, take_up=False):
    """(the run's folder, resume, eval_only). take_up: the folder itself says whether there is something to go on with.

    Raises UsageError.
    """
    found = Run(config.run_dir, lock=False)
    if config.start_from and not (resume or eval_only or found.weights.exists() or found.has_checkpoints()):
        _check_beginning(config)  # before the folder is made
    run = Run(config.run_dir)
    if take_up and not (resume or eval_only) and run.config.exists():
        saved = Config(**load_experiment(run.config)).resolved().experiment()
        for name, value in config.experiment().items():
            if value != saved[name]:
                raise UsageError(f"--run_dir: {run.path} holds a run with {name} {saved[name]}, not {value}")
        eval_only = run.weights.exists()
        resume = not eval_only and run.has_checkpoints()
    run.begin(config, resume, eval_only)
    return run, resume, eval_only


def _check_beginning(config):
    """Raises UsageError unless the run in --start_from has the beginning that `config` asks for."""
    other = Run(config.start_from, lock=False)
    saved = Config(**load_experiment(other.config, "start_from")).resolved().beginning()
    for name, value in config.beginning().items():
        if value != saved[name]:
            raise UsageError(f"--start_from: {other.path} has {name} {_text(saved[name])}, not {_text(value)}")
    if not other.beginning.with_suffix(".index").exists():
        raise UsageError(f"--start_from: {other.path} has no checkpoint after its {config.passes_alike} such passes")


def _with_tensorflow(work, config, run):
    try:
        print(f"device: {start_tensorflow(config.gpu, config.threads)}", flush=True)
        return _guarded(work, run)
    except KeyboardInterrupt:
        return _stopped("stopped", run)


def _guarded(work, run):
    from training.checkpoints import CheckpointError
    from training.loop import Interrupted, TrainingDiverged

    try:
        work()
    except (UsageError, DataError, CheckpointError) as error:
        return _fail(error)
    except TrainingDiverged as error:
        return _fail(error, code=1)
    except Interrupted as error:
        return _stopped(error, run)
    return 0


def _stopped(how, run):
    """Says how to go on from what there is."""
    if run is not None and (run.weights.exists() or run.has_checkpoints()):
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
        self.dataset: Dataset = load(config.dataset, config.data_dir).hold_out(config.held_out)
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

    def train_or_load(self):
        """The trained model, and the figures of its training: from its weights where there are any."""
        if self.eval_only:
            self.load_weights()
        else:
            self.train()
            self.draw()

    def sibling(self, **changes):
        """The Session of the same experiment with other settings, trained, in the folder that these name."""
        config = dataclasses.replace(self.config, **changes, run_dir=None, start_from=None).resolved()
        sibling = Session(config, *_open(config, take_up=True))
        print(f"run:    {sibling.run.path}", flush=True)
        sibling.train_or_load()
        return sibling

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
        from plots.runs import learning_curves, prior_samples

        prior_samples(self.run)
        learning_curves(self.run, self.config.objective)
        self.draw_posterior_means()

    def draw_posterior_means(self, n_images=PCA_IMAGES, standardise=False):
        """Posterior means of n_images test images (None: all), into the run's arrays and a figure."""
        import numpy as np

        from evaluation import every, posterior_means
        from plots.runs import posterior_pca

        x, y = (every(array, n_images) for array in self.test_data())
        means = posterior_means(self.model, x, y, jit=self.config.jit == "on")
        labels = every(self.dataset.test_labels, n_images)
        with whole_file(self.run.arrays / "posterior_means.npz") as temporary:
            np.savez_compressed(temporary, labels=labels, **{f"z{i}": z for i, z in enumerate(means, 1)})
        posterior_pca(self.run, standardise)

    def decoded(self, z):
        """Mean images [n, n_pixels] of latent points z [n, n_latent], for a model with one stochastic layer."""
        return self.model.likelihood(z).distribution.probs_parameter().numpy()

    def report(self):
        """The test log likelihood as it was measured, or measured now."""
        if not self.run.test_llh.exists():
            return self.measure()
        llh = json.loads(self.run.test_llh.read_text())
        print(_result_line("test", llh) + f", as {self.run.test_llh.name} has it")

    def measure(self):
        """The test log likelihood: printed, and written to test_llh.json. Returns it."""
        import numpy as np

        from evaluation import ACTIVE, every, make_activity, make_log_likelihood

        config, began = self.config, time.monotonic()
        x, y = (every(array, config.eval_images) for array in self.test_data())
        of_what = "held-out training" if config.held_out else "test"
        print(f"{of_what} log likelihood: {len(x)} images, {config.eval_samples} samples each", flush=True)
        estimate = make_log_likelihood(self.model, config.eval_samples, config.jit == "on")
        result, _ = estimate(x, y, config.seed, show_progress=True)
        if not self._is_recorded(result):
            seconds = round(time.monotonic() - began, 1)
            activity = make_activity(self.model, jit=config.jit == "on")(x, y, config.seed)
            active = {"active_units": [int(np.sum(units > ACTIVE)) for units in activity]}
            write_json(self.run.test_llh, {**result._asdict(), **active, "seconds": seconds, **provenance()})
        if result.mc_error is not None:
            print(f"Monte Carlo error on these images: {result.mc_error:.3f} nats")
        print(_result_line(of_what, result._asdict()), flush=True)
        return result

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


def _result_line(of_what, llh):
    error = f" ± {llh['standard_error']:.2f}" if llh["standard_error"] is not None else ""
    return f"{of_what} log likelihood (k={llh['n_samples']}): {llh['test_llh']:.2f}{error} nats"


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
