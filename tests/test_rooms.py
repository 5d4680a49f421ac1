"""The rooms of the project: imports run one way, and what flags are judged by is there without TensorFlow."""

import ast
import subprocess
import sys

import pytest

from experiment.run_folder import ROOT

# A room imports itself and the rooms before its own place; rooms of one place do not know each other.
ORDER = [
    {"utils"},
    {"models", "data"},
    {"evaluation", "plots"},
    {"training"},
    {"experiment"},
    {"tables", "main", "benchmarks"},
    {"tasks"},
]
PLACE = {room: place for place, rooms in enumerate(ORDER) for room in rooms}
TABLES = {"models.catalogue", "data.catalogue", "training.stages"}  # without TensorFlow
LIGHT = {"utils", "data", "experiment", "main", "tables", "tasks"}  # rooms whose modules start without TensorFlow
MODULES = sorted(path for room in PLACE for path in [*ROOT.glob(f"{room}.py"), *ROOT.glob(f"{room}/**/*.py")])


def room_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path):
    """The project's modules that a module imports, at its head or within a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.split(".")[0] in PLACE}


def at_head(path):
    """The modules that a module imports at its head, the project's or not."""
    nodes = ast.parse(path.read_text()).body
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module for node in nodes if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    room = room_of(path)
    for name in imported(path):
        other = name.split(".")[0]
        assert other == room or PLACE[other] < PLACE[room], f"{room} imports {name}"


def test_every_room_is_in_the_order():
    folders = {path.parent.name for path in ROOT.glob("*/*.py")} - {"tests"}
    assert folders | {path.stem for path in ROOT.glob("*.py")} == set(PLACE)
    assert {room_of(path) for path in MODULES} == set(PLACE)


def test_only_the_tables_of_the_rooms_with_tensorflow_are_imported_at_the_head_of_those_without():
    for path in MODULES:
        if room_of(path) in LIGHT:
            heavy = {name for name in at_head(path) if name.split(".")[0] in PLACE.keys() - LIGHT}
            assert heavy <= TABLES, path


@pytest.mark.parametrize("module", ["experiment.settings", "main", "tables", "tasks.task06", *sorted(TABLES)])
def test_importing_it_does_not_import_tensorflow(module):
    check = f"import sys, {module}; print(*({{'tensorflow', 'keras', 'matplotlib'}} & set(sys.modules)))"
    process = subprocess.run([sys.executable, "-c", check], cwd=ROOT, text=True, capture_output=True)
    assert process.returncode == 0 and process.stdout.strip() == "", process.stderr
