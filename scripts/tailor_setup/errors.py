class SetupError(Exception):
    """One clear sentence for the user: what failed, and what to do."""
