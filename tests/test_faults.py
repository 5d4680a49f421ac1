"""The table of planted faults does not rot: each can be planted, and its tests are there."""

import ast

import pytest

from tests.faults import ROOT, node_ids
from tests.planted import FAULTS


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_fault_can_be_planted_and_its_tests_are_there(fault):
    text = (ROOT / fault.file).read_text()
    assert text.count(fault.old) == 1
    ast.parse(text.replace(fault.old, fault.new))
    for node in node_ids(fault.tests):
        file, _, name = node.partition("::")
        assert not name or f"\ndef {name}(" in (ROOT / file).read_text(), node
