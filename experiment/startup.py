"""Imports TensorFlow without its start-up chatter, and picks the device."""

import contextlib
import faulthandler
import os
import platform
import sys
import tempfile
from typing import Any, NamedTuple

from utils import UsageError, first_line


class Device(NamedTuple):
    """What is computed on: a line that says it, a tf.distribute.Strategy or None for one device, and the numbers of the
    GPUs that were asked for and are not there.
    """

    line: str
    strategy: Any
    missing: list


@contextlib.contextmanager
def single_precision():
    """Within, what Keras builds is of float32, whatever keras.json or the user's process has."""
    import keras

    before = keras.config.floatx(), keras.config.dtype_policy()
    try:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


@contextlib.contextmanager
def _muted_stderr():
    """Holds back what is written to stderr, by C++ too, and yields a list.

    When the block ends, TensorFlow's lines about GPUs, its warnings and its errors are shown if the list is not empty;
    all is shown if the block raised, but for Ctrl-C and UsageError, which say why themselves. If the process is killed,
    as on a CPU that TensorFlow was not built for, faulthandler says where.
    """
    wanted = []
    sys.stderr.flush()
    kept = os.dup(2)
    if told := not faulthandler.is_enabled():
        faulthandler.enable(kept)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield wanted
        except (KeyboardInterrupt, UsageError):
            wanted.clear()
            raise
        except BaseException:
            wanted.clear()
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            sys.stderr.flush()
            held.seek(0)
            for line in held.read().splitlines(keepends=True) if wanted else ():
                if b"GPU" in line or (line[:1] in b"WE" and line[1:5].isdigit()):
                    os.write(kept, line)
            os.dup2(kept, 2)
            if told:
                faulthandler.disable()
            os.close(kept)


def _not_about_retracing(record):
    """Every model has functions of its own, each traced once; TensorFlow takes them for one that is traced often."""
    return "triggered tf.function retracing" not in record.getMessage()


def hardware(threads):
    """What seconds are of: the GPUs in use by name or the CPU's kind, and its threads (0: one per core in use)."""
    import tensorflow as tf

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    details = map(tf.config.experimental.get_device_details, tf.config.get_visible_devices("GPU"))
    names = [gpu.get("device_name", "GPU") for gpu in details]
    return {"device": ", ".join(names) or f"CPU, {platform.machine()}", "threads": threads or cores}


def start_tensorflow(gpu=None, threads=0, strategy="one"):
    """Imports TensorFlow and makes the asked-for GPUs the only visible ones. Their memory is taken as it is needed.

    gpu: a number, from 0, or several, of those that are there; -1 for the CPU; None for the first GPU, or for all of
    them where `strategy` uses several. Where there is no such GPU the CPU is used. threads: of the CPU, 0 for one per
    core. strategy: as the flag of that name; multi_worker waits here for the other workers.
    What TensorFlow writes while it starts is held back, unless it fails or finds no such GPU; then it may say why.

    Raises UsageError where a worker cannot start, and for other `threads` than TensorFlow has begun with. Returns a
    Device.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    asked = None if gpu is None else [gpu] if isinstance(gpu, int) else list(gpu)
    with _muted_stderr() as wanted:
        import tensorflow as tf

        tf.get_logger().addFilter(_not_about_retracing)
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        except RuntimeError:
            raise UsageError(f"--threads: {threads} comes too late; this process began with another number") from None
        gpus = tf.config.list_physical_devices("GPU")
        numbers = asked if asked is not None else [0] if strategy == "one" else range(len(gpus))
        used = [n for n in numbers if 0 <= n < len(gpus)]
        wanted += (missing := [n for n in asked or () if n >= 0 and n not in used])
        tf.config.set_visible_devices([gpus[n] for n in used], "GPU")
        for n in used:
            tf.config.experimental.set_memory_growth(gpus[n], True)
        try:
            chosen = tf.distribute.MultiWorkerMirroredStrategy() if strategy == "multi_worker" else None
        except tf.errors.OpError as error:
            raise UsageError(f"--strategy: multi_worker cannot start as TF_CONFIG says ({first_line(error)})") from None
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")  # starts the runtime
        if strategy == "mirrored" and len(devices) > 1:
            chosen = tf.distribute.MirroredStrategy([device.name for device in devices])
    line = f"GPU {', '.join(map(str, used))} of {len(gpus)}" if used else "CPU"
    if missing:
        line += f", for there is no GPU {', '.join(map(str, missing))} ({len(gpus)} found)"
    return Device(line + (f"; {chosen.num_replicas_in_sync} replicas" if chosen else ""), chosen, missing)
