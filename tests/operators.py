"""Faults that a mutation tool finds: operators, numbers, conditions changed by cosmic-ray, at places drawn by lot."""

import ast
import difflib
import itertools
import random

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.provider import OperatorProvider

from tests.planted_runs import Fault

# Of cosmic-ray's replacements those that leave a program running: `a << b` for `a / b` says nothing about a test.
OPERATORS = (
    "ReplaceBinaryOperator_Add_Sub", "ReplaceBinaryOperator_Sub_Add", "ReplaceBinaryOperator_Mul_Div",
    "ReplaceBinaryOperator_Div_Mul", "ReplaceBinaryOperator_FloorDiv_Mul", "ReplaceBinaryOperator_Mod_FloorDiv",
    "ReplaceComparisonOperator_Eq_NotEq", "ReplaceComparisonOperator_NotEq_Eq", "ReplaceComparisonOperator_Lt_LtE",
    "ReplaceComparisonOperator_LtE_Lt", "ReplaceComparisonOperator_Gt_GtE", "ReplaceComparisonOperator_GtE_Gt",
    "ReplaceComparisonOperator_Lt_Gt", "ReplaceComparisonOperator_Gt_Lt", "ReplaceUnaryOperator_Delete_USub",
    "ReplaceUnaryOperator_Delete_Not", "AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr",
    "ReplaceOrWithAnd", "ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ExceptionReplacer", "NumberReplacer",
    "RemoveDecorator", "ZeroIterationForLoop",
)  # fmt: skip

# The files that compute a number, a picture or what is saved, and the tests that must notice, the quickest first.
GUARDS = {
    "models/objectives.py": ("objectives", "gradients", "estimators"),
    "models/estimators.py": ("estimators",),
    "models/gradients.py": ("gradients", "objectives", "estimators"),
    "models/interface.py": ("objectives", "gradients"),
    "models/blocks.py": ("models",),
    "models/fused.py": ("models",),
    "models/iwae.py": ("models", "objectives", "evaluation", "posteriors"),
    "models/random.py": ("random", "models"),
    "training/steps.py": ("steps", "training"),
    "training/loop.py": ("looking", "checkpoints", "training", "going_on", "command_line"),
    "training/checkpoints.py": ("checkpoints", "training", "damage", "full_disk"),
    "training/log.py": ("checkpoints", "training", "damage", "full_disk"),
    "training/schedule.py": ("steps", "training"),
    "training/soap.py": ("soap",),
    "training/images.py": ("own_data", "steps"),
    "training/gradients.py": ("task_numbers",),
    "evaluation/likelihood.py": ("evaluation", "monte_carlo", "replicas"),
    "evaluation/monte_carlo.py": ("monte_carlo",),
    "evaluation/posteriors.py": ("posteriors", "evaluation"),
    "evaluation/active_units.py": ("posteriors", "evaluation"),
    "evaluation/ais.py": ("ais",),
    "data/__init__.py": ("data", "session", "own_data"),
    "data/arrays.py": ("own_data_refused", "own_files", "own_pictures", "own_data", "data", "sets"),
    "data/binarized_mnist.py": ("sets",),
    "data/caltech101_silhouettes.py": ("sets",),
    "data/omniglot.py": ("sets",),
    "data/idx.py": ("data", "sets"),
    "data/own.py": ("own_data_refused", "own_files", "own_pictures", "own_data", "sets"),
    "data/own_arrays.py": ("own_data_refused", "own_files", "own_data", "sets"),
    "data/pictures.py": ("own_data_refused", "own_files", "own_pictures", "own_data", "sets"),
    "data/published.py": ("data", "sets"),
    "data/mnist_sources.py": ("data",),
    "experiment/cells.py": ("tables", "commands", "session"),
    "experiment/run_folder.py": (
        "flags",
        "flags_refused",
        "session",
        "damage",
        "full_disk",
        "going_on",
        "command_line",
    ),
    "experiment/opening.py": ("session", "going_on", "command_line", "tasks"),
    "experiment/session.py": ("session", "plots", "trained", "command_line"),
    "experiment/trained.py": ("trained",),
    "utils.py": ("utils", "damage", "full_disk", "tables", "command_line"),
}


def places(file, text):
    """Every (operator, occurrence) of OPERATORS in the text of a file."""
    provider, tree = OperatorProvider(), get_ast(text)
    for name in OPERATORS:
        operator = provider[name]()
        found = itertools.chain.from_iterable(operator.mutation_positions(node) for node in ast_nodes(tree))
        yield from ((file, name, occurrence) for occurrence, _ in enumerate(found))


def mutated(text, name, occurrence):
    """The text with one change; None where cosmic-ray cannot write one that parses."""
    try:
        new = mutate_code(text, OperatorProvider()[name](), occurrence)
        ast.parse(new)
    except (AttributeError, SyntaxError):  # ExceptionReplacer on `except (a.b, c)`; AddNot on `while a := b`
        return None
    return new


def drawn_faults(root, n, seed=0):
    """n faults among all places of the files in GUARDS: each place has a lot of its own, and the n smallest are drawn.

    So a change of one file leaves what is drawn in the others as it was, but for the last few.
    """
    texts = {file: (root / file).read_text() for file in GUARDS}
    everywhere = [place for file, text in texts.items() for place in places(file, text)]
    lots = sorted(everywhere, key=lambda place: random.Random(f"{seed} {place}").random())
    made = ((place, new) for place in lots if (new := mutated(texts[place[0]], *place[1:])))
    for (file, name, _), new in sorted(itertools.islice(made, n)):
        old = texts[file]
        changed = [line for line in difflib.ndiff(old.splitlines(), new.splitlines()) if line[:2] in ("- ", "+ ")]
        said = " → ".join(f"`{line[2:].strip()}`" for line in changed).replace("|", "\\|")
        yield Fault(f"{name}: {said}", file, old, new, GUARDS[file])
