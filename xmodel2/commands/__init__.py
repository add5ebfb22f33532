"""The commands: one file a room, each command one function whose docstring is its help.

Heavy imports happen inside a command, so that --help is quick.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from xmodel2.errors import XmodelError

INTERRUPTED = 130
"""Exit code of a command that was stopped by a signal, everything saved: what comes after it in a script must not run."""


@contextmanager
def importing_harness(command: str) -> Iterator[None]:
    """Imports within that need the evaluation harness raise `XmodelError` if it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise XmodelError(f"{command} needs the evaluation harness ({error}): pip install 'xmodel2[eval]'") from None
