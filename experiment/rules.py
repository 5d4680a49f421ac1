"""How a setting is declared, and how its value is judged. Without TensorFlow."""

import argparse
import dataclasses

from utils import UsageError

GROUPS = {  # of flags, in the order in which --help shows them
    "run": "the run",
    "model": "the model",
    "objective": "the objective",
    "data": "the data",
    "optimisation": "the optimisation",
    "evaluation": "the evaluation",
    "call": "this call of the program",
}
TYPES = {int: "a whole number", float: "a number", str: "a text"}
MOST = 10**9  # of whole numbers that have no maximum of their own: TensorFlow's sizes end at twice that


def setting(default, type, help, group, **rules):
    """A setting of Config, and with it a flag.

    group: of GROUPS. Settings of "run", "evaluation" and "call" may change from call to call; all others make the
    trained model what it is, and are fixed once a run has begun. Those of "evaluation" are saved as the defaults of
    later calls.
    rules: choices (a tuple, or a function that returns one), minimum, maximum, above, below, nargs; or_path: a text
    that is none of the choices is a path; divides: it must divide the number of samples, which Config checks.
    """
    return dataclasses.field(default=default, metadata={"type": type, "help": help, "group": group, **rules})


def gpus(text):
    """Numbers of GPUs: "0,1" -> (0, 1)."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; a GPU's number, several such as 0,1, or -1") from None


def _is_a(value, kind):
    return isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)


def choices_of(rules):
    """The values that a setting is chosen from, or None."""
    choices = rules.get("choices")
    return choices() if callable(choices) else choices


def check_value(name, rules, value, optional=True):
    """Raises UsageError where a value lies outside what its flag allows. optional: None is allowed."""
    if value is None:
        if optional:
            return
        raise UsageError(f"--{name}: null is not allowed; {TYPES[rules['type']]}")
    several = "nargs" in rules or rules["type"] not in TYPES  # as the numbers of GPUs
    kind = rules["type"] if rules["type"] in TYPES else int
    for one in value if several and isinstance(value, tuple) else (value,):
        if not _is_a(one, kind) or several != isinstance(value, tuple):
            allowed = TYPES[kind]
        elif (choices := choices_of(rules)) and one not in choices and not rules.get("or_path"):
            allowed = "one of " + ", ".join(map(str, choices))
        elif "minimum" in rules and not rules["minimum"] <= one < float("inf"):
            allowed = f"at least {rules['minimum']}"
        elif "above" in rules and not rules["above"] < one < float("inf"):
            allowed = f"more than {rules['above']}, and finite"
        elif ("maximum" in rules or kind is int) and one > rules.get("maximum", MOST):
            allowed = f"at most {rules.get('maximum', MOST)}"
        elif "below" in rules and not one < rules["below"]:
            allowed = f"less than {rules['below']}"
        elif one == "":  # as an unset variable of the shell is
            allowed = "a text that is not empty"
        elif kind is str and any("\ud800" <= letter <= "\udfff" for letter in one):  # bytes that are no UTF-8
            allowed = "a text in UTF-8"  # config.json and TensorFlow's paths are no other
        elif one != one:  # NaN
            allowed = TYPES[kind]
        else:
            continue
        raise UsageError(f"--{name}: {one} is not allowed; {allowed}")
