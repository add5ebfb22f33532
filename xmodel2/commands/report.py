"""One page that tells a run."""

from pathlib import Path

import tyro

from xmodel2.errors import XmodelError


def report(runs: tyro.conf.Positional[tuple[Path, ...]], /, out: Path | None = None) -> None:
    """One self-contained HTML page of a run: curves, mixtures, tables, samples.

    Example: xmodel2 report runs/nano

    Args:
        runs: run directories
        out: page to write (default: report.html in the first run)
    """
    from xmodel2.release.report import build_report

    if not runs:
        raise XmodelError("report: name at least one run directory")
    print(build_report(list(runs), out or runs[0] / "report.html"))
