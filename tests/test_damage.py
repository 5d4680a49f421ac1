"""Damaged and hand-edited files, a reader that goes away, a poor terminal: a line each, nothing lost."""

import io
import json
import os
import signal
import sys

import numpy as np
import pytest

import data.mnist
import data.published
from evaluation import likelihood
from experiment import program, session
from experiment.run_folder import DRAWN
from tests.helpers import RECORD, go_on_line, in_process, one_line, weights_in

WRONG_TYPES = [
    ("n_samples", "five", "--n_samples: five is not allowed; a whole number"),
    ("n_samples", 2.5, "--n_samples: 2.5 is not allowed; a whole number"),
    ("n_samples", True, "--n_samples: True is not allowed; a whole number"),
    ("n_samples", None, "--n_samples: null is not allowed; a whole number"),
    ("n_samples", [2], "--n_samples: (2,) is not allowed; a whole number"),
    ("n_latent", 3, "--n_latent: 3 is not allowed"),
    ("n_latent", ["3"], "--n_latent: 3 is not allowed; a whole number"),
    ("n_latent", {"3": 3}, "--n_latent: {'3': 3} is not allowed"),
    ("learning_rate", "1e-4", "--learning_rate: 1e-4 is not allowed; a number"),
    ("objective", 7, "--objective: 7 is not allowed; a text"),
    ("hyperparameters", [1], "hyperparameters: (1,) is not allowed"),
    ("seed", -1, "--seed: -1 is not allowed; at least 0"),
]
TOO_DEEP = pytest.param("[" * 100000, id="too deep")
TOO_LONG = pytest.param("epoch,step\n" + "0" * 140000 + ",0\n", id="too long")


@pytest.mark.parametrize(("name", "value", "said"), WRONG_TYPES)
def test_a_config_of_wrong_types_is_one_line_before_the_work(name, value, said, copied, no_work, capfd):
    saved = json.loads((copied / "config.json").read_text())
    saved["experiment"][name] = value
    (copied / "config.json").write_text(json.dumps(saved))
    assert in_process("--eval_only", "--run_dir", copied) == 2
    one_line(capfd, said, f"--run_dir: {copied}/config.json")


@pytest.mark.parametrize(
    "content", ["", "[]", "7", '{"experiment": 3, "evaluation": {}, "preset": "paper"}', "\xff", TOO_DEEP]
)
def test_a_config_that_is_none_is_one_line_before_the_work(content, copied, no_work, capfd):
    (copied / "config.json").write_bytes(content.encode("latin-1"))
    assert in_process("--resume", "--run_dir", copied) == 2
    one_line(capfd, "config.json cannot be read")


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", *(json.dumps({**RECORD, name: "?"}) for name in RECORD), "NaN",
        json.dumps({**RECORD, "test_llh": float("-inf")}), json.dumps({**RECORD, "pareto_k": "x"}),
    ],
)  # fmt: skip
def test_a_damaged_record_is_one_line_before_the_work_and_stays(content, copied, no_work, capfd):
    content = json.dumps(RECORD | {"test_llh": float("nan")}) if content == "NaN" else content
    (copied / "test_llh.json").write_text(content)
    assert in_process("--eval_only", "--run_dir", copied) == 2
    one_line(capfd, "test_llh.json", "delete it to measure anew")
    assert (copied / "test_llh.json").read_text() == content


def test_a_record_of_an_earlier_version_is_read_and_replaced_by_a_finer_one_only(copied, capfd):
    record = copied / "test_llh.json"
    record.write_text(json.dumps(RECORD | {"n_samples": 30}))  # it has no Pareto k
    assert in_process("--eval_only", "--run_dir", copied, "--eval_samples", 30) == 0
    assert "keeps -9.50 (k=30, 50 images)" in capfd.readouterr().out and "pareto_k" not in record.read_text()
    assert in_process("--eval_only", "--run_dir", copied, "--eval_samples", 31) == 0
    new = json.loads(record.read_text())
    said = f"Pareto k of the weights: median {new['pareto_k']:.2f}, above 0.7 for {new['pareto_k_high']:.0%}"
    assert new["test_llh"] != -9.5 and 0 <= new["pareto_k_high"] <= 1 and said in capfd.readouterr().out


def test_weights_with_other_bytes_are_one_line_before_the_work(copied, no_work, capfd):
    content = bytearray((copied / "model.weights.h5").read_bytes())
    content[len(content) // 2] ^= 1
    (copied / "model.weights.h5").write_bytes(content)
    assert in_process("--eval_only", "--run_dir", copied) == 2
    one_line(capfd, "model.weights.h5 is damaged")


def test_weights_that_cannot_be_read_are_one_line(copied, capfd):
    """Without a sum in training.json, as runs of earlier versions are."""
    (copied / "training.json").write_text('{"epochs": 1, "seconds": 1}')
    whole, refused = (copied / "model.weights.h5").read_bytes(), 0
    for at in range(0, 2048, 256):
        (copied / "model.weights.h5").write_bytes(whole[:at] + bytes(range(256)) + whole[at + 256 :])
        if in_process("--eval_only", "--run_dir", copied) == 2:
            one_line(capfd, "model.weights.h5 does not fit this model, or is damaged")
            refused += 1
        else:  # what was overwritten held nothing
            assert "log likelihood" in capfd.readouterr().out
    assert refused > 3


@pytest.mark.parametrize("content", ['{"weights"', "[]", '{"epochs": 1}', '{"epochs": 1, "seconds": NaN}'])
def test_a_damaged_training_json_is_one_line_before_the_work(content, copied, no_work, capfd):
    (copied / "training.json").write_text(content)
    assert in_process("--eval_only", "--run_dir", copied) == 2
    one_line(capfd, "training.json ")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "step\nx\n",
        "epoch,step\n0,0\n0,\n",
        "epoch,step\n0,0\n0\n",
        "epoch,step,seconds\n0,0\n",
        "epoch,step\n1,0\n",
        "epoch,step\n0,0\n",
        ",".join(["epoch,step", *sorted(DRAWN)]) + "\n0,0,x,1,1,1\n",
        ",".join(["epoch,step", *sorted(DRAWN)]) + "\n0,0,x,1,1,1\n1,20,1,1,1,1\n",
        TOO_LONG,
    ],
)
def test_damaged_metrics_are_one_line_before_the_work(content, copied, no_work, capfd):
    (copied / "model.weights.h5").unlink()
    (copied / "metrics.csv").write_text(content)
    assert in_process("--resume", "--run_dir", copied) == 2
    one_line(capfd, "metrics.csv is damaged")


def test_metrics_that_cannot_be_read_are_not_called_damaged(copied, no_work, capfd):
    (copied / "model.weights.h5").unlink()
    (copied / "metrics.csv").unlink()
    (copied / "metrics.csv").mkdir()
    assert in_process("--resume", "--run_dir", copied) == 2
    one_line(capfd, "metrics.csv cannot be read (Is a directory)")


@pytest.mark.parametrize("content", [b"\xff\xfe", b""])
def test_files_that_others_left_in_the_folder_are_passed_over(content, copied):
    """A file manager's copies, a list of checkpoints that is none, and what a killed process had begun to write."""
    expected = weights_in(copied)
    (copied / "model.weights.h5").unlink()
    for name in ("arrays/prior_0001 (copy).npz", "checkpoints/ckpt-3 (copy).index", "checkpoints/a_temp"):
        (copied / name).touch()
    (copied / "checkpoints/checkpoint").write_bytes(content)
    (copied / "figures/posteriors").mkdir()
    (copied / "figures/posteriors/.writing-x").touch()
    (copied / "figures/.writing-x").touch()
    (copied / "arrays/.writing-x").touch()
    assert in_process("--resume", "--run_dir", copied) == 0
    assert not list(copied.rglob(".writing-*"))
    for a, b in zip(weights_in(copied), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_damaged_weights_are_made_again_from_the_checkpoint(copied):
    expected = (copied / "model.weights.h5").read_bytes()
    (copied / "model.weights.h5").write_bytes(expected[:-1] + bytes([expected[-1] ^ 1]))
    assert in_process("--resume", "--run_dir", copied) == 0
    assert len((copied / "model.weights.h5").read_bytes()) == len(expected)
    assert in_process("--eval_only", "--run_dir", copied) == 0


def test_only_damaged_checkpoints_are_an_error_of_a_line_each(copied, capfd):
    (copied / "model.weights.h5").unlink()
    damaged = list((copied / "checkpoints").glob("ckpt-*.index"))
    for path in damaged:
        path.write_bytes(path.read_bytes()[:20])
    assert in_process("--resume", "--run_dir", copied) == 2
    *lines, last = capfd.readouterr().err.splitlines()
    assert len(lines) == len(damaged) and all(" is not used: it is damaged or foreign (" in line for line in lines)
    assert "error: --resume: no usable checkpoint in" in last


def test_one_sample_of_one_image_has_no_errors(copied, capfd):
    assert in_process("--eval_only", "--run_dir", copied, "--eval_samples", 1, "--eval_images", 1) == 0
    record = json.loads((copied / "test_llh.json").read_text())
    assert record["standard_error"] is record["mc_error"] is None
    last = capfd.readouterr().out.splitlines()[-1]
    assert last == f"test log likelihood (k=1): {record['test_llh']:.2f} nats"


def flipped(content):
    return content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 255]) + content[len(content) // 2 + 1 :]


def with_other_headers(content):
    """Of HDF5: TREE and HEAP are where its groups are listed."""
    return content.replace(b"TREE", b"XXXX").replace(b"HEAP", b"XXXX")


DAMAGED_ARRAYS = {
    "an empty archive": ("prior_0001.npz", lambda _: b""),
    "half an archive": ("prior_0001.npz", lambda content: content[: len(content) // 2]),
    "an archive with another byte": ("prior_0001.npz", flipped),
    "empty weights": ("after_0000.weights.h5", lambda _: b""),
    "half the weights": ("after_0000.weights.h5", lambda content: content[: len(content) // 2]),
    "weights with other headers": ("after_0000.weights.h5", with_other_headers),
}


@pytest.mark.parametrize("which", DAMAGED_ARRAYS)
def test_damaged_arrays_are_one_line_before_the_work_and_can_be_deleted(which, copied, monkeypatch, capfd):
    (copied / "model.weights.h5").unlink()
    name, damaged = DAMAGED_ARRAYS[which]
    path = copied / "arrays" / name
    path.write_bytes(damaged(path.read_bytes()))
    with monkeypatch.context() as patch:
        patch.setattr(session, "build_model", lambda *_: pytest.fail("the work was begun"))
        assert in_process("--resume", "--run_dir", copied) == 2
    one_line(capfd, f"--run_dir: {path} cannot be read", "delete it")
    path.unlink()
    assert in_process("--resume", "--run_dir", copied) == 0


def bad_caches():
    file = io.BytesIO()
    np.savez(file, **{part: np.zeros((2, 2), np.uint8) for part in data.published.PARTS})
    whole = file.getvalue()
    yield "an array", b"\x93NUMPY" + whole
    yield "text", b"no archive"
    yield "empty", b""
    yield "cut short", whole[:-30]
    for at in (6, 8, 50, 100, 200, len(whole) - 40, len(whole) - 300):  # versions, flags, methods, headers, lists
        yield f"byte {at}", whole[:at] + b"\x63" + whole[at + 1 :]


@pytest.mark.parametrize(("name", "content"), list(bad_caches()))
def test_a_bad_cache_is_said_to_be_bad(name, content, tmp_path, monkeypatch):
    monkeypatch.setattr(data.published, "CACHE", tmp_path)
    (tmp_path / "mnist.npz").write_bytes(content)
    with pytest.raises(data.DataError, match=r"the cached .*mnist\.npz.*deleted?.*fetched again"):
        data.mnist.load()


def test_a_terminal_of_ascii_shows_the_result(copied, monkeypatch):
    written = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", written)
    assert in_process("--eval_only", "--run_dir", copied) == 0
    last = written.buffer.getvalue().decode("ascii").splitlines()[-1]
    assert last.startswith("test log likelihood (k=20): ") and r" \xb1 " in last


def test_a_reader_that_goes_away_ends_it_in_silence(copied, no_work, tmp_path, monkeypatch, capfd):
    """As in `main.py ... | head -1`."""
    for flags in (["--eval_only", "--run_dir", copied], ["--preset", "quick", "--run_dir", tmp_path / "new"]):
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w") as stdout:
            monkeypatch.setattr(sys, "stdout", stdout)
            assert in_process(*flags) == 141
    assert capfd.readouterr().err == "" and not (tmp_path / "new").exists()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_stream_may_be_closed(stream, copied, monkeypatch):
    """As those of a daemon are."""
    monkeypatch.setattr(sys, stream, None)
    assert in_process("--epochs", 0) == 2
    monkeypatch.setattr(sys, stream, None)
    assert in_process("--eval_only", "--run_dir", copied) == 0


def test_a_full_disk_behind_stdout_is_one_line(copied, no_work, monkeypatch, capfd):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert in_process("--eval_only", "--run_dir", copied) == 2
    one_line(capfd, "No space left on device: stdout or a file")


def test_an_error_of_no_file_does_not_lose_what_was_said(monkeypatch, capfd):
    def failing(*_):
        print("said")
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(program, "parse_flags", failing)
    assert in_process() == 2
    assert one_line(capfd, "Input/output error: stdout or a file") == "said\n"


def test_ctrl_c_before_the_folder_is_open_is_one_line(monkeypatch, capfd):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "parse_flags", stopped)
    assert in_process() == 130 and capfd.readouterr().err == "\nstopped\n"


@pytest.fixture
def ctrl_c():
    """Ctrl-C as at a terminal: it is ignored where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_evaluation_between_two_calls(number, copied, ctrl_c, monkeypatch, capfd):
    """Before the first batch is done, with the line that says how to go on."""
    monkeypatch.setattr(likelihood, "CHUNKS_PER_CALL", 1)
    monkeypatch.setattr(likelihood.ProgressBar, "update", lambda *_: pytest.fail("a batch was finished"))
    calls = []

    def constant(*args):
        calls.append(args)
        if len(calls) == 8:
            signal.raise_signal(number)
        return real(*args)

    real = likelihood.tf.constant
    monkeypatch.setattr(likelihood.tf, "constant", constant)
    assert in_process("--eval_only", "--run_dir", copied) == 130
    out, err = capfd.readouterr()
    assert go_on_line(err)[1:] == ["--eval_only", "--run_dir", str(copied)] and "nats" not in out
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
