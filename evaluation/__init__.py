"""What a trained model is asked. Log likelihoods are in nats."""

from evaluation.active_units import ACTIVE, make_activity, make_q_means, without_units
from evaluation.likelihood import make_bounds, make_log_likelihood
from evaluation.posteriors import make_true_posterior, posterior_means, sampling_importance_resampling

__all__ = [
    "ACTIVE", "make_activity", "make_bounds", "make_log_likelihood", "make_q_means", "make_true_posterior",
    "posterior_means", "sampling_importance_resampling", "without_units",
]  # fmt: skip
