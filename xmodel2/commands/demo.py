"""The command that goes the whole road."""

from pathlib import Path

from xmodel2.arguments import Flag


def demo(out: Path = Path("demo"), overwrite: Flag = False, resume: Flag = False) -> None:
    """The whole road at pico scale on text that this machine already has: minutes on two cores, ends with a report.

    Example: xmodel2 demo --out demo

    Args:
        out: where everything goes
        overwrite: replace an earlier demo in that folder
        resume: go on with a demo in that folder that was stopped
    """
    from xmodel2.demo import run_demo

    run_demo(out, overwrite, resume)
