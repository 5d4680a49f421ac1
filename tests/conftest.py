import functools
import http.server
import pathlib
import shutil
import threading

import keras
import numpy as np
import pytest

import plots.comparison
import plots.gradients
import plots.runs
import plots.style
import plots.tasks
from experiment import run_folder, session
from experiment.startup import start_tensorflow
from tests.helpers import TINY, in_process

# The longest files: begun last they would be waited for.
FIRST = ("replicas", "tasks", "command_line", "training", "going_on")


def pytest_configure(config):
    if hasattr(config, "workerinput") or config.getoption("dist", "no") == "no":  # not in the one that hands out tests
        start_tensorflow(gpu=-1)


def pytest_collection_modifyitems(items):
    names = [f"test_{name}.py" for name in FIRST]
    items.sort(key=lambda item: names.index(item.path.name) if item.path.name in names else len(names))


@pytest.fixture(scope="session")
def mnist():
    """MNIST through the project's own loader, from wherever it finds it."""
    from data import load

    return load("mnist")


@pytest.fixture(scope="session")
def digits(mnist):
    """A small data set of real digits, for training runs of seconds: 400 training and 200 test images."""
    return mnist._replace(
        train_images=mnist.train_images[:400],
        train_labels=mnist.train_labels[:400],
        test_images=mnist.test_images[:200],
        test_labels=mnist.test_labels[:200],
        entry=mnist.entry._replace(n_train=400, n_test=200),
    )


@pytest.fixture
def few_digits(digits, monkeypatch, tmp_path):
    """Programs in this process find 400 training images, and results/ in a temporary folder."""
    monkeypatch.setattr(session, "load", lambda *_: digits)
    monkeypatch.setattr(run_folder, "RESULTS", tmp_path)
    return tmp_path


@pytest.fixture
def figures(monkeypatch):
    """The figures that a test draws, by the names of their files, in the place of pictures."""
    drawn = {}
    for module in (plots.runs, plots.comparison, plots.tasks, plots.gradients):
        monkeypatch.setattr(module, "save", lambda figure, path: drawn.update({path.name: figure}))
    yield drawn
    plots.style.plt.close("all")


@pytest.fixture
def double_precision():
    """As a user's keras.json may ask for."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def results(monkeypatch, tmp_path):
    """results/ is a folder below a temporary one."""
    monkeypatch.setattr(run_folder, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def no_figures(monkeypatch):
    """Programs in this process draw none of main.py's figures, where a test does not look at them."""
    monkeypatch.setattr(session.Session, "draw", lambda self: None)


@pytest.fixture(scope="session")
def finished(digits, tmp_path_factory):
    """A finished run's folder; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "load", lambda *_: digits)
        assert in_process(*TINY, "--jit", "off", "--epochs", 2, "--run_dir", folder) == 0
    return folder


@pytest.fixture
def finished_copy(finished, few_digits, tmp_path):
    """A copy of it, and programs find few digits."""
    return pathlib.Path(shutil.copytree(finished, tmp_path / "copied"))


@pytest.fixture(scope="session")
def small(digits, tmp_path_factory):
    """A finished run on few images, without its measurement; and programs find these images."""
    folder = tmp_path_factory.mktemp("small") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "load", lambda *_: digits)
        patch.setattr(session.Session, "draw", lambda self: None)
        patch.setattr(session.Session, "measure", lambda self: None)
        assert in_process(*TINY, "--jit", "off", "--epochs", 1, "--run_dir", folder) == 0
    return folder


@pytest.fixture
def copied(small, few_digits, tmp_path, monkeypatch):
    """A copy of it; programs in this process draw no figures."""
    monkeypatch.setattr(session.Session, "draw", lambda self: None)
    return pathlib.Path(shutil.copytree(small, tmp_path / "copied"))


@pytest.fixture(scope="session")
def whole(tmp_path_factory, digits):
    """The folder of a run that was never stopped, and what it ended with."""
    from tests.trainings import run_training

    folder = tmp_path_factory.mktemp("run") / "whole"
    return folder, run_training(folder, digits)


@pytest.fixture
def uninterrupted(whole):
    return whole[1]


@pytest.fixture
def copy_of_whole(whole, tmp_path):
    """A copy of its folder."""
    return pathlib.Path(shutil.copytree(whole[0], tmp_path / "run"))


@pytest.fixture(scope="session")
def saved_often(tmp_path_factory, digits):
    """The folder of a run with a checkpoint after every step, without the last one."""
    from tests.trainings import run_training
    from training import loop

    folder = tmp_path_factory.mktemp("run") / "saved_often"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SECONDS_PER_CALL", 0.0)  # one step a call
        patch.setattr(loop, "SECONDS_PER_CHECKPOINT", 0.0)
        run_training(folder, digits)
    assert {path.stem for path in (folder / "checkpoints").glob("ckpt-*.index")} == {"ckpt-59", "ckpt-60"}  # the last
    for path in (folder / "checkpoints").glob("ckpt-60.*"):
        path.unlink()
    return folder


@pytest.fixture
def no_work(monkeypatch):
    """Fails where a model would be made."""
    monkeypatch.setattr(session, "build_model", lambda *_: pytest.fail("the work was begun"))


@pytest.fixture
def binary_images():
    """[6, 784] of 0 and 1."""
    return (np.random.default_rng(0).random((6, 784)) < 0.03).astype(np.float32)


@pytest.fixture
def web(tmp_path, monkeypatch):
    """(the folder that a server on this machine publishes, its address)."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    folder = tmp_path / "published"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
