"""Write a trained model in fewer bits, and measure what that costs and gives."""

from pathlib import Path

import tyro

from xmodel2.arguments import Flag
from xmodel2.output import print_json, print_wide, progress_bars


def quantize(
    model: tyro.conf.Positional[Path],
    /,
    types: str = "int8,int4,gguf-q8_0,gguf-q4_0",
    out: Path | None = None,
    group_size: int = 32,
    data: str = "",
    text: Path | None = None,
    limit_tokens: int | None = None,
    rounds: int = 5,
    overwrite: Flag = False,
    json: Flag = False,
) -> None:
    """Write a model in int8, int4 and GGUF types, with size, memory, speed and held-out perplexity of each; resumable.

    Example: xmodel2 quantize runs/nano --types int8,int4,gguf-q8_0,gguf-q4_0

    A model directory: xmodel2 quantize nano-hf --types int8 --out nano-int8 --data data/nano

    Args:
        model: run, checkpoint, or directory that `xmodel2 export --to hf` wrote
        types: comma-separated from int8, int4 (torchao), gguf-q8_0, gguf-q5_1, gguf-q4_0 and the other GGUF types
        out: folder to write or go on with (default: RUN/quantized)
        group_size: weights that share a scale in int4: 32, 64 or 128
        data: prepared shards whose held-out documents perplexity is of (default: the run's own)
        text: a file of held-out text instead, its paragraphs as documents
        limit_tokens: held-out tokens to measure at most (default: all)
        rounds: times that speed is measured; 0 leaves it out
        overwrite: make and measure everything again
        json: print everything measured as one JSON object
    """
    from xmodel2.errors import XmodelError
    from xmodel2.release.quantising.documents import documents_of
    from xmodel2.release.quantising.kinds import parse_kinds
    from xmodel2.release.quantising.quantise import quantise
    from xmodel2.release.quantising.table import caption, terminal_columns
    from xmodel2.release.trained import open_trained

    kinds = parse_kinds(types)
    for option, value in (("limit-tokens", limit_tokens), ("rounds", rounds + 1)):
        if value is not None and value < 1:
            raise XmodelError(f"--{option}: must not be below {0 if option == 'rounds' else 1}")
    trained = open_trained(model)
    if out is None and trained.run is None:
        raise XmodelError(f"{model}: is no run, so give --out, the folder to write")
    folder = out or Path(trained.run or ".") / "quantized"
    documents = documents_of(trained, data, text, limit_tokens)
    with progress_bars() as progress:
        show = progress or (lambda step, done, of: None)
        record = quantise(
            trained, kinds, folder, documents, group_size=group_size, rounds=rounds, overwrite=overwrite, show=show
        )
    if json:
        print_json(record)
        return
    from rich.console import Console
    from rich.table import Table

    columns = {head: cells for head, cells in terminal_columns(record).items() if any(cells)}
    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    print_wide(table)
    Console().print(caption(record), markup=False, highlight=False)
    print(f"{folder / 'quantize.md'}: more columns, and perplexity by source")
