"""Which device a program takes, and what it says and records of it."""

import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiment import command_line, program, startup
from experiment.run_folder import ROOT
from experiment.startup import hardware, start_tensorflow
from tests.helpers import in_process, one_line
from utils import UsageError


def test_the_device_is_the_one_asked_for(monkeypatch, few_digits, tmp_path):
    asked = []
    monkeypatch.setattr(program, "start_tensorflow", lambda *device: asked.append(device) or sys.exit())
    for number, flags in enumerate(((), ("--gpu", 3, "--threads", 2), ("--gpu", "0,1", "--strategy", "mirrored"))):
        with pytest.raises(SystemExit):
            in_process(*flags, "--run_dir", tmp_path / str(number))
    assert asked == [(None, 0, "one"), ((3,), 2, "one"), ((0, 1), 0, "mirrored")]


@pytest.mark.parametrize(
    ("gpu", "strategy", "visible", "line"),
    [
        (None, "one", "a", "GPU 0 of 3"),
        (None, "mirrored", "abc", "GPU 0, 1, 2 of 3"),
        (2, "one", "c", "GPU 2 of 3"),
        ((1,), "one", "b", "GPU 1 of 3"),
        ((-1,), "one", "", "CPU"),
        ((0, 5), "mirrored", "a", "GPU 0 of 3, for there is no GPU 5 (3 found)"),
    ],
)
def test_the_gpus_asked_for_are_the_visible_ones(gpu, strategy, visible, line, monkeypatch):
    seen = {}
    config = tf.config
    monkeypatch.setattr(config, "list_physical_devices", lambda kind: [*"abc"])
    monkeypatch.setattr(config, "set_visible_devices", lambda devices, kind: seen.update({kind: "".join(devices)}))
    monkeypatch.setattr(config.experimental, "set_memory_growth", lambda device, grows: seen.update({device: grows}))
    monkeypatch.setattr(config.threading, "set_intra_op_parallelism_threads", lambda n: seen.update(threads=n))
    monkeypatch.setattr(config, "list_logical_devices", lambda kind: [])
    assert start_tensorflow(gpu, 3, strategy)[:2] == (line, None)
    assert seen == {"GPU": visible, "threads": 3} | {device: True for device in visible}


def test_records_name_the_gpus_in_use_and_the_threads(monkeypatch):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [*"ab"])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"device_name": f"card {gpu}"})
    assert hardware(3) == {"device": "card a, card b", "threads": 3}
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 5, 7}, raising=False)
    assert hardware(0)["threads"] == 3  # those that this process may use


@pytest.mark.parametrize(
    ("error", "said"), [(KeyboardInterrupt(), ""), (UsageError("why"), ""), (ImportError(), "I0000 oneDNN is on\n")]
)
def test_what_tensorflow_says_while_it_starts_is_shown_where_it_fails_without_a_line(error, said, capfd):
    with pytest.raises(type(error)), startup._muted_stderr():
        os.write(2, b"I0000 oneDNN is on\n")
        raise error
    assert capfd.readouterr().err == said


def test_a_process_that_dies_while_tensorflow_starts_says_where():
    program = "import os\nfrom experiment import startup\nwith startup._muted_stderr():\n    os.abort()"
    process = subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True)
    assert process.returncode == -signal.SIGABRT and process.stderr.startswith("Fatal Python error: Aborted")


def test_threads_cannot_change_within_a_process():
    tf.constant(1)  # TensorFlow is at work
    with pytest.raises(UsageError, match="--threads: 1000 comes too late"):
        start_tensorflow(-1, 1000)


def test_a_worker_that_cannot_start_is_one_line(few_digits, monkeypatch, capfd):
    def in_use():
        raise tf.errors.UnknownError(None, None, "Could not start gRPC server")

    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", in_use)
    cluster = {"cluster": {"worker": ["localhost:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    assert in_process("--strategy", "multi_worker", "--run_dir", few_digits / "run") == 2
    one_line(capfd, "--strategy: multi_worker cannot start as TF_CONFIG says (Could not start")


def test_a_user_s_own_choices_do_not_reach_a_program_and_are_left(few_digits, double_precision, monkeypatch):
    for name in ("KERAS_BACKEND", "MPLBACKEND"):
        monkeypatch.setenv(name, "nonsense")
    seen = []
    assert command_line(lambda session: seen.append(session.model), None, ["--run_dir", str(few_digits / "run")]) == 0
    assert (os.environ["KERAS_BACKEND"], os.environ["MPLBACKEND"]) == ("tensorflow", "Agg")
    assert {weight.dtype for weight in seen[0].get_weights()} == {np.dtype("float32")}
    assert (keras.config.floatx(), keras.config.dtype_policy().name) == ("float64", "float64")


def test_a_gpu_that_is_not_there_is_told_and_what_tensorflow_says_of_it(monkeypatch, capfd):
    def none_found(kind):
        os.write(2, b"I0000 oneDNN is on\nI0000 no driver for a GPU\nE0001 cuInit failed\n")
        return []

    monkeypatch.setattr(tf.config, "list_physical_devices", none_found)
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *_: None)
    for gpu, line, said in (
        ((0,), "CPU, for there is no GPU 0 (0 found)", True),
        ((-1,), "CPU", False),
        (None, "CPU", False),
    ):
        assert start_tensorflow(gpu) == (line, None, [0] if said else [])
        assert capfd.readouterr().err == "I0000 no driver for a GPU\nE0001 cuInit failed\n" * said
