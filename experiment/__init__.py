"""Configuration, presets, the command line, a run's folder, and a session: what main.py and every task share."""

from experiment.program import command_line, survey

__all__ = ["command_line", "survey"]
