"""A second opinion on log p(x): is the number that importance sampling reports the likelihood?

Annealed importance sampling does not lean on q(z|x). On test images it stands beside the importance sampling of the
tables; on images drawn from the model itself it brackets log p(x) from both sides.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # it can be run from anywhere

import numpy as np

from experiment import command_line
from experiment.presets import PRESETS
from utils import UsageError, write_csv

DEFAULTS = dict(n_samples=50, preset="fast")
FIXED = ()
IMAGES = 100  # test images, unless --eval_images
DRAWN = 40  # images drawn from the model, each with the label of a test image; fewer where there are fewer of these
TEMPERATURES, CHAINS = 4000, 16


def n_test_images(config):
    """IMAGES, or --eval_images; but a number that equals the preset's own counts as not given, for that is meant for
    the log likelihood, which is measured faster.
    """
    asked = config.eval_images
    return IMAGES if asked in (None, PRESETS.get(config.preset, {}).get("eval_images")) else asked


def rows_of(session, **columns):
    """[{column: number}] of columns [n_images]. Raises UsageError where a log likelihood is not finite."""
    for name, values in columns.items():
        if name in ("log_px", "annealed", "lower", "upper") and not np.isfinite(values).all():
            raise UsageError(f"--run_dir: with the weights of {session.run.path} {name} is not finite")
    return [dict(zip(columns, map(float, values))) for values in zip(*columns.values())]


def on_test_images(session):
    """A row for each test image: log p(x) by importance sampling and by annealing, each with its Monte Carlo error."""
    from evaluation import make_log_likelihood
    from evaluation.ais import make_ais

    config = session.config
    x, y = session.test_data(n_test_images(config))
    sampled = make_log_likelihood(session.model, config.eval_samples, config.compiled)(x, y, config.seed)[1]
    annealed = make_ais(session.model, TEMPERATURES, CHAINS, config.compiled)(x, y, config.seed, show_progress=True)
    above = (annealed.log_px - sampled.log_px).mean()
    print(f"Hamiltonian Monte Carlo accepted {annealed.accepted:.0%} of its proposals.")
    print(f"On {len(x)} test images annealing gives {above:+.3f} nats to importance sampling's log p(x).", flush=True)
    return rows_of(
        session, log_px=sampled.log_px, mc_error=sampled.mc_error, pareto_k=sampled.pareto_k,
        annealed=annealed.log_px, annealed_mc_error=annealed.mc_error,
    )  # fmt: skip


def on_drawn_images(session):
    """A row for each image drawn from the model: bounds on log p(x), and importance sampling's estimate."""
    from evaluation import make_log_likelihood
    from evaluation.ais import make_bracket

    config = session.config
    _, y = session.test_data(DRAWN)
    bracket = make_bracket(session.model, TEMPERATURES, CHAINS, config.compiled)
    drawn = bracket(len(y), y, config.seed, show_progress=True)
    sampled = make_log_likelihood(session.model, config.eval_samples, config.compiled)(drawn.x, y, config.seed)[1]
    gap, below = (drawn.upper - drawn.lower).mean(), (drawn.upper - sampled.log_px).mean()
    print(f"On {len(y)} images drawn from the model log p(x) is known to {gap:.3f} nats.")
    print(f"Importance sampling lies {below:.3f} below the upper bound.", flush=True)
    return rows_of(
        session, lower=drawn.lower, upper=drawn.upper, log_px=sampled.log_px, mc_error=sampled.mc_error
    )  # fmt: skip


def work(session):
    """Both tables, each said and written as soon as it is there, and the picture of them."""
    from plots.tasks import second_opinion

    session.train_or_load()
    session.report()
    write_csv(session.run.annealed, test := on_test_images(session))
    write_csv(session.run.bracket, drawn := on_drawn_images(session))
    second_opinion(test, drawn, session.run.figures / "annealed.png")
    print(f"Tables and figures/annealed.png are in {session.run.path}")


if __name__ == "__main__":
    sys.exit(command_line(work, __doc__, defaults=DEFAULTS, fixed=FIXED))
