"""The commands: one file a room, each command one function whose docstring is its help.

Heavy imports happen inside a command, so that --help is quick.
"""

INTERRUPTED = 130
"""Exit code of a command that was stopped by a signal, everything saved: what comes after it in a script must not run."""
