class UsageError(Exception):
    """Something the user can mend: shown as one line on stderr, with exit code 2."""
