"""What several files of tests do: programs in this process, what they say, and what they leave in a run's folder."""

import shlex
import sys

import h5py
import numpy as np
from PIL import Image

import main
from experiment import command_line

TINY = "--n_samples 2 --n_hidden 12 --n_latent 3 --batch_size 100 --eval_samples 20 --eval_images 50 --gpu -1".split()
RECORD = dict(test_llh=-9.5, standard_error=0.1, mc_error=None, n_samples=20, n_images=50, active_units=[2])
GREYS = np.random.default_rng(0).integers(0, 256, (20, 4, 6)).astype(np.uint8)  # images of a data set


def last_frame(figure, draw, n_frames, path, fps=None):
    """In the place of plots.runs.save_animation: all that it takes of an animation, but for its pictures."""
    draw(n_frames - 1)


def in_process(*flags):
    """main.py's exit code."""
    return command_line(main.work, main.DESCRIPTION, [str(flag) for flag in flags])


def run_task(task, *flags):
    """A task's exit code."""
    return command_line(task.work, task.__doc__, [*map(str, flags)], task.DEFAULTS, task.FIXED)


def go_on_line(error):
    """The words of the command that a stopped program names."""
    (line,) = [line for line in error.splitlines() if line.startswith("go on with: ")]
    python, *words = shlex.split(line.removeprefix("go on with: "))
    assert python == sys.executable
    return words


def newest_checkpoint(folder):
    steps = [int(path.stem.split("-")[1]) for path in (folder / "checkpoints").glob("ckpt-*.index")]
    return max(steps, default=None)


def weights_in(folder):
    found = []
    with h5py.File(folder / "model.weights.h5") as file:
        file.visititems(lambda name, item: found.append(item[()]) if isinstance(item, h5py.Dataset) else None)
    assert found
    return found


def draw(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def one_line(capfd, *said):
    out, err = capfd.readouterr()
    assert err.count("\n") == 1 and all(text in err for text in said), err
    return out


def part_of(page, name):
    """What stands between the marks of a part of a page."""
    _, _, rest = page.read_text().partition(f"<!-- {name} -->")
    return rest.partition(f"<!-- /{name} -->")[0].strip()
