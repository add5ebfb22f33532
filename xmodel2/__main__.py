"""`xmodel2` and `python -m xmodel2`: the command line, which takes a moment to import; Ctrl-C in it is no fault either."""

import sys

from xmodel2.commands import INTERRUPTED


def main() -> None:
    """Run one command."""
    try:
        from xmodel2.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
