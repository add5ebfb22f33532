"""What a user's mistake raises, what SIGTERM does, and the nearest valid name for a misspelt one."""

from collections.abc import Iterable
from difflib import get_close_matches


class XmodelError(Exception):
    """A mistake in what the user gave: the message names the file or field and what to do."""


class BusyError(XmodelError):
    """Another process works in a folder."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a command as Ctrl-C does, also one in which Ctrl-C only stops an answer."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest allowed name, or an empty string.

    >>> nearest("hiden_size", ["hidden_size", "vocab_size"])
    " Did you mean 'hidden_size'?"
    """
    found = get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f" Did you mean '{found[0]}'?" if found else ""
