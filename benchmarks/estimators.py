"""Training steps with each objective, beside those with iwae_elbo."""

import statistics

from benchmarks.training import inputs_file, say, workers_for
from models.catalogue import OBJECTIVES

CONFIGS = [(1, 8, 100), (1, 64, 20), (2, 64, 20)]  # layers, k, batch
USUAL = "iwae_elbo"
NUMBERS = {"groups": 4}  # in the place of hyperparameters' defaults
STILL = 1e-6  # a learning rate at which no objective, of whatever weights, gets far enough to diverge


def measure_estimators(rounds, seconds):
    """[{layers, n_samples, batch_size, ratios: {objective: [time of a step over that of iwae_elbo, ...]}}]."""
    measured = []
    for layers, k, batch in CONFIGS:
        spec = {"layers": layers, "n_samples": k, "batch_size": batch, "learning_rate": STILL}
        with inputs_file(layers, k, batch) as inputs, workers_for({USUAL: "ours", "other": "ours"}) as workers:
            usual, other = workers.values()
            usual.build(spec, inputs)
            ratios = {}
            for name in OBJECTIVES:
                if name == USUAL:
                    continue
                other.build(spec | {"objective": name, "hyperparameters": _numbers(name)}, inputs)
                n = usual.steps_for(seconds)
                ratios[name] = [other.seconds_per_step(n) / usual.seconds_per_step(n) for _ in range(rounds)]
            measured.append({**spec, "ratios": ratios})
        medians = ", ".join(f"{name} {statistics.median(values):.2f}" for name, values in ratios.items())
        say(f"estimators, {layers} layer(s), k={k}, batch {batch}: {medians} times iwae_elbo")
    return measured


def _numbers(name):
    return {key: NUMBERS.get(key, number.default) for key, number in OBJECTIVES[name].hyperparameters.items()}
