"""python -m benchmarks.error_bars: whether the reported Monte Carlo error is the spread over repeated evaluations.

Prints a Markdown table with a row for each model: test images measured again and again with other seeds. With --cost
it says instead what errors and Pareto k add to the time of an evaluation.
"""

import math
import time
from unittest import mock

import numpy as np

from benchmarks.flags import at_least
from experiment import load_run
from experiment.flags import Parser
from experiment.run_folder import RESULTS
from utils import UsageError, evenly_spaced

RUNS = ("fast/iwae-1l-k5", "fast/iwae-2l-k5")


def main():
    parser = Parser(prog="python -m benchmarks.error_bars", description=__doc__)
    parser.add_argument("runs", nargs="*", default=RUNS, help="folders below results/")
    parser.add_argument("--seeds", type=at_least(2), default=40, help="evaluations of each model (40)")
    parser.add_argument("--images", type=at_least(1), default=100, help="test images (100)")
    parser.add_argument("--samples", type=at_least(21), default=5000, help="importance samples k (5000)")
    parser.add_argument("--cost", action="store_true", help="measure the time they take")
    options = parser.parse_args()
    try:
        loaded = {name: load_run(RESULTS / name) for name in options.runs}
    except UsageError as error:
        parser.error(str(error))
    if options.cost:
        for name, run in loaded.items():
            print(f"{name}: {cost(run, options.images, options.samples):.3f} times the time of the estimate alone")
        return
    print("| model | seeds | spread of the mean | spread, from each image's | reported error | ratio | Pareto k |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, run in loaded.items():
        print(f"| {name} | {cells(run, options.seeds, options.images, options.samples)} |", flush=True)


def cells(run, n_seeds, n_images, n_samples):
    """A row of the table.

    The images' estimates are independent, so that the variance of their mean is the sum of their variances / n^2: a
    sharper estimate of the spread than that of the few means.
    """
    from evaluation import make_log_likelihood

    model, x, y = model_and_images(run, n_images)
    estimate = make_log_likelihood(model, n_samples)
    results, per_image = zip(*(estimate(x, y, seed) for seed in range(n_seeds)))
    of_mean = np.std([result.test_llh for result in results], ddof=1)
    log_px = np.array([one.log_px for one in per_image])  # [seeds, images]
    spread = math.sqrt(log_px.var(axis=0, ddof=1).sum()) / len(x)
    reported = np.mean([result.mc_error for result in results])
    shape, high = (np.mean([getattr(result, key) for result in results]) for key in ("pareto_k", "pareto_k_high"))
    return (
        f"{n_seeds} | {of_mean:.4f} | {spread:.4f} | {reported:.4f} | {reported / spread:.2f}"
        f" | {shape:.2f} ({high:.0%})"
    )


def cost(run, n_images, n_samples, rounds=9):
    """The time of an evaluation over that of one without errors and Pareto k: medians, taken in turn, without the first
    two, which compile.
    """
    from evaluation import likelihood

    model, x, y = model_and_images(run, n_images)
    whole = likelihood.make_log_likelihood(model, n_samples)
    with mock.patch.multiple(likelihood, GROUPS=1, tail_size=lambda k: 0):
        alone = likelihood.make_log_likelihood(model, n_samples)
    seconds = {whole: [], alone: []}
    for _ in range(rounds):
        for estimate, taken in seconds.items():
            began = time.perf_counter()
            estimate(x, y)
            taken.append(time.perf_counter() - began)
    return np.median(seconds[whole][2:]) / np.median(seconds[alone][2:])


def model_and_images(run, n_images):
    """The model of a run of load_run's, and test images with what it is given beside them."""
    context = run.dataset.context("test", run.config.is_conditional)
    return run.model, run.dataset.binarised_test_images(n_images), evenly_spaced(context, n_images)


if __name__ == "__main__":
    main()
