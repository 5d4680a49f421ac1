"""The tables of planted faults do not rot: each can be planted, and its tests are there."""

import ast
import re

import pytest

from tests.faults import ROOT, node_ids
from tests.operators import GUARDS, drawn_faults, mutated
from tests.planted import FAULTS

ROOMS = (
    "models/",
    "training/",
    "evaluation/",
    "experiment/, data/, utils.py",
    "plots/, tasks/, tables.py",
    "benchmarks/",
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_fault_can_be_planted_and_its_tests_are_there(fault):
    text = (ROOT / fault.file).read_text()
    assert text.count(fault.old) == 1
    ast.parse(text.replace(fault.old, fault.new))
    for node in node_ids(fault.tests):
        file, _, name = node.partition("::")
        assert not name or f"\ndef {name}(" in (ROOT / file).read_text(), node


def test_the_page_counts_the_faults():
    text, counted = (ROOT / "tests/README.md").read_text(), 0
    for planted, rooms in (re.search(rf"\n\| ({rooms}) \| (\d+) \| \2 \|", text).group(2, 1) for rooms in ROOMS):
        assert int(planted) == sum(fault.file.startswith(tuple(rooms.split(", "))) for fault in FAULTS), rooms
        counted += int(planted)
    assert counted == len(FAULTS)


def test_every_file_that_computes_a_number_is_planted_in_and_its_tests_are_there():
    rooms = [path for room in ("models", "training", "evaluation") for path in (ROOT / room).glob("*.py")]
    tables = ("__init__.py", "catalogue.py", "replicas.py", "stages.py")  # of names; replicas has tests of its own
    assert {str(path.relative_to(ROOT)) for path in rooms if path.name not in tables} <= set(GUARDS)
    assert all((ROOT / file).exists() and (ROOT / node).exists() for file in GUARDS for node in node_ids(GUARDS[file]))


def test_drawn_faults_differ_and_each_changes_its_file():
    drawn = list(drawn_faults(ROOT, 20))
    assert len(set(drawn)) == 20
    for fault in drawn:
        assert (ROOT / fault.file).read_text() == fault.old != fault.new and ast.parse(fault.new)


def test_a_change_that_does_not_parse_is_passed_over():
    assert mutated("while not (a := b()):\n    pass\n", "AddNot", 0) is not None
    assert mutated("while a := b():\n    pass\n", "AddNot", 0) is None
    assert mutated("try:\n    a\nexcept (b.c, d):\n    pass\n", "ExceptionReplacer", 0) is None
