"""How far log (1/k) sum_i w_i can be trusted: its Monte Carlo error, and the tail of the weights it is made of."""

import math

import numpy as np

UNRELIABLE = 0.7  # Pareto k above which Vehtari et al. (1507.02646) do not rely on importance sampling
FEWEST = 5  # weights in a tail that a shape is fitted to
GRID = 30  # points, at least, at which the fit looks


def monte_carlo_errors(log_sums, sizes):
    """How far log (1/k) sum_i w_i would move with other samples: a standard deviation for each image, [n], nats.

    log_sums: float64 [groups, n], log of the sum of w in each independent group of samples; the number of groups is a
    power of two, at least 2. sizes: [groups], samples in each group, k in all.

    The weights are heavy-tailed: the error falls slower than 1/sqrt(k), and it cannot be computed from the variance
    of w, which may be infinite. It is therefore read off the estimates from k/G samples, which differ between groups:
    with V(m) the variance of the estimate from m samples, a mean over the images,

        log V(k/G) = log V(k) + slope log G,  0 <= slope <= 1,  for G = 2, 4, ..., the number of groups,

    is fitted by least squares, with each point weighted by its degrees of freedom, G - 1. The slope is 1 for weights
    of finite variance and many samples. One slope holds for all images: the mean of their squared errors is the fitted
    V(k), while the error of a single image is rough.
    """
    between = {}  # G -> the variance of the estimates from k/G samples, [n]
    while (groups := len(log_sums)) > 1:
        between[groups] = np.var(log_sums - np.log(sizes)[:, np.newaxis], axis=0, ddof=1)
        log_sums = np.logaddexp(log_sums[::2], log_sums[1::2])
        sizes = sizes[::2] + sizes[1::2]
    finest = max(between)
    pooled = np.array([variance.mean() for variance in between.values()])
    if not (pooled > 0).all():  # all weights alike, or not finite
        return np.sqrt(between[finest] / finest)
    log_g, log_v, freedom = np.log(list(between)), np.log(pooled), np.array(list(between)) - 1
    slope = np.polyfit(log_g, log_v, 1, w=np.sqrt(freedom))[0] if len(log_g) > 1 else 1
    slope = np.clip(slope, 0, 1)
    log_v_of_k = np.average(log_v - slope * log_g, weights=freedom)
    return np.sqrt(between[finest] * np.exp(log_v_of_k) / pooled[0])


def tail_size(n_samples):
    """How many of the largest weights make the tail: min(k / 5, 3 sqrt(k)) as in Vehtari et al. 0 where too few."""
    size = math.ceil(min(n_samples / 5, 3 * math.sqrt(n_samples)))
    return size if size >= FEWEST else 0


def pareto_k(log_w):
    """The shape k of the generalised Pareto distribution that fits the tail of w, for each image: [n].

    log_w: [n, m + 1], the largest log weights in falling order. The last is the threshold u; the m excesses w - u are
    fitted. w has finite moments below order 1/k: no variance for k > 0.5, no mean for k > 1. Zhang and Stephens (2009),
    with the weak prior of Vehtari et al. (1507.02646, appendix C). NaN where the weights do not differ.
    """
    w = np.exp(log_w - log_w[:, :1])
    excess = (w[:, :-1] - w[:, -1:])[:, ::-1]  # rising
    m = excess.shape[1]
    n_grid = GRID + math.isqrt(m)
    with np.errstate(divide="ignore", invalid="ignore"):
        # k(theta) = mean log(1 - theta x); theta is a posterior mean, over a grid, of the profile likelihood
        at = 1 - np.sqrt(n_grid / (np.arange(1, n_grid + 1) - 0.5))
        theta = 1 / excess[:, -1:] + at / (3 * excess[:, [int(m / 4 + 0.5) - 1]])  # [n, n_grid]
        k = np.mean(np.log1p(-theta[..., np.newaxis] * excess[:, np.newaxis]), axis=-1)
        log_likelihood = m * (np.log(-theta / k) - k - 1)
        weights = np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True))
        theta = np.sum(theta * weights, axis=1) / weights.sum(axis=1)
        k = np.mean(np.log1p(-theta[:, np.newaxis] * excess), axis=1)
    return (k * m + 0.5 * 10) / (m + 10)
