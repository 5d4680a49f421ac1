"""Several devices in one process, and two workers: the trajectory, the numbers and the files of one device.

TensorFlow must be set up for them before it starts, so they have processes of their own (tests/on_replicas.py).
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from experiment import command_line, session, survey
from experiment.cluster import scratch_copy, this_worker
from experiment.run_folder import ROOT, Run
from tests.helpers import newest_checkpoint, one_line, run_task, weights_in
from tests.on_replicas import DIES_AT, RUN, STEPS, few
from training import replicas
from utils import UsageError

PROGRAM = [sys.executable, str(ROOT / "tests" / "on_replicas.py")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def on_devices(tmp_path_factory):
    """What four logical devices found: {name: array}."""
    folder = tmp_path_factory.mktemp("devices")
    command = [*PROGRAM, folder, "devices"]
    process = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, text=True, capture_output=True)
    assert process.returncode == 0, process.stderr
    return dict(np.load(folder / "found.npz"))


@pytest.mark.parametrize("name", STEPS)
def test_replicas_follow_the_trajectory_of_one_device(name, on_devices):
    """Up to the order of float32 sums, which is far less than one step moves the weights."""
    one, several = on_devices[f"{name} one"], on_devices[f"{name} several"]
    assert len(one) == 1 and len(several) == STEPS[name][2]
    np.testing.assert_allclose(several[0], one[0], rtol=0, atol=2e-5)
    np.testing.assert_array_equal(several, np.broadcast_to(several[0], several.shape))  # the copies stay the same
    assert on_devices[f"{name} several bound"] == pytest.approx(float(on_devices[f"{name} one bound"]), abs=1e-3)


def test_a_run_of_four_replicas_is_resumed_on_two_and_ends_as_on_one(on_devices):
    assert str(on_devices["stopped"]) == "stopped at step 4 (epoch 1 of 3), which is saved"
    np.testing.assert_allclose(on_devices["trained several"], on_devices["trained one"], rtol=0, atol=1e-5)


def test_log_likelihoods_of_images_split_over_replicas_are_those_of_one_device(on_devices):
    assert on_devices["log_px one"].shape == (250,) and on_devices["log_px one"].std() > 1
    np.testing.assert_allclose(on_devices["log_px several"], on_devices["log_px one"], rtol=0, atol=1e-5)


def test_mirrored_takes_all_devices(on_devices):
    assert (str(on_devices["device"]), int(on_devices["replicas"])) == ("CPU; 4 replicas", 4)


def two_free_ports():
    with socket.socket() as a, socket.socket() as b:
        for one in (a, b):
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in (a, b)]


def as_flags(settings):
    return [word for name, value in settings.items()
            for word in (f"--{name}", *map(str, value if isinstance(value, tuple) else [value]))]  # fmt: skip


def test_two_workers_are_one_run_and_the_death_of_one_is_an_error_that_names_the_way_on(tmp_path, monkeypatch, mnist):
    """They measure new weights as one device does; then one is killed, and the run is gone on with on one device."""
    folder, flags = tmp_path / "run", [*as_flags(RUN), "--eval_samples", "30", "--gpu", "-1"]
    cluster = {"worker": [f"127.0.0.1:{port}" for port in two_free_ports()]}
    workers = []
    for index in (0, 1):
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        environment = {**ENVIRONMENT, "TF_CONFIG": config, "TMPDIR": str(tmp_path / f"of_{index}")}
        (tmp_path / f"of_{index}").mkdir()
        command = [*PROGRAM, tmp_path, "worker", *flags, "--run_dir", folder, "--strategy", "multi_worker"]
        workers.append(subprocess.Popen(
            list(map(str, command)), cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ))  # fmt: skip
    chief, killed = workers
    try:
        killed.communicate(timeout=300)
        out, err = chief.communicate(timeout=120)
    finally:
        for worker in workers:
            worker.kill()
    assert (killed.returncode, chief.returncode) == (-signal.SIGKILL, 3), err
    assert "device: CPU; 2 replicas" in out and "another worker is gone" in err
    (line,) = [line for line in err.splitlines() if line.startswith("go on with: ")]
    words = shlex.split(line)[4:]
    assert words[1:] == f"--resume --run_dir {folder} --strategy multi_worker --gpu -1".split()
    assert list((tmp_path / "of_1").glob("worker-*/config.json")) and not list((tmp_path / "of_0").glob("worker-*"))

    monkeypatch.setattr(session, "load", lambda *_: few(mnist))
    of_new_weights = json.loads((folder / "test_llh.json").read_text())
    assert command_line(lambda this: this.train(), None, ["--resume", "--run_dir", str(folder)]) == 0
    assert newest_checkpoint(folder) == 12 > DIES_AT

    measured = []

    def measure_and_train(this):
        measured.append(this.measure())
        this.train()

    assert command_line(measure_and_train, None, [*flags, "--run_dir", str(tmp_path / "one")]) == 0
    assert of_new_weights["test_llh"] == pytest.approx(measured[0].test_llh, abs=1e-5)
    assert of_new_weights["mc_error"] == pytest.approx(measured[0].mc_error, rel=1e-3)
    for a, b in zip(weights_in(folder), weights_in(tmp_path / "one"), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_a_worker_s_copy_of_a_run_can_be_gone_on_with(tmp_path):
    run = Run(tmp_path / "run")
    (run.checkpoints / "ckpt-4.index").touch()
    assert Run(scratch_copy(run.path), lock=False).has_checkpoints()


def test_workers_take_the_same_steps_and_stop_together(monkeypatch):
    class Workers(tf.distribute.MultiWorkerMirroredStrategy):
        def __init__(self):
            pass

    monkeypatch.setattr(tf.distribute, "get_strategy", Workers)
    monkeypatch.setattr(replicas, "_mean_over_replicas", lambda own: (own + tf.constant([31.0, 0.0])) / 2)
    assert replicas.agree(10, True) == (20, True)  # with a worker that would take 31, and was not told to stop


@pytest.mark.parametrize(
    ("cluster", "task", "expected"),
    [
        ({"worker": ["a:1", "b:1"]}, ("worker", 0), (0, 2)),
        ({"worker": ["a:1", "b:1"]}, ("worker", 1), (1, 2)),
        ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, ("worker", 1), (2, 3)),
        ({"chief": ["a:1"], "worker": ["b:1"]}, ("chief", 0), (0, 2)),
        ({"worker": ["a:1", "b:1"]}, ("worker", 2), None),
        ({"worker": ["a:1"]}, ("evaluator", 0), None),
        ([], ("worker", 0), None),
        ({"worker": ["localhost"]}, ("worker", 0), None),
        ({"worker": "host:1"}, ("worker", 0), None),
        ({"worker": [3, 4]}, ("worker", 0), None),
        ({"worker": ["a:1", "b:1"]}, ("worker", 0.9), None),
        ({"worker": ["a:1", "b:1"]}, ("worker", True), None),
    ],
)
def test_the_chief_is_the_first_of_the_cluster_and_a_task_that_is_not_in_it_is_refused(
    cluster, task, expected, monkeypatch
):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": dict(zip(("type", "index"), task))}))
    if expected is None:
        with pytest.raises(UsageError, match="--strategy: TF_CONFIG must name addresses HOST:PORT, and this task"):
            this_worker("multi_worker")
    else:
        assert this_worker("multi_worker") == expected and this_worker("one") == (0, 1)


@pytest.mark.parametrize("program", ["task", "survey"])
def test_what_does_more_than_one_training_is_done_by_one_process(program, monkeypatch, capfd):
    from tasks import task04, task06

    cluster = {"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    flags = ["--strategy", "multi_worker"]
    code = run_task(task04, *flags) if program == "task" else survey(task06.work, "", flags)
    assert code == 2
    one_line(capfd, "--strategy: multi_worker is for main.py", "run this program as one process")
