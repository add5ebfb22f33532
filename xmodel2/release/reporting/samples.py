"""What a run wrote while it learned: each prompt of its recipe, continued at some of the measurements on the way."""

from collections.abc import Sequence
from html import escape
from typing import Any

from xmodel2.page import printable
from xmodel2.release.reporting.faults import note
from xmodel2.release.reporting.recorded import Recorded
from xmodel2.release.reporting.section import Section

MOST_SHOWN = 8
"""Measurements a prompt, the first and the last among them."""


def samples_section(recorded: Recorded) -> Section | None:
    """Return the samples of a run, None if it took none (`evaluation.prompts` in its recipe)."""
    taken = recorded.lines("samples")
    lines = [line for line in taken if line.get("samples")]
    failed = [line for line in taken if "error" in line]
    remark = note(f"step {failed[-1]['step']:,}: none were taken: {failed[-1]['error']}") if failed else ""
    if not lines:
        return Section("samples", "Samples over training", remark) if remark else None
    prompts = dict.fromkeys(str(sample["prompt"]) for line in lines for sample in line["samples"])
    body = "<p>Greedy continuations of the same beginnings as training went on.</p>"
    return Section(
        "samples", "Samples over training", remark + body + "\n".join(_prompt(prompt, lines) for prompt in prompts)
    )


def _prompt(prompt: str, lines: Sequence[dict[str, Any]]) -> str:
    rows = [
        (line, str(sample["continuation"]))
        for line in evenly(lines)
        for sample in line["samples"]
        if sample["prompt"] == prompt
    ]
    shown = "".join(
        f"<li><h4>step {line['step']:,}, {line['tokens']:,} tokens, {text_of(str(line['stage']))}</h4>"
        f"<pre><b>{text_of(prompt)}</b>{text_of(text)}</pre></li>"
        for line, text in rows
    )
    return (
        f'<details class="sample" open><summary>{text_of(prompt)}</summary><ol class="samples">{shown}</ol></details>'
    )


def evenly(lines: Sequence[dict[str, Any]], most: int = MOST_SHOWN) -> list[dict[str, Any]]:
    """Return at most ``most`` of the lines, evenly apart, the first and the last among them.

    >>> [line["step"] for line in evenly([{"step": step} for step in range(10)], 4)]
    [0, 3, 6, 9]
    """
    if len(lines) <= most:
        return list(lines)
    return [lines[round(place * (len(lines) - 1) / (most - 1))] for place in range(most)]


def text_of(text: str) -> str:
    """Return a model's text for a page: escaped, its lines kept, what moves a cursor or turns text around written out."""
    return "\n".join(escape(printable(line.replace("\t", "    "))) for line in text.split("\n"))
