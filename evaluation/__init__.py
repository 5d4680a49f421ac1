"""What a trained model is asked. All in nats."""

from evaluation.active_units import ACTIVE, make_activity, without_units
from evaluation.likelihood import LogLikelihood, every, make_bounds, make_log_likelihood
from evaluation.posteriors import GridPosterior, make_true_posterior, posterior_means, resampled

__all__ = [
    "ACTIVE", "GridPosterior", "LogLikelihood", "every", "make_activity", "make_bounds", "make_log_likelihood",
    "make_true_posterior", "posterior_means", "resampled", "without_units",
]  # fmt: skip
