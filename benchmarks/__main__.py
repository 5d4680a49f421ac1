"""python -m benchmarks: measures, and rebuilds the tables of benchmarks/README.md.

Each part is measured in one go, and is written to benchmarks/results.json as soon as it is.
"""

import json
import os
import pathlib
import platform
import sys

from benchmarks.estimators import measure_estimators
from benchmarks.evaluating import measure_evaluation
from benchmarks.flags import at_least
from benchmarks.hours import measure_hours
from benchmarks.scaling import measure_scaling
from benchmarks.tables import tables
from benchmarks.training import (
    measure_account,
    measure_memory,
    measure_side_by_side,
    measure_soap,
    measure_start,
    measure_training,
)
from experiment.flags import Parser
from experiment.markdown import rewrite
from experiment.run_folder import provenance
from utils import write_json

RESULTS = pathlib.Path(__file__).parent / "results.json"
README = RESULTS.with_name("README.md")

PARTS = {
    "training": lambda options: measure_training(options.rounds, options.seconds),
    "soap": lambda options: measure_soap(options.rounds, options.seconds),
    "account": lambda options: measure_account(options.rounds, options.seconds),
    "hours": lambda options: measure_hours(options.rounds, options.seconds),
    "estimators": lambda options: measure_estimators(options.rounds, options.seconds),
    "evaluation": lambda options: measure_evaluation(options.rounds),
    "scaling": lambda options: measure_scaling(options.rounds, options.seconds),
    "side_by_side": lambda options: measure_side_by_side(options.rounds, options.seconds),
    "training_peak_gb": lambda options: measure_memory(),
    "start": lambda options: measure_start(),
}


def main():
    parser = Parser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=at_least(1), default=5, help="interleaved rounds of each comparison (5)")
    parser.add_argument("--seconds", type=at_least(0, float), default=1.0, help="about how long one reading takes (1)")
    parser.add_argument("--only", metavar="PART", choices=PARTS, help=f"one of {', '.join(PARTS)}")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in [options.only] if options.only else PARTS:
        measured = PARTS[name](options)
        results[name] = {"machine": _machine(), **provenance(), "measured": measured}
        print(tables({name: results[name]}))
        write_json(RESULTS, results)
        rewrite(README, benchmarks=tables(results))


def _machine():
    """Cores and instruction sets, in general terms."""
    flags = ""
    if pathlib.Path("/proc/cpuinfo").exists():
        flags = pathlib.Path("/proc/cpuinfo").read_text()
    sets = [name for name, flag in (("AVX-512", "avx512f"), ("AVX2", "avx2")) if flag in flags]
    return f"{os.cpu_count()} cores, {platform.machine()}" + (f", {sets[0]}" if sets else "")


if __name__ == "__main__":
    sys.exit(main())
