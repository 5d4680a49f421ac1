"""The workers of --strategy multi_worker, as the environment variable TF_CONFIG names them. Without TensorFlow."""

import atexit
import json
import os
import pathlib
import re
import shutil
import tempfile
from typing import NamedTuple

from utils import UsageError

EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'


class Worker(NamedTuple):
    """This process among those that train one model together. Number 0 is the chief, which alone writes the run."""

    number: int
    n_workers: int


def this_worker(strategy):
    """This process's Worker; that of a single process unless `strategy` is multi_worker. Raises UsageError."""
    if strategy != "multi_worker":
        return Worker(0, 1)
    text = os.environ.get("TF_CONFIG")
    if not text:
        raise UsageError(f"--strategy: multi_worker needs the environment variable TF_CONFIG, such as {EXAMPLE}")
    try:
        given = json.loads(text)
        jobs, kind, index = given["cluster"], given["task"]["type"], given["task"]["index"]
        tasks = [(job, i) for job in ("chief", "worker") for i in range(len(jobs.get(job, [])))]
        addresses = [address for job in ("chief", "worker") for address in list(jobs.get(job, []))]
        if all(re.fullmatch(r"\S+:\d+", address) for address in addresses) and str(index).isdigit():
            return Worker(tasks.index((kind, int(index))), len(tasks))
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise UsageError(f"--strategy: TF_CONFIG must name addresses HOST:PORT, and this task among them, as {EXAMPLE}")


def scratch_copy(folder):
    """A copy of a run's folder, which ends with the process: where a worker that is not the chief reads and writes."""
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="worker-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    if pathlib.Path(folder).is_dir():
        left_out = shutil.ignore_patterns(".*", "tensorboard", "figures")
        shutil.copytree(folder, scratch, ignore=left_out, dirs_exist_ok=True)
    return scratch
