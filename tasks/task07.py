"""A second opinion on log p(x): is the number that importance sampling reports the likelihood?

Annealed importance sampling does not lean on q(z|x). On test images it stands beside the importance sampling of the
tables; on images drawn from the model itself it brackets log p(x) from both sides.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # it can be run from anywhere

from experiment import command_line  # noqa: E402

DEFAULTS = dict(n_samples=50, preset="fast")
FIXED = ()
IMAGES = 100  # test images, unless --eval_images
DRAWN = 40  # images drawn from the model, each with the label of a test image; fewer where there are fewer of these
TEMPERATURES, CHAINS = 4000, 16


def on_test_images(session):
    """A row for each test image: log p(x) by importance sampling and by annealing, each with its Monte Carlo error."""
    from evaluation import make_log_likelihood
    from evaluation.ais import make_ais
    from utils import evenly_spaced

    config = session.config
    n, jit = config.eval_images or IMAGES, config.jit == "on"
    x, y = (evenly_spaced(array, n) for array in session.test_data())
    sampled = make_log_likelihood(session.model, config.eval_samples, jit)(x, y, config.seed)[1]
    annealed = make_ais(session.model, TEMPERATURES, CHAINS, jit)(x, y, config.seed, show_progress=True)
    print(f"Hamiltonian Monte Carlo accepted {annealed.accepted:.0%} of its proposals")
    columns = {
        "log_px": sampled.log_px, "mc_error": sampled.mc_error, "pareto_k": sampled.pareto_k,
        "annealed": annealed.log_px, "annealed_mc_error": annealed.mc_error,
    }  # fmt: skip
    return [dict(zip(columns, map(float, values))) for values in zip(*columns.values())]


def on_drawn_images(session):
    """A row for each image drawn from the model: bounds on log p(x), and importance sampling's estimate."""
    from evaluation import make_log_likelihood
    from evaluation.ais import make_bracket
    from utils import evenly_spaced

    config = session.config
    jit = config.jit == "on"
    y = evenly_spaced(session.test_data()[1], DRAWN)
    drawn = make_bracket(session.model, TEMPERATURES, CHAINS, jit)(len(y), y, config.seed, show_progress=True)
    sampled = make_log_likelihood(session.model, config.eval_samples, jit)(drawn.x, y, config.seed)[1]
    columns = {"lower": drawn.lower, "upper": drawn.upper, "log_px": sampled.log_px, "mc_error": sampled.mc_error}
    return [dict(zip(columns, map(float, values))) for values in zip(*columns.values())]


def work(session):
    """Both tables, and the picture of them."""
    import numpy as np

    from plots.tasks import second_opinion
    from utils import write_csv

    session.train_or_load()
    session.report()
    test, drawn = on_test_images(session), on_drawn_images(session)
    write_csv(session.run.annealed, test)
    write_csv(session.run.bracket, drawn)
    second_opinion(test, drawn, session.run.figures / "annealed.png")
    above = np.mean([row["annealed"] - row["log_px"] for row in test])
    gap = np.mean([row["upper"] - row["lower"] for row in drawn])
    below = np.mean([row["upper"] - row["log_px"] for row in drawn])
    print(f"On {len(test)} test images annealing gives {above:+.3f} nats to importance sampling's log p(x).")
    print(f"On {len(drawn)} images drawn from the model log p(x) is known to {gap:.3f} nats; importance sampling lies")
    print(f"{below:.3f} below the upper bound. Tables and figures/annealed.png are in {session.run.path}")


if __name__ == "__main__":
    sys.exit(command_line(work, __doc__, defaults=DEFAULTS, fixed=FIXED))
