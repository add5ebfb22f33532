"""Write a trained model in the formats that other programs load."""

from pathlib import Path
from typing import Literal

import tyro

from xmodel2.arguments import Flag
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
