"""A program's frame: flags and folder first, then TensorFlow, then the work, and an exit code with one line on errors.

TensorFlow takes seconds to import, so it is imported only when flags and folder have been found good.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import shlex
import signal
import sys
import threading

from experiment import run_folder
from experiment.flags import as_words, parse_call_flags, parse_flags
from experiment.opening import open_folder
from experiment.run_folder import Run, load_config
from experiment.session import Session, load_data
from experiment.settings import CALL, EVALUATION, Config, flag_fields
from experiment.startup import single_precision, start_tensorflow
from utils import UsageError, first_line, left_out


def _without_tracebacks(program):
    """Decorates a program: characters that a terminal lacks are escaped, a stream may be closed, and what the user can
    mend, a reader that goes away, a full disk or Ctrl-C ends it without a traceback.
    """

    @functools.wraps(program)
    def run(*args, **kwargs):
        while (number := os.open(os.devnull, os.O_RDWR)) < 3:  # else a file would take the place of a closed stream
            pass
        os.close(number)
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed, as a daemon's may be
                setattr(sys, name, open(os.devnull, "w"))
            elif hasattr(getattr(sys, name), "reconfigure"):
                getattr(sys, name).reconfigure(errors="backslashreplace")
        try:
            code = program(*args, **kwargs)
            sys.stdout.flush()
            return code
        except UsageError as error:
            return _fail(error)
        except KeyboardInterrupt:
            return _stopped("stopped", None, None)
        except BrokenPipeError:  # as `| head -1` makes it
            _flush_or_drop()
            return 128 + signal.SIGPIPE
        except OSError as error:
            _flush_or_drop()
            return _fail(f"{error.strerror or error}: {error.filename or 'stdout or a file'}")

    return run


def _flush_or_drop():
    """Writes what stdout holds back. What cannot be written is dropped: else Python would try again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@_without_tracebacks
def command_line(work, description, argv=None, defaults=None, fixed=()):
    """Parses the flags, prepares a Session, calls work(session), and returns the program's exit code.

    defaults: a task's own settings, in the place of Config's. A task goes on from what its folder holds: finished
    weights are taken as they are and a run that was stopped is resumed; main.py needs --eval_only or --resume for that.
    fixed: names of settings that the flags may not change.
    0: done; 1: training diverged; 2: something the user can mend; 3: another worker is gone; 130: stopped by the user;
    141: no one reads stdout.
    """
    config, resume, eval_only = parse_flags(argv, description, defaults, fixed)
    if defaults is not None:
        _check_alone(config)
    run, resume, eval_only = open_folder(config, resume, eval_only, continue_existing=defaults is not None)
    try:
        print(f"run:    {config.run_dir}")
        flags = " ".join(f"{name}={as_words(value)}" for name, value in config.experiment().items())
        print(f"flags:  {flags}", flush=True)
        # The user's own data may be refused, so they are read before TensorFlow starts.
        dataset = load_data(config) if config.own_data else None
        return _with_tensorflow(lambda: work(Session(config, run, resume, eval_only, dataset)), config, run)
    except KeyboardInterrupt:
        return _stopped("stopped", config, run)
    finally:
        run.release()


def _check_alone(config):
    """Raises UsageError where a program that trains and draws much more than one run is to be done by many workers."""
    if config.strategy == "multi_worker":
        raise UsageError(
            "--strategy: multi_worker is for main.py; train with it first, and run this program as one process"
        )


@_without_tracebacks
def survey(work, description, argv=None, same=(), first=None, evaluation=True, **flags):
    """As command_line, for a program that looks at finished runs: calls work(settings, sessions, **own flags).

    settings: the flags given, a Config. sessions: yields (name, Session with the weights) of each run in results/ that
    has weights and a measured likelihood, sorted by name, the folder's path below results/; each is opened when its
    turn comes. One that cannot be opened is left out, with a line on stderr; len(sessions) counts it.
    same: names of settings that are flags too, and that the runs must share; then there must be such a run. evaluation,
    flags: as in parse_call_flags. first: first(**own flags) is called before TensorFlow starts; if it returns true,
    that is all.
    """
    settings, own = parse_call_flags(argv, description, same, evaluation, **flags)
    _check_alone(settings)
    if first is not None and first(**own):
        return 0
    runs = [Run(path.parent, lock=False) for path in run_folder.RESULTS.rglob("test_llh.json")]
    folders = sorted(run.path for run in runs if run.is_trained())
    folders = [folder for folder in folders if not same or _shares(folder, settings, same)]
    if same and not folders:
        asked = [(f"--{k}", str(getattr(settings, k))) for k in same if getattr(settings, k) != getattr(Config, k)]
        command = shlex.join(["python", "main.py", "--preset", "quick", *(word for flag in asked for word in flag)])
        raise UsageError(f"no trained model in results/; {command} makes one")
    return _with_tensorflow(lambda: work(settings, _FinishedRuns(folders, settings), **own), settings, None)


def _name_of(folder):
    return str(folder.relative_to(run_folder.RESULTS))


def _shares(folder, settings, names):
    try:
        config = load_config(folder)
    except UsageError as error:
        return left_out(_name_of(folder), error)
    return all(getattr(config, name) == getattr(settings, name) for name in names)


class _FinishedRuns:
    """Finished runs, opened one after another: the folder of each is free when the next one is asked for."""

    def __init__(self, folders, settings):
        self.folders = folders
        self.call = {name: getattr(settings, name) for name in (CALL | EVALUATION) - {"preset"}}

    def __len__(self):
        return len(self.folders)

    def __iter__(self):
        loaded = {}  # the data of the last run, for those after it that have the same
        for folder in self.folders:
            with contextlib.ExitStack() as stack:
                try:
                    config = dataclasses.replace(load_config(folder), **self.call | {"run_dir": str(folder)}).resolved()
                    run = Run(folder)
                    stack.callback(run.release)
                    run.recorded()
                    run.check_metrics()
                    data = config.dataset, str(config.own_data), config.binarise, config.held_out
                    if data not in loaded:
                        loaded.clear()
                        loaded[data] = load_data(config)
                    session = Session(config, run, eval_only=True, dataset=loaded[data])
                    session.load_weights()
                except UsageError as error:
                    left_out(_name_of(folder), error)
                    continue
                yield _name_of(folder), session


def _with_tensorflow(work, config, run):
    os.environ["MPLBACKEND"] = "Agg"  # the figures are files; a user's own choice may not be installed here
    with _sigterm_as_ctrl_c():
        device = start_tensorflow(config.gpu, config.threads, config.strategy)
        print(f"device: {device.line}", flush=True)
        with single_precision(), device.strategy.scope() if device.strategy else contextlib.nullcontext():
            return _guarded(work, config, run)


@contextlib.contextmanager
def _sigterm_as_ctrl_c():
    """Within, SIGTERM raises KeyboardInterrupt; in threads other than the main one Python allows no handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _guarded(work, config, run):
    import tensorflow as tf

    from training.loop import Interrupted, TrainingDiverged

    try:
        work()
    except TrainingDiverged as error:
        return _fail(error, code=1)
    except Interrupted as error:
        return _stopped(error, config, run)
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        if config.strategy != "multi_worker":
            raise
        return _stopped(f"another worker is gone ({type(error).__name__})", config, run, code=3)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        problem = f"there is not enough memory for so many samples, images or units ({first_line(error)})"
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk, say: what was written before is whole
        problem = f"{error.strerror or error}: {error.filename or 'no more can be written'}"
    else:
        return 0
    _fail(problem)
    _say_how_to_go_on(config, run)
    return 2


def _stopped(how, config, run, code=130):
    print(f"\n{how}", file=sys.stderr)
    _say_how_to_go_on(config, run)
    return code


def _say_how_to_go_on(config, run):
    """From what there is in the run's folder."""
    if run is not None and (run.is_trained() or run.has_checkpoints()):
        command = [sys.executable, sys.argv[0], "--eval_only" if run.is_trained() else "--resume"]
        saved = load_config(run.path)
        for field in flag_fields():
            name, value = field.name, getattr(config, field.name)
            usual = getattr(saved, name) if name in EVALUATION else field.default
            if name in EVALUATION | (CALL - {"preset", "start_from"}) and value != usual:
                value = config.n_test if value is None else value  # None is --eval_images: all
                command += [f"--{name}", ",".join(map(str, value)) if name == "gpu" else str(value)]
        print(f"go on with: {shlex.join(command)}", file=sys.stderr)


def _fail(error, code=2):
    print(f"{pathlib.Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
    return code
