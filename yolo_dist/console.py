"""What the person who watches reads."""

import sys


def say(text: str) -> None:
    """One line to the person who watches, from whatever process."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
