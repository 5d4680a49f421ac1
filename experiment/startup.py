"""Imports TensorFlow without its start-up chatter, and picks the device."""

import contextlib
import os
import sys
import tempfile


@contextlib.contextmanager
def _muted_stderr():
    """Holds back what is written to stderr, by C++ too, and shows it after all if the block fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def start_tensorflow(gpu=0, threads=0):
    """Imports TensorFlow, makes the asked-for GPU the only visible one, and returns a line that says what is used.

    gpu: its number, from 0; -1 for the CPU. Where there is no such GPU the CPU is used, and the line says so.
    threads: of the CPU, 0 for one per core.
    Only the notes that TensorFlow writes while it starts are held back; warnings after that are shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    with _muted_stderr():
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        gpus = tf.config.list_physical_devices("GPU")
        tf.config.set_visible_devices(gpus[gpu : gpu + 1] if gpu >= 0 else [], "GPU")
        tf.zeros([])  # starts the runtime
    if 0 <= gpu < len(gpus):
        return f"GPU {gpu} of {len(gpus)}"
    return "CPU" if gpu <= 0 else f"CPU, for there is no GPU {gpu} ({len(gpus)} found)"
