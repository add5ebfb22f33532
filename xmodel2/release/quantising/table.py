"""The table of a model's types: for a terminal, as Markdown, and as a part of the report."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from xmodel2.files import read_json
from xmodel2.page import table
from xmodel2.release.quantising.kinds import GGUF, TORCHAO
from xmodel2.release.quantising.losses import ALL
from xmodel2.release.reporting.section import Section

FILE = "quantize.json"
Rows = list[list[str]]
CHANGE = "change of loss, nats (95%)"
HEAD = (
    "type",
    "run by",
    "file, MB",
    "bits a weight",
    "weights in memory, MB",
    "peak of the process, MB",
    "prompt, tokens/s",
    "generation, tokens/s",
    "perplexity",
    CHANGE,
)
_TERMINAL = {
    "type": "type",
    "file, MB": "file\nMB",
    "bits a weight": "bits a\nweight",
    "peak of the process, MB": "peak\nMB",
    "prompt, tokens/s": "prompt\ntokens/s",
    "generation, tokens/s": "new\ntokens/s",
    "perplexity": "perplexity",
}


def rows(record: dict[str, Any]) -> Rows:
    """Return the cells under `HEAD`, a row a type; empty where nothing was measured."""
    found = []
    for name, row in record["types"].items():
        losses = row.get("losses", {}).get(ALL, {})
        found.append(
            [
                name,
                "llama.cpp"
                if name.startswith(GGUF)
                else "transformers, torchao"
                if name in TORCHAO
                else "transformers",
                _megabytes(row.get("bytes")),
                f"{row['bits_a_weight']:.2f}" if "bits_a_weight" in row else "",
                _megabytes(row.get("weights_bytes")),
                _megabytes(row.get("peak_bytes")),
                _speed(row.get("prompt_tokens_s")),
                _speed(row.get("generate_tokens_s")),
                f"{losses['perplexity']:.4g}" if losses else "",
                _change(losses),
            ]
        )
    return found


def terminal_columns(record: dict[str, Any]) -> dict[str, list[str]]:
    """Return {head: cells} of the columns that 80 letters have room for."""
    columns = dict(zip(HEAD, zip(*rows(record), strict=True), strict=True))
    short = {head: list(columns[name]) for name, head in _TERMINAL.items()}
    return short | {CHANGE.replace(", ", ",\n"): [cell.replace(" (", "\n").rstrip(")") for cell in columns[CHANGE]]}


def source_rows(record: dict[str, Any]) -> tuple[list[str], Rows]:
    """Return head and cells of perplexity by source, with the change of loss; nothing if no losses were measured."""
    measured = {name: row["losses"] for name, row in record["types"].items() if "losses" in row}
    sources = list(next(iter(measured.values()), {}))
    cells = [
        [name, *(f"{losses[s]['perplexity']:.4g} {_change(losses[s])}".strip() for s in sources)]
        for name, losses in measured.items()
    ]
    return ["type", *sources], cells


def caption(record: dict[str, Any]) -> str:
    """Return how the figures were made, in plain sentences."""
    speed, heldout = record["speed"], record["heldout"]
    model = record["model"]
    tables = (
        f"the embedding, which is the head as well, makes up {model['embedding_share']:.1%}: it is"
        if model.get("tied", True)
        else f"embedding and head make up {model['embedding_share']:.1%} each: they are"
    )
    text = [
        f"{model['name']}, {model['parameters']:,} parameters, of which {tables} bf16 in int8 and int4, and q8_0 in GGUF types"
        " of fewer bits."
    ]
    if heldout:
        text.append(
            f"Perplexity of the numbers in each file, calculated in fp32 on {heldout['tokens']:,} held-out tokens of"
            f" {heldout['documents']:,} documents; changes are to fp32, document by document, with a bootstrap's interval."
        )
        checked = [row["llama_difference"] for row in record["types"].values() if "llama_difference" in row]
        if checked:
            text.append(
                "llama.cpp, which also rounds what comes into a matrix, gives a token a log-probability that differs by"
                f" {max(checked):.2g} nats in the mean at most."
            )
    else:
        text.append("Perplexity needs held-out text: give --data DIR of prepared shards, or --text FILE.")
    if speed:
        turns = (
            " in turns" if all(row.get("in_turns", True) for row in record["types"].values()) else ", type after type,"
        )
        text.append(
            f"One stream, a prompt of {speed['prompt_tokens']} tokens and {speed['new_tokens']} new ones, medians of"
            f" {_several(speed['rounds'], 'round')}{turns} on {_several(speed['threads'], 'thread')} of {speed['device']};"
            " transformers uncompiled."
        )
    return " ".join(text)


def markdown(record: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    head, by_source = source_rows(record)
    parts = [f"# {record['model']['name']}, quantised", "", caption(record), "", *_markdown(HEAD, rows(record))]
    if by_source:
        parts += ["", "Perplexity by source, and the change of loss:", "", *_markdown(head, by_source)]
    return "\n".join(parts) + "\n"


def quantising_section(folder: Path) -> Section | None:
    """Return the part of the report that shows a folder of `xmodel2 quantize`, None if there is none."""
    record = read_json(folder / FILE)
    if record is None:
        return None
    body = table(HEAD, rows(record), caption(record))
    head, by_source = source_rows(record)
    if by_source:
        body += table(head, by_source, "Perplexity by source, and the change of loss in nats a token")
    command = f"xmodel2 quantize {record['model']['path']} --types {','.join(_kept(record))}"
    return Section("quantised", "Quantised", f"{body}<p><code>{escape(command)}</code></p>")


def _kept(record: dict[str, Any]) -> list[str]:
    return [name for name, row in record["types"].items() if not row.get("path", ".").startswith(".")]


def _markdown(head: Sequence[str], cells: Rows) -> list[str]:
    lines = [head, ["---"] * len(head), *cells]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _several(count: int, word: str) -> str:
    return f"{count} {word}{'s' if count > 1 else ''}"


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:,.2f}" if size < 1e8 else f"{size / 1e6:,.0f}"


def _speed(figures: dict[str, float] | None) -> str:
    return (
        ""
        if figures is None
        else f"{figures['median']:,.0f}"
        if figures["median"] >= 10
        else f"{figures['median']:.2f}"
    )


def _change(losses: dict[str, Any]) -> str:
    if "difference" not in losses:
        return ""
    interval = losses["interval"]
    return f"{losses['difference']:+.4f}" + (f" ({interval[0]:+.4f}..{interval[1]:+.4f})" if interval else "")
