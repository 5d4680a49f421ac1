"""README: its examples run as they stand, and its links lead somewhere."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
PAGES = sorted(path for path in TRACKED if path.endswith(".md"))


def python_blocks(section):
    """The Python code under a heading of README: [text of a block]."""
    text = README.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def apply(block, root):
    """Does to a copy of the repository what a block under "Extend it" says: a new file, and an entry in a table."""
    for part in re.split(r"^# (?=\S+\.py)", block, flags=re.MULTILINE)[1:]:
        heading, _, code = part.partition("\n")
        path, _, table = heading.partition(", in ")
        if not table:
            (root / path).write_text(code)
            continue
        lines = (root / path).read_text().splitlines()
        (opening,) = [number for number, line in enumerate(lines) if line == f"{table} = {{"]
        (root / path).write_text("\n".join([*lines[: opening + 1], code.rstrip(), *lines[opening + 1 :]]) + "\n")


def test_the_three_extensions_run_as_they_stand(tmp_path):
    copy = tmp_path / "copy"
    for name in TRACKED:
        if name.endswith(".py") and (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    blocks = python_blocks("Extend it")
    assert len(blocks) == 3
    for block in blocks:
        apply(block, copy)
    flags = "--objective vr_max --model centred --dataset stripes --preset quick --epochs 2 --n_samples 4 --gpu -1"
    evaluation = "--eval_samples 50 --eval_images 100"
    process = subprocess.run(
        [sys.executable, "main.py", *flags.split(), *evaluation.split(), "--run_dir", tmp_path / "run"],
        cwd=copy, text=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(copy)},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "test log likelihood (k=50): " in process.stdout
    saved = json.loads((tmp_path / "run" / "config.json").read_text())["experiment"]
    assert (saved["objective"], saved["model"], saved["dataset"]) == ("vr_max", "centred", "stripes")
    assert (tmp_path / "run/figures/prior.png").stat().st_size > 5000


def anchors(text):
    """The anchors that a page's headings make, as hosts of repositories build them."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_and_to_files_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\(((?!http)[^)]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        assert str(target.relative_to(ROOT)) in TRACKED or target.is_dir(), f"{page}: {link} is not in the repository"
        assert not anchor or anchor in anchors(target.read_text()), f"{page}: {link}"


def test_readme_is_short():
    assert len(README.splitlines()) < 150
