"""python -m benchmarks: measures, prints the tables, and writes benchmarks/results.json."""

import argparse
import os
import pathlib
import platform
import sys

from benchmarks.estimators import measure_estimators
from benchmarks.evaluating import measure_evaluation
from benchmarks.tables import tables
from benchmarks.training import measure_memory, measure_side_by_side, measure_soap, measure_start, measure_training
from experiment.run_folder import provenance
from utils import write_json

RESULTS = pathlib.Path(__file__).parent / "results.json"


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds of each comparison (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long one reading takes (1)")
    names = "training, soap, estimators, side_by_side, training_peak_gb, start or evaluation"
    parser.add_argument("--only", metavar="PART", help=names)
    options = parser.parse_args()
    parts = {
        "training": lambda: measure_training(options.rounds, options.seconds),
        "soap": lambda: measure_soap(options.rounds, options.seconds),
        "estimators": lambda: measure_estimators(options.rounds, options.seconds),
        "side_by_side": lambda: measure_side_by_side(options.rounds, options.seconds),
        "training_peak_gb": measure_memory,
        "start": measure_start,
        "evaluation": lambda: measure_evaluation(options.rounds),
    }
    results = {"machine": _machine(), **provenance()}
    for name, measure in parts.items():
        if options.only in (None, name):
            results[name] = measure()
    print(tables(results))
    if options.only is None:
        write_json(RESULTS, results)


def _machine():
    """Cores and instruction sets, in general terms."""
    flags = ""
    if pathlib.Path("/proc/cpuinfo").exists():
        flags = pathlib.Path("/proc/cpuinfo").read_text()
    sets = [name for name, flag in (("AVX-512", "avx512f"), ("AVX2", "avx2")) if flag in flags]
    return f"{os.cpu_count()} cores, {platform.machine()}" + (f", {sets[0]}" if sets else "")


if __name__ == "__main__":
    sys.exit(main())
