"""Errors that the user can mend."""

import sys


class UsageError(Exception):
    """Something the user can mend: shown as one line on stderr, with exit code 2."""


def left_out(name, error):
    """Says on stderr that one of several runs is left out, and why."""
    print(f"{name} is left out: {error}", file=sys.stderr)
