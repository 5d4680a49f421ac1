"""Seconds and memory of the k = 5000 test log likelihood."""

import statistics

from benchmarks.training import inputs_file, say, workers_for

STYLES = {  # row of the table: (style, images in a reading)
    "this project": ("ours", 300),
    "this project, noise given": ("noise given", 300),
    "this project, noise given, logits summed": ("logits summed", 300),
    "matrix products alone (XLA)": ("products", 300),
    "TensorFlow, the reference's style": ("reference", 4),
}
MEMORY_AT = (50, 5000, 100000)  # samples


def measure_evaluation(rounds):
    """{per_1000: [{layers, seconds: {style: [...]}}], full: seconds for 10,000 images, peak_gb: {k: GB}}."""
    return {"per_1000": [_per_1000(layers, rounds) for layers in (1, 2)], "full": _full(), "peak_gb": _memory()}


def _spec(style, layers, k):
    return {"style": style, "layers": layers, "n_samples": k, "batch_size": 1}


def _per_1000(layers, rounds):
    seconds = {name: [] for name in STYLES}
    with workers_for(dict.fromkeys(STYLES, "evaluation")) as workers, inputs_file(layers, 1, 1) as inputs:
        for name, (style, _) in STYLES.items():
            workers[name].build(_spec(style, layers, 5000), inputs)
        for _ in range(rounds):
            for name, (_, n) in STYLES.items():
                seconds[name].append(workers[name].seconds_per_step(n) * 1000)
    medians = ", ".join(f"{name} {statistics.median(values):.1f}" for name, values in seconds.items())
    say(f"evaluation, {layers} layer(s), 1,000 images: {medians} s")
    return {"layers": layers, "seconds": seconds}


def _full():
    with workers_for({"ours": "evaluation"}) as workers, inputs_file(1, 1, 1) as inputs:
        workers["ours"].build(_spec("ours", 1, 5000), inputs)
        seconds = workers["ours"].seconds_per_step(10000) * 10000
    say(f"evaluation, 1 layer, 10,000 images: {seconds:.0f} s")
    return seconds


def _memory():
    peaks = {}
    for k in MEMORY_AT:
        with workers_for({"ours": "evaluation"}) as workers, inputs_file(1, 1, 1) as inputs:
            workers["ours"].build(_spec("ours", 1, k), inputs)
            workers["ours"].seconds_per_step(100)
            peaks[str(k)] = workers["ours"].peak_gb()
    say(f"evaluation, peak memory in GB by k: {peaks}")
    return peaks
