"""The one training loop: schedule, steps, checkpoints, log."""
