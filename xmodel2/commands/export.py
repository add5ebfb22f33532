"""Write a trained model in the formats that other programs load."""

from pathlib import Path
from typing import Literal

import tyro

from xmodel2.arguments import Flag
from xmodel2.output import busy, print_json


def export(
    model: tyro.conf.Positional[Path],
    /,
    *,
    out: Path,
    to: str = "hf",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    max_shard_size: str = "5GB",
    overwrite: Flag = False,
    json: Flag = False,
) -> None:
    """Write a model for transformers, vLLM, llama.cpp and others, and prove that it repeats our logits.

    One kind of format is written to --out itself; several kinds have a folder each in it: hf, llama, gguf. Each is loaded
    by the engine it is for and held against our own logits on real prompts: above rounding (1e-4, or what a GGUF type
    loses) nothing is published.

    Example: xmodel2 export runs/nano --to hf --out nano-hf

    Example: xmodel2 export runs/nano --to hf,llama,gguf,gguf-q8_0 --out nano-release

    Args:
        model: run directory, checkpoint, or native directory
        out: directory to write
        to: formats with commas between: hf (native GraniteForCausalLM), llama (LlamaForCausalLM with the scales folded into
            its weights), gguf-TYPE (a file for llama.cpp; TYPE f32, f16, bf16, q8_0 ...; gguf alone is gguf-f16)
        dtype: type of the weights of hf and llama
        max_shard_size: largest file of weights of hf and llama, such as 5GB or 500MB
        overwrite: replace the directory if an earlier export wrote it
        json: print one JSON object instead of lines
    """
    from xmodel2.release.exporting.formats import export_model

    with busy("exporting") as status:
        reports = export_model(
            model,
            to.split(","),
            out,
            dtype=dtype,
            max_shard_size=max_shard_size,
            overwrite=overwrite,
            show=lambda step: status.update(f"{step} ..."),
        )
    if json:
        return print_json({"model": str(model), "out": str(out), "formats": reports})
    for report in reports:
        difference, by = report["max_abs_difference"], report.get("checked_by", "transformers")
        of = "difference of log-probabilities" if report["format"].startswith("gguf") else "logit difference"
        proof = f"proved by {by}" if difference is None else f"largest {of} {difference:.2e} against {by}"
        print(f"{report['path']}: {report['bytes'] / 1e6:,.1f} MB, {proof}")
