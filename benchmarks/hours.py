"""Hours to a cell of the table: each preset's epochs at the measured time of its steps, on one thread."""

import statistics

from benchmarks.contenders import PRECONDITION_FREQUENCY
from benchmarks.training import inputs_file, say, workers_for
from experiment.flags import config_from
from experiment.presets import settings_beside

PRESETS = ("fast", "long", "paper")


def measure_hours(rounds, seconds):
    """[{n_samples, hours: {preset: hours}}], one stochastic layer."""
    ms, measured = {}, []  # ms: (n_samples, batch, optimizer, ema) -> milliseconds a step
    with workers_for({"ours": "ours"}, threads=1) as workers:
        for k in (1, 5, 50):
            hours = {}
            for preset in PRESETS:
                config = config_from(settings_beside(preset, {"n_samples": k})).resolved()
                hours[preset] = 0.0
                for epoch in range(config.n_epochs):
                    step = (config.samples_at(epoch), config.batch_size, config.optimizer, config.ema)
                    if step not in ms:
                        ms[step] = _ms(workers["ours"], *step, rounds, seconds)
                    hours[preset] += 60000 // config.batch_size * ms[step] / 3.6e6
            measured.append({"n_samples": k, "hours": hours})
            say(f"hours, k={k}: {', '.join(f'{name} {value:.1f}' for name, value in hours.items())}")
    return measured


def _ms(worker, k, batch, optimizer, ema, rounds, seconds):
    with inputs_file(1, k, batch) as inputs:
        spec = {"layers": 1, "n_samples": k, "batch_size": batch, "optimizer": optimizer, "ema": ema}
        worker.build(spec, inputs)
    n = worker.steps_for(seconds, PRECONDITION_FREQUENCY)
    return statistics.median(worker.seconds_per_step(n) for _ in range(rounds)) * 1e3
