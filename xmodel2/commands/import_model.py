"""Take a model of the formats that others write."""

from pathlib import Path

import tyro

from xmodel2.arguments import Flag
from xmodel2.output import busy, print_json


def import_model(
    directory: tyro.conf.Positional[Path],
    /,
    *,
    out: Path,
    name: str | None = None,
    tokenizer: Path | None = None,
    recipe: Path | None = None,
    overwrite: Flag = False,
    json: Flag = False,
) -> None:
    """Make a run of a Hugging Face directory: Granite, the authors' layout, MiniCPM or Llama, tied or not.

    Example: xmodel2 import nano-hf --out runs/imported && xmodel2 chat runs/imported

    To train on: xmodel2 import nano-hf --out runs/imported --recipe decay.toml, then
    xmodel2 train runs/imported/recipe.toml --branch-from runs/imported@stable --out runs/decayed

    Args:
        directory: folder with config.json, *.safetensors and a tokenizer; none of its code is run
        out: run directory to write
        name: name of the run (default: the recipe's, or the folder's)
        tokenizer: folder to take the tokenizer from, if not the directory
        recipe: recipe of a decay that is to go on from this model; its data must be prepared with this tokenizer
        overwrite: replace an earlier import in that directory, with all that was added to it since
        json: print what was found as one JSON object
    """
    from xmodel2.release.importing.model import import_model as run

    with busy("importing"):
        report = run(directory, out, name=name, tokenizer=tokenizer, recipe=recipe, overwrite=overwrite)
    if json:
        return print_json(report)
    print(f"{out}: {report['name']}, {report['parameters']:,} parameters, from the {report['layout']} layout")
    difference = report["max_abs_difference"]
    if difference is None:
        print("not compared: transformers reads this layout only with code of others; every name and shape was checked")
    else:
        print(f"largest logit difference {difference:.2e} against transformers")
    for part, factor in report["folded"].items():
        print(f"{part}: weights multiplied by {factor:.6g}, since the scale there is not that of these settings")
    for note in report["notes"]:
        print(note)
