"""The command that repeats the report from end to end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from xmodel2.arguments import Flag


def reproduce(
    *,
    scale: str,
    data: Path,
    out: Path,
    eval_data: Path | None = None,
    workers: int = 1,
    only: str = "",
    redo: str = "",
    renormalise: Flag = False,
    plan: Flag = False,
    ignore_disk: Flag = False,
    accept_code: Flag = False,
    json: Flag = False,
) -> None:
    """Repeat the report at a scale you can afford: every claim measured, from the tokenizer to the ledger; resumable.

    Example: xmodel2 reproduce --scale pico --data corpus --out reproduction --workers 2

    What it will do and take: xmodel2 reproduce --scale nano --data corpus --out reproduction --plan

    The same command goes on where it was stopped or killed; what is done and rests on nothing that changed is not done again.

    Args:
        scale: pico (two CPU cores, hours), nano (a laptop's night, or a GPU's minutes), tiny (a GPU's day), small (days)
        data: folder that holds a folder for each source: NAME/*.jsonl.zst, and NAME/*-heldout.* for what is held out
        out: folder of everything; ledger.md, report.html and results/ are to be read
        eval_data: folder of benchmark files, as `xmodel2 eval fetch` makes it; without it, no benchmarks
        workers: stages done at once, which share this machine's threads; what measures time runs alone
        only: comma-separated stages to do, instead of all that are not done
        redo: comma-separated stages to do again, removing what they made, or changed: all that rest on something that changed
        renormalise: share the part of sources that are missing out among those that are there
        plan: say what each stage will do and take, and do nothing
        ignore_disk: begin although the disk has too little room
        accept_code: go on with searches that other code began, if you know that losses stay the same
        json: print the plan, or the ledger, as JSON
    """
    from xmodel2.errors import XmodelError
    from xmodel2.files import alone_in
    from xmodel2.output import print_json
    from xmodel2.reproduction.corpus import open_corpus
    from xmodel2.reproduction.cost import check_disk
    from xmodel2.reproduction.folder import check_out, note_out
    from xmodel2.reproduction.ledger import HEAD, write_ledger
    from xmodel2.reproduction.road import Road
    from xmodel2.reproduction.run import Reproduction
    from xmodel2.reproduction.scales import scale_of

    if workers < 1:
        raise XmodelError(f"--workers {workers}: must be at least 1")
    chosen = scale_of(scale)
    road = Road(chosen, open_corpus(data, renormalise), out, eval_data)
    _ = road.tasks  # no benchmarks in --eval-data is said before anything is done
    check_out(road)
    console = Console(stderr=True, highlight=False)
    again, wanted = ([name for name in text.split(",") if name] for text in (redo, only))
    if plan:
        _show_plan(road, json)
        return
    with console.status("") as status, alone_in(out):

        def say(text: str) -> None:
            console.print(text, markup=False, soft_wrap=True)

        def show(lines: list[str]) -> None:
            status.update(escape("\n".join(lines)))

        whole = Reproduction(road, workers, again, wanted, say, show, accept_code=accept_code)
        if not ignore_disk:
            check_disk(road, wanted)
        note_out(road)
        try:
            whole.run()
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt):
                named = [name for name in again if name != "changed"]
                instead = f", with --redo changed in place of --redo {','.join(named)}" if named else ""
                say(f"stopped; the same command goes on{instead}")
            _try_ledger(road, say)
            raise
        rows = write_ledger(road)
    if json:
        print_json([dict(zip(HEAD, row, strict=True)) for row in rows])
    elif rows:
        _show_ledger(rows, out)


def _try_ledger(road: Any, say: Callable[[str], None]) -> None:
    """Write the ledger of what is done; what prevents it is said, and does not hide why the stages ended."""
    from xmodel2.reproduction.ledger import write_ledger

    try:
        write_ledger(road)
    except Exception as error:
        say(f"ledger: not written as a whole ({error}); the same command writes it again")


def _show_plan(road: Any, json: bool) -> None:
    import torch

    from xmodel2.output import print_json, print_wide
    from xmodel2.recipe import ModelSettings
    from xmodel2.reproduction.cost import disk_bytes
    from xmodel2.reproduction.ledger import plan_rows
    from xmodel2.reproduction.run import Reproduction
    from xmodel2.train.device import pick_device, pick_precision
    from xmodel2.train.devices import CPU_MFU, cpu_mfu

    device = pick_device("auto")
    model = ModelSettings(hidden_size=256, intermediate_size=640, num_attention_heads=4, num_key_value_heads=1)
    _, rate = pick_precision("auto", device, 2048, model)
    if device.type == "cpu":  # the share of it that plan_rows counts on was found in fp32
        rate *= cpu_mfu(rate, pick_precision("fp32", device, 2048, model)[1]) / CPU_MFU
    whole = Reproduction(road)
    states = {stage.name: whole.state(stage)[0] for stage in road.stages}
    rows = plan_rows(road, states, rate)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    if json:
        print_json({"scale": road.scale.name, "device": where, "bytes": disk_bytes(road.scale), "stages": rows})
        return
    table = Table("stage", "state", "runs", "tokens", "time", "what it does", box=None)
    for row in rows:
        tokens, time = (f"{row['tokens'] / 1e6:,.1f}M", _time(row["seconds"])) if row["runs"] else ("", "")
        table.add_row(row["stage"], row["state"], str(row["runs"] or ""), tokens, time, row["purpose"])
    print_wide(table)
    total = sum(row["seconds"] for row in rows if row["state"] != "done")
    print(f"left to do: about {_time(total)} on {where}; {disk_bytes(road.scale) / 1e9:.1f} GB of disk in all")


def _show_ledger(rows: list[list[str]], out: Path) -> None:
    from xmodel2.output import print_wide

    table = Table("claim", "verdict", "measured", box=None)
    for claim, verdict, measured, *_ in rows:
        table.add_row(claim, verdict, measured)
    print_wide(table)
    print(f"{out / 'ledger.md'}, {out / 'report.html'}")


def _time(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
