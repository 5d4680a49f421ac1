"""python -m tests.faults: plants faults, one at a time, and tells which the tests let through.

The faults are those of tests/planted.py or, with --operators N, N that cosmic-ray makes (tests/operators.py). They are
planted in a copy of the tracked files. Prints a Markdown table: a row for each fault. Exit code 1 where one survived.
"""

import argparse
import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from tests.planted import FAULTS

ROOT = pathlib.Path(__file__).resolve().parents[1]
SECONDS = 300  # after which tests that hang are taken to have failed


def copy_of_the_project(folder):
    """The tracked files, as they are in the working tree; the data's cache and the results as links."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, names):
        if not name.startswith("results/") and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for name in ("results", "data/cache", ".git"):
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)


def node_ids(tests):
    """From steps::beta_warms_up to tests/test_steps.py::test_beta_warms_up, of each."""
    for test in tests:
        file, _, name = test.partition("::")
        yield f"tests/test_{file}.py" + f"::test_{name}" * bool(name)


def run_tests(folder, tests, output):
    """pytest's exit code, from a forked process: TensorFlow is imported once, here, and the project's modules there."""
    if not (process := os.fork()):
        code = 70
        with contextlib.suppress(BaseException):
            handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
                del sys.modules[name]
            os.chdir(folder)
            sys.path[0], sys.dont_write_bytecode = str(folder), True
            os.environ["PYTHONPATH"] = str(folder)
            import pytest

            code = int(pytest.main(["-x", "-n", "0", "-p", "no:cacheprovider", *node_ids(tests)]))
        sys.stdout.flush()
        os._exit(code)
    deadline = time.monotonic() + SECONDS
    while not (ended := os.waitpid(process, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(process, 9)
        time.sleep(0.05)
    return os.waitstatus_to_exitcode(ended[1])


def verdict(folder, fault, output):
    """Which test failed, or None; with the fault planted."""
    path = folder / fault.file
    text = path.read_text()
    if text.count(fault.old) != 1:
        raise SystemExit(f"{fault.file} has this {text.count(fault.old)} times, not once: {fault.old}")
    path.write_text(text.replace(fault.old, fault.new))
    code = run_tests(folder, fault.tests, output)
    path.write_text(text)
    said = output.read_text(errors="replace")
    if code == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) tests/test_(.+?)(?: - |$)", said, flags=re.MULTILINE)
    return failed[1].replace(".py::test_", "::") if failed else f"exit code {code}"  # -9: the time limit


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--operators", type=int, default=0, metavar="N", help="plant N faults of cosmic-ray's instead")
    parser.add_argument("--only", default="", help="faults with this in their file or description")
    options = parser.parse_args()
    import matplotlib.pyplot  # noqa: F401  # imported once, for all the forked processes
    import sklearn.decomposition  # noqa: F401
    import tensorflow_datasets  # noqa: F401
    import tensorflow_probability  # noqa: F401

    from tests.operators import drawn_faults

    faults = drawn_faults(ROOT, options.operators) if options.operators else FAULTS
    chosen = [fault for fault in faults if options.only in f"{fault.file} {fault.what}"]
    if not chosen:
        parser.error(f"--only: no fault has {options.only} in its file or description")
    survivors = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder, output = pathlib.Path(temporary) / "copy", pathlib.Path(temporary) / "output"
        folder.mkdir()
        copy_of_the_project(folder)
        for test in sorted({test for fault in chosen for test in fault.tests}):
            if run_tests(folder, [test], output):
                raise SystemExit(f"{test} fails without a fault:\n{output.read_text(errors='replace')[-3000:]}")
        print("| fault | file | caught by |\n| --- | --- | --- |", flush=True)
        for fault in chosen:
            caught = verdict(folder, fault, output)
            survivors += caught is None
            print(f"| {fault.what} | {fault.file} | {f'`{caught}`' if caught else '**nothing**'} |", flush=True)
    print(f"\n{len(chosen)} planted, {len(chosen) - survivors} caught.")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
