"""One page that tells a run, or compares several."""

from pathlib import Path

import tyro

from xmodel2.arguments import Flag
from xmodel2.errors import XmodelError


def report(
    paths: tyro.conf.Positional[tuple[Path, ...]],
    /,
    out: Path | None = None,
    watch: Flag = False,
    every: float = 5.0,
    markdown: Flag = False,
) -> None:
    """One self-contained HTML page of a run, or of several side by side: curves, mixtures, tables, figures, samples.

    It opens from the file system without a network, prints, and reads without scripts.

    Example: xmodel2 report runs/nano

    Example: xmodel2 report runs/a runs/b studies/search --out comparison.html

    Example: xmodel2 report --watch runs/nano

    Args:
        paths: run directories, and folders of `search`, `transfer`, `ratio`, `law` and `quantize`
        out: page to write (default: report.html in the first folder)
        watch: write it again whenever the run's files change, until the run ends or Ctrl-C; an open page follows
        every: seconds between looks at the files, with --watch
        markdown: its words and tables as Markdown instead, printed, or written to --out
    """
    if not paths:
        raise XmodelError("report: name at least one run directory")
    if not 0.2 <= every <= 3600:
        raise XmodelError(f"report: --every {every:g}: give seconds from 0.2 to 3600")
    if watch and markdown:
        raise XmodelError("report: --watch follows a page; give either it or --markdown")
    if out is not None and out.is_dir():
        raise XmodelError(f"{out}: is a folder; name the file, such as {out / 'report.html'}")
    from xmodel2.files import write_text_atomic
    from xmodel2.output import busy
    from xmodel2.release.reporting.build import build_report
    from xmodel2.release.reporting.markdown import report_markdown
    from xmodel2.release.reporting.watch import watch_report

    page = out or paths[0] / "report.html"
    if markdown:
        with busy("writing"):
            text = report_markdown(paths)
        if out is None:
            print(text, end="")
            return
        write_text_atomic(out, text)
    elif watch:
        print(f"{page}: open it in a browser; it follows until the run ends, or Ctrl-C", flush=True)
        watch_report(paths, page, every)
    else:
        with busy("writing"):
            build_report(paths, page)
    print(page)
