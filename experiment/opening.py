"""How a run's folder is opened: for a new run, to go on with one, or to measure it."""

import os

from experiment.cluster import scratch_copy, this_worker
from experiment.flags import as_words
from experiment.run_folder import Run, load_config
from utils import UsageError, read_csv


def open_folder(config, resume=False, eval_only=False, continue_existing=False):
    """(the Run, which is locked until its release(); resume; eval_only). Raises UsageError.

    continue_existing: finished weights in the folder are taken as they are, and a run that was stopped is resumed.
    """
    if config.per_image is not None and not _may_hold_values(config.per_image, config.run_dir):
        raise UsageError(
            f"--per_image: {config.per_image} is not allowed; a new .csv file, or that of an earlier --per_image, in"
            " a folder that can be written"
        )
    worker = this_worker(config.strategy)
    if not eval_only:
        check_shares(config, worker.n_workers * len(config.gpu or (0,)))
    folder = scratch_copy(config.run_dir) if worker.number else config.run_dir
    found = Run(folder, lock=False)
    if config.start_from and not (resume or eval_only or found.is_trained() or found.has_checkpoints()):
        _check_beginning(config)  # before the folder is made
    run = Run(folder)
    try:
        return run, *_found_in(run, config, resume, eval_only, continue_existing)
    except UsageError:
        run.release()
        raise


def _may_hold_values(path, run_dir):
    """Whether --per_image can write a file at the path without the loss of anything else."""
    run = Run(os.path.realpath(run_dir), lock=False)
    folder, name = os.path.split(os.path.abspath(path))
    folder = os.path.realpath(folder)
    if not name.endswith(".csv") or len(os.fsencode(name)) > 200:  # of 255: it is first written under a longer name
        return False
    others = run.metrics, run.annealed, run.bracket, run.posteriors, run.gradient_noise
    if os.path.join(folder, name) in map(str, others):
        return False
    if os.path.lexists(path):
        if os.path.islink(path) or not os.path.isfile(path):
            return False
        try:
            with open(path, encoding="utf-8-sig") as file:  # with the mark that spreadsheets write first
                if file.read(len(start := "test_image,")) not in ("", start):
                    return False
        except (OSError, ValueError):
            return False
    return os.access(folder, os.W_OK) if os.path.isdir(folder) else folder == str(run.path)


def _found_in(run, config, resume, eval_only, continue_existing):
    """resume and eval_only as open_folder returns them. Raises UsageError where they do not fit what is there."""
    if continue_existing and not (resume or eval_only) and run.config.exists():
        saved = load_config(run.path).experiment()
        for name, value in config.experiment().items():
            if value != saved[name]:
                raise UsageError(
                    f"--run_dir: {run.path} holds a run with {name} {as_words(saved[name])}, not {as_words(value)}"
                )
        eval_only = run.is_trained()
        resume = not eval_only and run.has_checkpoints()
    if resume and run.is_whole():  # there is nothing left to do but to measure it
        resume, eval_only = False, True
    run.check(config, resume, eval_only)
    return resume, eval_only


def check_shares(config, n_replicas):
    """Raises UsageError unless so many devices divide the batch size."""
    if config.batch_size % n_replicas:
        raise UsageError(f"--batch_size: {config.batch_size} is not allowed; {n_replicas} devices must divide it")


def _check_beginning(config):
    """Raises UsageError unless the run in --start_from has the beginning that `config` asks for."""
    other = Run(config.start_from, lock=False)
    other.check_metrics("start_from")
    other.check_arrays("start_from")
    saved = load_config(other.path, "start_from").beginning()
    for name, value in config.beginning().items():
        if value != saved[name]:
            raise UsageError(f"--start_from: {other.path} has {name} {as_words(saved[name])}, not {as_words(value)}")
    if not other.beginning.with_suffix(".index").exists():
        raise UsageError(
            f"--start_from: {other.path} has no checkpoint after its first {config.beginning_epochs} epochs"
        )
    rows = read_csv(other.metrics) if other.metrics.exists() else []
    if not any(int(row["epoch"]) < config.beginning_epochs for row in rows):
        raise UsageError(f"--start_from: {other.path} has no {other.metrics.name} of its first epochs")
