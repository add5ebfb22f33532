"""Commands on a trained model: export it, talk to it, report on it."""

from pathlib import Path
from typing import Literal

import tyro

from xmodel2.arguments import Flag
from xmodel2.errors import XmodelError
from xmodel2.output import busy


def export(
    checkpoint: tyro.conf.Positional[Path],
    /,
    *,
    out: Path,
    to: Literal["hf"] = "hf",
    overwrite: Flag = False,
) -> None:
    """Write a directory that `transformers` loads natively, and prove that it repeats our logits.

    Example: xmodel2 export runs/nano --to hf --out nano-hf

    Args:
        checkpoint: run directory or checkpoint
        out: directory to write
        to: format; hf is a native GraniteForCausalLM
        overwrite: replace the directory if it exists
    """
    from xmodel2.release.export import export_checkpoint

    with busy("exporting"):
        report = export_checkpoint(checkpoint, out, overwrite)
    print(f"{out}: largest logit difference {report['max_abs_difference']:.2e} against transformers")


def chat(
    model: tyro.conf.Positional[Path], /, temperature: float = 0.0, max_new_tokens: int = 128, seed: int = 0
) -> None:
    """Talk to a trained model in the terminal; an empty line or Ctrl-D ends.

    Example: xmodel2 chat runs/nano

    Args:
        model: run directory or checkpoint
        temperature: 0 is greedy
        max_new_tokens: longest answer, in tokens
        seed: of the sampling
    """
    from xmodel2.release.chat import chat as run

    run(model, temperature, max_new_tokens, seed)


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
