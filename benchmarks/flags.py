"""What the benchmarks' command lines have in common."""

import argparse


def at_least(minimum, kind=int):
    """The type of a flag of argparse's: a number from `minimum` on."""

    def number(text):
        if not minimum <= (value := kind(text)) < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not allowed; at least {minimum}")
        return value

    number.__name__ = kind.__name__  # in argparse's own words
    return number
