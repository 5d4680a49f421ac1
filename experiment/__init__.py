"""Configuration, presets, the command line, a run's folder, and a session: what main.py and every task share."""

from experiment.program import command_line, survey
from experiment.trained import load_run

__all__ = ["command_line", "load_run", "survey"]
