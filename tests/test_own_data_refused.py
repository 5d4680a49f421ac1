"""What is no good as a user's own data is refused: one line, before the work."""

import functools

import numpy as np
import pytest
from PIL import Image

from data import DataError, Dataset, load
from experiment import program, session
from experiment.flags import parse_flags
from experiment.session import load_data
from experiment.settings import Config
from tasks import task01, task04
from tests.helpers import GREYS, draw, in_process, run_task
from utils import UsageError


def bad(tmp_path, kind):
    """Makes data that are no good, and returns their path."""
    path = tmp_path / "data.npz"
    images, labels = GREYS, np.arange(20) % 3
    fractions = GREYS / 255
    fractions[7, 2, 2] = np.nan
    contents = {
        "NaN": dict(x_train=fractions),
        "above": dict(x_train=GREYS / 1.0),
        "below": dict(x_train=GREYS.astype(int) - 1),
        "text": dict(x_train=np.array([[["a"]]] * 20)),
        "objects": dict(x_train=np.array([[[None]]] * 20)),
        "flat": dict(x_train=images.reshape(20, -1)),
        "names": dict(images=images),
        "empty": dict(x_train=images[:0]),
        "one": dict(x_train=images[:1]),
        "one to test": dict(x_train=images, x_test=images[:1]),
        "sizes": dict(x_train=images, x_test=images[:, :3]),
        "count": dict(x_train=images, y_train=labels[:19]),
        "fractions": dict(x_train=images, y_train=labels / 2),
        "negative": dict(x_train=images, y_train=labels - 1),
        "many": dict(x_train=images, y_train=labels + 1000),
        "unlabelled": dict(x_train=images, y_train=labels, x_test=images),
        "unknown": dict(x_train=images, y_train=labels, x_test=images, y_test=labels + 1),
        "one-hot": dict(x_train=images, y_train=np.eye(3, dtype=int)[labels]),
        "fortran": dict(x_train=np.asfortranarray(images)),
        "half": dict(x_train=images, y_train=labels, y_test=labels),
        "misspelt": dict(x_train=images, X_test=images),
        "bits beside bytes": dict(x_train=images, x_test=(images > 127).astype(np.uint8)),
        "bytes beside bits": dict(x_train=(images > 127).astype(np.uint8), x_test=images),
    }
    if kind in contents:
        np.savez(path, **contents[kind])
        return path
    path = tmp_path / "folder"
    path.mkdir()
    if kind != "bare":
        for number, image in enumerate(GREYS):
            draw(path / f"{number:02d}.png", image)
    if kind == "mixed":
        draw(path / "11.png", GREYS[11, :3])
    if kind == "unreadable":
        (path / "12.png").write_bytes((path / "12.png").read_bytes()[:40])
    if kind == "deep":
        draw(path / "13.png", GREYS[13].astype(np.uint16) * 256)
    if kind == "transparent":
        draw(path / "14.png", np.random.default_rng(1).integers(0, 256, (4, 6, 4)).astype(np.uint8))
    if kind == "transparent palette":
        image = Image.fromarray(GREYS[14]).convert("P")
        image.save(path / "14.png", transparency=image.getpixel((0, 0)))
    if kind == "transparent grey":
        Image.merge("LA", [Image.fromarray(GREYS[14])] * 2).save(path / "14.png")
    if kind == "nested":
        for number in range(20):
            draw(path / "all" / ("train" if number < 10 else "test") / f"{number}.png", GREYS[number])
            (path / f"{number:02d}.png").unlink()
    if kind == "class":
        for number in range(20):
            (path / "a").mkdir(exist_ok=True)
            (path / f"{number:02d}.png").rename(path / "a" / f"{number:02d}.png")
        (path / "b").mkdir()
    if kind == "cut":
        np.savez(tmp_path / "cut.npz", x_train=GREYS)
        (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-100])
        return tmp_path / "cut.npz"
    if kind == "rotten":  # one bit of one pixel: only the archive's sum tells
        np.savez(tmp_path / "rotten.npz", x_train=np.concatenate([GREYS] * 20))
        whole = bytearray((tmp_path / "rotten.npz").read_bytes())
        whole[9000] ^= 1  # far behind the header, which is read before
        (tmp_path / "rotten.npz").write_bytes(whole)
        return tmp_path / "rotten.npz"
    if kind == "short":
        np.save(tmp_path / "short.npy", GREYS)
        (tmp_path / "short.npy").write_bytes((tmp_path / "short.npy").read_bytes()[:-1])
        return tmp_path / "short.npy"
    if kind == "labels misspelt":
        (tmp_path / "npy").mkdir()
        np.save(tmp_path / "npy/x_train.npy", GREYS)
        np.save(tmp_path / "npy/Y_train.npy", labels)
        return tmp_path / "npy"
    if kind == "link":
        (path / "zz.png").symlink_to(tmp_path / "nowhere.png")
    if kind == "bytes mapped beside bits":
        (tmp_path / "npy").mkdir()
        np.save(tmp_path / "npy/x_train.npy", GREYS)
        np.save(tmp_path / "npy/x_test.npy", (GREYS > 127).astype(int))
        return tmp_path / "npy"
    if kind == "mapped":
        np.save(tmp_path / "bits.npy", (GREYS > 127).astype(np.uint8))
        return tmp_path / "bits.npy"
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("bare", "folder holds no PNG or JPEG files"),
        ("class", "b holds no PNG or JPEG files"),
        ("text", "x_train .* holds .*, not numbers"),
        ("objects", "x_train in .* is not an array of numbers"),
        ("flat", r"has the shape \(20, 24\): \[n, height, width\] is needed"),
        ("names", r"has no x_train \(it has images\)"),
        ("empty", r"\(0, 4, 6\): it is empty"),
        ("one", "there are 0 images to train on and 2 to test on"),
        ("one to test", "there are 20 images to train on and 1 to test on"),
        ("sizes", r"has the shape \(20, 3, 6\), and x_train \(20, 4, 6\)"),
        ("count", "y_train .* an integer for each of the 20 images"),
        ("fractions", "type float64: an integer for each"),
        ("negative", "y_train .* has labels from -1: they count from 0"),
        ("many", "labels go up to 1002, and there are only 18 images"),
        ("unlabelled", "has labels for train alone"),
        ("unknown", "y_test goes up to 3, and y_train to 2"),
        ("one-hot", r"y_train .* has the shape \(20, 3\) .* an integer for each of the 20 images"),
        ("fortran", "x_train in .* is not in C order; np.ascontiguousarray"),
        ("short", "short.npy cannot be read"),
        ("labels misspelt", "npy has Y_train: the name is y_train"),
        ("link", "zz.png cannot be read"),
        ("half", "data.npz has y_test and no x_test"),
        ("misspelt", "data.npz has X_test: the name is x_test"),
        ("nested", "all/t.* is part of a split in .*all: give the path of that folder"),
        ("cut", "cut.npz cannot be read"),
    ],
)
def test_what_no_header_can_be_right_of_is_refused_before_tensorflow(kind, said, tmp_path):
    with pytest.raises(UsageError, match=said) as error:
        parse_flags(["--dataset", str(bad(tmp_path, kind))])
    assert str(error.value).startswith("--dataset: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("NaN", "x_train in .* has NaN among images 0 to 19"),
        ("above", r"values from 0 to 255: floats must lie in \[0, 1\]"),
        ("below", "values from -1 to 254: integers must lie in 0 to 255"),
        ("mixed", "11.png is 3 pixels high and 6 wide, where 4 by 6 were expected"),
        ("unreadable", "12.png cannot be read as a picture"),
        ("deep", "13.png has more than 8 bits a pixel"),
        ("rotten", "x_train in .* cannot be read"),
        ("transparent", "14.png is transparent in places"),
        ("transparent palette", "14.png is transparent in places"),
        ("transparent grey", "14.png is transparent in places"),
        ("mapped", "holds 0 and 1 alone; bytes in .npy files are used unchanged"),
        ("bytes mapped beside bits", "there are test images up to 1 and train images up to 255: save all as bytes"),
        ("bits beside bytes", "there are train images up to 2.. and test images up to 1: save all as bytes"),
        ("bytes beside bits", "there are train images up to 1 and test images up to 2..: save all as bytes"),
    ],
)
def test_what_only_the_images_tell_is_refused_before_tensorflow(kind, said, tmp_path, results, capfd, monkeypatch):
    path = bad(tmp_path, kind)
    with pytest.raises(DataError, match=said):
        load(str(path))
    if kind == "mixed":  # once as a user sees it
        monkeypatch.setattr(program, "start_tensorflow", lambda *_: pytest.fail("TensorFlow was started"))
        for refused in (in_process, functools.partial(run_task, task01)):
            assert refused("--dataset", path, "--batch_size", 5, "--gpu", -1) == 2
            error = capfd.readouterr().err
            assert error.startswith("--dataset: ", error.index("error: ") + 7) and error.count("\n") == 1
            assert "11.png is 3 pixels high" in error and not list(results.rglob("config.json"))


def test_labels_that_no_training_image_has_are_refused_to_a_conditional_model(tmp_path, results, capfd):
    np.savez(tmp_path / "sorted.npz", x_train=GREYS, y_train=[0] * 9 + [1] * 9 + [2] * 2)
    flags = ["--dataset", str(tmp_path / "sorted.npz"), "--batch_size", "9"]
    for how in ("learned_prior", "standard_prior"):
        assert in_process(*flags, "--conditional", how) == 2
        error = capfd.readouterr().err
        assert error.endswith("--conditional: no training image has the label 2, which test images have\n")
    load_data(parse_flags(flags)[0])


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "No such file", "gone.png"), OSError(12, "No memory"), MemoryError("no room")]
)
def test_data_that_cannot_be_read_after_all_are_one_line(error, tmp_path, monkeypatch, results, capfd):
    """A picture that has gone since the folder was looked at; arrays that are larger than memory."""

    def fails(*_):
        raise error

    np.savez(tmp_path / "some.npz", x_train=GREYS)
    for module, name in ((session, "load"), (Dataset, "binarised")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fails)
            assert in_process("--dataset", tmp_path / "some.npz", "--batch_size", "9") == 2
        said = capfd.readouterr().err
        assert f"error: --dataset: {getattr(error, 'filename', None) or tmp_path / 'some.npz'} cannot be read (" in said
        assert said.count("\n") == 1


def test_saved_facts_of_the_data_that_are_none_are_refused():
    good = dict(n_train=18, n_test=2, n_labels=0, image_shape=[4, 6], crc32=7)
    assert Config(dataset="photos", own_data=good).completed().own_data == good
    for bad_facts in ("x", [1], {"n_train": 3}, *({**good, name: "3"} for name in good), {**good, "image_shape": 3}):
        with pytest.raises(UsageError, match="--dataset: own_data is"):
            Config(dataset="photos", own_data=bad_facts).completed()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--dataset {}/nowhere", "nowhere is not allowed; one of mnist, .*, or the path of"),
        ("--dataset {}/all.npz --batch_size 19", "--batch_size: 19 is not allowed; there are 18 images"),
        ("--dataset {}/all.npz --batch_size 9 --conditional learned_prior", "all.npz has no labels"),
        ("--dataset {}/all.npz --batch_size 9 --binarise never", "one of dynamic, fixed, threshold, none"),
        ("--dataset {}/text.txt", "text.txt is no .npz or .npy file and no folder"),
    ],
)
def test_flags_are_judged_by_the_user_s_own_data(flags, said, tmp_path):
    np.savez(tmp_path / "all.npz", x_train=GREYS)
    (tmp_path / "text.txt").write_text("")
    with pytest.raises(UsageError, match=said):
        parse_flags(flags.format(tmp_path).split())


def test_a_task_about_labels_says_where_there_are_none(tmp_path, results, capfd):
    np.savez(tmp_path / "all.npz", x_train=GREYS)
    flags = ["--dataset", str(tmp_path / "all.npz"), "--batch_size", "9"]
    assert run_task(task04, *flags) == 2
    error = capfd.readouterr().err
    assert (
        "--conditional: learned_prior is not allowed" in error and "has no labels" in error and error.count("\n") == 1
    )


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (GREYS.astype(np.uint16) * 257, "values from 0 to 65535: integers must lie in 0 to 255"),
        (2 * (GREYS / 255) - 1, r"values from -1 to 1: floats must lie in \[0, 1\]"),
    ],
)
def test_images_of_another_scale_are_refused(images, said, tmp_path):
    np.savez(tmp_path / "data.npz", x_train=images)
    with pytest.raises(DataError, match=said):
        load(str(tmp_path / "data.npz"))


@pytest.mark.parametrize(("n", "axis"), [(4, -1), (2, -1), (3, 1)])
def test_channels_are_1_or_3_and_come_last(n, axis, tmp_path):
    np.savez(tmp_path / "data.npz", x_train=np.stack([GREYS] * n, axis=axis))
    with pytest.raises(DataError, match="is needed, or that and 1 or 3 channels"):
        load(str(tmp_path / "data.npz"))
