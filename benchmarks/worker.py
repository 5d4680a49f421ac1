"""One contender in a process of its own, driven by lines of JSON.

{"build": SPEC, "inputs": FILE.npz} -> {"bound": nats or null}, compiled and ready
{"steps": n} -> {"seconds", "steps"};
{"memory": true} -> {"peak_gb"}. Usage: python -m benchmarks.worker MODULE THREADS
"""

import importlib
import json
import os
import resource
import sys
import time

import numpy as np


def main():
    module, threads = sys.argv[1], int(sys.argv[2])
    replies, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no reply
    _set_threads(threads)
    contender = importlib.import_module(f"benchmarks.contenders.{module}")
    run = None
    for line in sys.stdin:
        request = json.loads(line)
        if "build" in request:
            run, bound = None, None
            run, bound = _build(contender, request["build"], request["inputs"])
            _reply(replies, bound=bound)
        elif "steps" in request:
            began = time.perf_counter()
            done = run(request["steps"]) or request["steps"]
            _reply(replies, seconds=time.perf_counter() - began, steps=done)
        else:
            _reply(replies, peak_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)


def _build(contender, spec, inputs):
    with np.load(inputs) as arrays:
        weights = [arrays[f"weight{i}"] for i in range(sum(name.startswith("weight") for name in arrays))]
        images, x = arrays["images"], arrays["x"]
        noise = [arrays[name] for name in sorted(arrays) if name.startswith("noise")]
    bound, run = contender.build(spec, weights, images)
    value = bound(x, noise) if bound else None
    run(2)  # compiles
    return run, value


def _reply(stream, **content):
    stream.write(json.dumps(content) + "\n")
    stream.flush()


def _set_threads(n):
    if n:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(n)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from experiment.startup import start_tensorflow

    start_tensorflow(gpu=-1, threads=n)


if __name__ == "__main__":
    main()
