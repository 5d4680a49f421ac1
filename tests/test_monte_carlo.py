"""Monte Carlo errors and Pareto shapes of weights whose distribution is known."""

import numpy as np
import pytest
import scipy.stats

from evaluation.monte_carlo import monte_carlo_errors, pareto_k, tail_size

IMAGES, SAMPLES, GROUPS = 600, 2048, 32


def log_weights(name):
    """[SAMPLES, IMAGES] independent log weights: the images are alike, and repetitions of one another."""
    rng = np.random.default_rng(1)
    if name == "uniform":
        return np.log(rng.random((SAMPLES, IMAGES)))
    if name == "lognormal":
        return rng.normal(scale=2.5, size=(SAMPLES, IMAGES))
    return rng.exponential(scale=1.2, size=(SAMPLES, IMAGES))  # w is Pareto distributed, with shape 1.2: no mean


def in_groups(log_w, sizes):
    parts = np.split(log_w, np.cumsum(sizes)[:-1])
    return np.stack([np.logaddexp.reduce(part, axis=0) for part in parts])


@pytest.mark.parametrize("name", ["uniform", "lognormal", "pareto"])
def test_errors_are_the_spread_of_the_estimates(name):
    log_w = log_weights(name)
    sizes = np.full(GROUPS, SAMPLES // GROUPS)
    errors = monte_carlo_errors(in_groups(log_w, sizes), sizes)
    spread = np.logaddexp.reduce(log_w, axis=0).std(ddof=1)
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(spread, rel=0.1)


def test_groups_of_unequal_sizes_do_not_differ_for_that():
    sizes = np.where(np.arange(GROUPS) < 16, 80, 48)
    errors = monte_carlo_errors(in_groups(log_weights("uniform"), sizes), sizes)
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(1 / np.sqrt(3 * SAMPLES), rel=0.1)  # std / mean / sqrt(k)


def test_two_groups_have_the_error_of_the_square_root():
    log_sums = np.array([[0.0, 1.0], [0.2, 0.6]])
    np.testing.assert_allclose(monte_carlo_errors(log_sums, np.ones(2)), log_sums.std(axis=0, ddof=1) / np.sqrt(2))


def test_the_fit_is_least_squares_weighted_by_degrees_of_freedom():
    """By the normal equations, for eight groups; V is a mean over the images, and each keeps its own share of it."""
    log_sums = np.random.default_rng(4).normal(size=(8, 5))
    levels, variances = [log_sums], []
    while len(levels[-1]) > 2:
        levels.append(np.logaddexp(levels[-1][::2], levels[-1][1::2]) - np.log(2))
    variances = [level.var(axis=0, ddof=1) for level in levels]
    log_g, log_v = np.log([8, 4, 2]), np.log([variance.mean() for variance in variances])
    design, weight = np.stack([np.ones(3), log_g], axis=1), np.diag([7, 3, 1])
    log_v_of_k, slope = np.linalg.solve(design.T @ weight @ design, design.T @ weight @ log_v)
    assert 0 < slope < 1
    expected = np.sqrt(variances[0] * np.exp(log_v_of_k) / variances[0].mean())
    np.testing.assert_allclose(monte_carlo_errors(log_sums, np.ones(8)), expected)


def test_the_error_falls_no_faster_than_with_the_square_root():
    """Even where groups cancel: each two of these have nearly the same sum, or the same."""
    log_sums = np.array([[1.0], [-1.0], [1.0], [-0.9]])
    pairs = np.logaddexp(log_sums[::2], log_sums[1::2]) - np.log(2)
    fine, coarse = log_sums.var(ddof=1), pairs.var(ddof=1)  # of groups and of pairs, with 3 and 1 degrees of freedom
    expected = np.sqrt(np.exp((3 * np.log(fine / 4) + np.log(coarse / 2)) / 4))
    np.testing.assert_allclose(monte_carlo_errors(log_sums, np.ones(4)), expected)
    log_sums[3] = -1
    np.testing.assert_allclose(monte_carlo_errors(log_sums, np.ones(4)), np.sqrt(log_sums.var(ddof=1) / 4))


def test_weights_that_do_not_differ_have_no_error_and_no_tail():
    assert (monte_carlo_errors(np.zeros((8, 3)), np.ones(8)) == 0).all()
    assert np.isnan(pareto_k(np.zeros((3, 9)))).all()


@pytest.mark.parametrize("shape", [-0.3, 0.2, 0.7, 1.2])
def test_pareto_k_is_the_shape_that_the_weights_were_drawn_with(shape):
    w = 1 + scipy.stats.genpareto.rvs(shape, scale=3, size=(40, 5000), random_state=np.random.default_rng(0))
    largest = np.log(-np.sort(-w)[:, : tail_size(5000) + 1]) - 700  # as small as weights of images are
    estimates = pareto_k(largest)
    assert estimates.mean() == pytest.approx(shape, abs=0.06) and estimates.std() < 0.16
    w = np.exp(largest[0] - largest[0, -1]) - 1
    by_likelihood = scipy.stats.genpareto.fit(w[:-1], floc=0)[0]
    assert estimates[0] == pytest.approx(by_likelihood, abs=0.08)


def test_the_tail_is_that_of_pareto_smoothed_importance_sampling():
    assert [tail_size(k) for k in (1, 20, 21, 100, 225, 5000)] == [0, 0, 5, 20, 45, 213]


def test_pareto_k_is_the_estimate_of_zhang_and_stephens():
    """By their formulas, for a tail of 40, one image at a time."""
    log_w = -np.sort(-np.random.default_rng(3).normal(scale=2, size=(3, 41)))
    for row, found in zip(log_w, pareto_k(log_w)):
        x = np.sort(np.exp(row[:40]) - np.exp(row[40]))
        first_quartile, largest = x[9], x[39]  # the tenth of forty
        theta = 1 / largest + (1 - np.sqrt(36 / (np.arange(1, 37) - 0.5))) / (3 * first_quartile)
        k = np.array([np.mean(np.log1p(-t * x)) for t in theta])
        log_likelihood = 40 * (np.log(-theta / k) - k - 1)
        mean = np.average(theta, weights=np.exp(log_likelihood - log_likelihood.max()))
        assert found == pytest.approx((40 * np.mean(np.log1p(-mean * x)) + 5) / 50, rel=1e-6)


def test_the_error_does_not_grow_with_the_number_of_samples():
    """Where groups of twice the samples differ by more, as by chance they may, the slope is 0."""
    log_sums = np.array([[0.0], [0.0], [1.0], [1.0]])  # variances: 1/3 of the groups, 1/2 of pairs of them
    np.testing.assert_allclose(monte_carlo_errors(log_sums, np.ones(4)), np.sqrt((1 / 3) ** 0.75 * (1 / 2) ** 0.25))
