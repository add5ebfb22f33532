"""What `search`, `transfer`, `ratio` and `law` found, as parts of the report: their tables, and the figures that they drew.

A folder is known by the file of its results. Figures come in as pictures, not as markup: nothing in them can run.
"""

import base64
import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from xmodel2.files import read_json
from xmodel2.page import table, tiles
from xmodel2.release.reporting.faults import told_sections
from xmodel2.release.reporting.section import Section
from xmodel2.search.coordinate_run import SUMMARY_FILE as COORDINATE_FILE
from xmodel2.search.study_report import STUDY_FILE
from xmodel2.search.transfer import RESULT_FILE as TRANSFER_FILE

RATIO_FILE, LAW_FILE = "ratio.json", "law.json"
_MOST_BYTES = 400_000
"""Of one figure: the page is to stay light."""


def wind_tunnel_sections(folder: Path) -> list[Section]:
    """Return what a folder of a search, transfer, ratio or law holds, none for another folder; a damaged file tells of itself."""
    found = []
    for name, build in _BUILDERS.items():

        def read(path: Path = folder / name, build: Callable[[Any, Path], Section] = build) -> list[Section]:
            return [] if (result := read_json(path)) is None else [build(result, folder)]

        found += told_sections(read, folder / name, Path(name).stem, name)
    return found


def _search(study: dict[str, Any], folder: Path) -> Section:
    totals, finalists = study["totals"], study["finalists"]
    cells = [(name, f"{totals[name]:,}") for name in ("complete", "pruned", "diverged", "repeats")]
    if finalists:
        cells += [
            ("best held-out loss", number(finalists[0]["loss"])),
            ("trials an hour", number(totals["trials_per_hour"], 0)),
        ]
    keys = list(finalists[0]["values"]) if finalists else []
    rows = [
        [
            str(row["trial"]),
            *(f"{row['values'][key]:g}" for key in keys),
            number(row["loss"]),
            number(row["spread"]),
            str(len(row["losses"])),
        ]
        for row in finalists
    ]
    head = ["trial", *(key.partition(".")[2] for key in keys), "held-out loss", "spread over seeds", "seeds"]
    body = tiles(cells) + table(head, rows, "The best trials, the lowest mean loss first (nats a token)")
    names = {
        "history": "Loss by trial",
        "importance": "Which key matters",
        "slices": "Loss by each key",
        "contours": "Two keys",
    }
    return Section("search", f"Search: {study['name']}", body + figures(folder, names))


def _transfer(result: dict[str, Any], folder: Path) -> Section:
    rows = []
    for sweep in result["sweeps"]:
        key, _, axis = sweep["sweep"].partition("-")
        sizes = [optimum["size"] for optimum in sweep["optima"]]
        rows.append(
            [
                key,
                f"{axis} {min(sizes):,} to {max(sizes):,}" if sizes else axis,
                sweep["parametrization"].replace("_", " "),
                number(sweep["slope"], 2, "+"),
                number(sweep["octaves"], 2, "+"),
                interval(sweep["interval"], 2),
                sweep["verdict"],
            ]
        )
    head = ["best", "over", "rules", "octaves a doubling", "octaves in all", "95%", "carries over"]
    body = table(
        head,
        rows,
        "How far the best value moves as models, batches or runs grow; within half an octave it carries over",
    )
    names = {f"{row['sweep']}": f"{row['sweep'].replace('-', ' over ')}: loss and optimum" for row in result["sweeps"]}
    return Section("transfer", f"Transfer: {result['recipe']}", body + figures(folder, names))


def _coordinate(result: dict[str, Any], folder: Path) -> Section:
    rows = []
    for name, case in result["cases"].items():
        steepest = max(
            (abs(f["figure"]) for f in case["findings"] if f["criterion"] == "change over width"), default=math.nan
        )
        outside = len(case["violated"])
        rows.append(
            [
                name,
                number(steepest),
                "held" if case["held"] else f"not held: {outside} of {len(case['findings'])} outside",
            ]
        )
    body = table(
        ["rules", "steepest slope of a change over width", "steady"],
        rows,
        "Activations and their changes as width grows: under all rules of Table 6, without any, and without each",
    )
    names = {
        "coordinate-width": "Over width",
        "coordinate-depth": "Over depth",
        "coordinate-rules": "What each rule is for",
    }
    return Section("coordinate", "Coordinate check", body + figures(folder, names))


_OBJECTIVES = {
    "text": "held-out text, nats",
    "sft": "held-out instructions, nats",
    "answers": "nats on answers",
    "accuracy": "answered exactly",
    "combined": "combined, nats",
}


def _ratio(result: dict[str, Any], folder: Path) -> Section:
    shares = [
        [_OBJECTIVES[name], number(curve["optimum"], 2), interval(curve["interval"], 2), curve["optimum_is"]]
        for name, curve in result["shares"].items()
    ]
    parts = []
    if shares:
        parts.append(table(["score", "best SFT share", "95%", ""], shares, "Share of instruction data in the decay"))
    titles = {
        "mixtures": "What the SFT share is made of",
        "shape": "Shape of the decay",
        "length": "Tokens of the decay",
    }
    for name, title in titles.items():
        if rows := result[name]:
            scores = [score for score in _OBJECTIVES if score in rows[0]]
            cells = [
                [f"{row['value']:,}" if isinstance(row["value"], int) else str(row["value"]), str(row["seeds"])]
                for row in rows
            ]
            for row, line in zip(rows, cells, strict=True):
                line += [number(row[score]["mean"]) for score in scores]
            parts.append(
                table([title[0].lower() + title[1:], "seeds", *(_OBJECTIVES[score] for score in scores)], cells, title)
            )
    if result["schedules"]:
        lines = [
            [
                f"{row['tokens']:,}",
                number(row["wsd"]),
                number(row["cosine"]),
                _with_error(row["difference"], row["error"]),
            ]
            for row in result["schedules"]
        ]
        parts.append(
            table(["tokens", "WSD", "cosine", "WSD less cosine"], lines, "Schedules at equal tokens, nats a token")
        )
    names = {
        "shares": "Scores by share",
        "mixtures": "What the share is made of",
        "schedules": "WSD and cosine",
        "shape": "Shapes of decay",
        "length": "Lengths of decay",
    }
    return Section("ratio", f"SFT ratio: {result['recipe']}", "".join(parts) + figures(folder, names))


def _law(result: dict[str, Any], folder: Path) -> Section:
    rows = []
    for counting, law in result["laws"].items():
        for name, constant in law["huber"].items():
            if name != "undetermined":
                told = "not determined" if name in law["huber"]["undetermined"] else ""
                low_high = interval((constant["low"], constant["high"]))
                rows.append([counting, name, f"{constant['value']:.4g}", low_high, told])
    body = table(
        ["parameters", "constant", "value", "95%", ""], rows, "loss = E + A / N^alpha + B / D^beta, nats a token"
    )
    if prediction := result.get("prediction"):
        lines = []
        for entry in prediction["lengths"]:
            said = entry["without embeddings"]
            measured = number(said.get("measured"))
            off = f"{said['percent']:+.2f}%" if "percent" in said else ""
            lines.append(
                [f"{entry['tokens']:,}", number(said["loss"]), interval((said["low"], said["high"])), measured, off]
            )
        caption = f"Size {prediction['size']}, predicted from smaller ones before it was trained"
        body += table(["tokens", "predicted", "95%", "measured", "error"], lines, caption)
    names = {
        "loss-by-tokens": "Loss by tokens",
        "loss-by-parameters": "Loss by parameters",
        "predicted": "Predicted and measured",
        "optimum": "Best size and length of a budget",
    }
    return Section("law", "Scaling law", body + figures(folder, names))


_BUILDERS: dict[str, Callable[[Any, Path], Section]] = {
    STUDY_FILE: _search,
    COORDINATE_FILE: _coordinate,
    TRANSFER_FILE: _transfer,
    RATIO_FILE: _ratio,
    LAW_FILE: _law,
}


def figures(folder: Path, names: dict[str, str]) -> str:
    """Return the SVG files of a folder's figures as pictures with captions; those that are not there are left out."""
    shown = []
    for name, caption in names.items():
        path = folder / "figures" / f"{name}.svg"
        if not path.is_file():
            continue
        if path.stat().st_size > _MOST_BYTES:
            shown.append(f"<p>{escape(caption)}: {escape(str(path))} is too large for this page.</p>")
            continue
        data, alt = base64.b64encode(path.read_bytes()).decode(), escape(caption)
        picture = f'<img alt="{alt}" src="data:image/svg+xml;base64,{data}">'
        shown.append(f"<figure>{picture}<figcaption>{alt}</figcaption></figure>")
    return "".join(shown)


def interval(ends: Sequence[float] | None, digits: int = 3) -> str:
    """Return the ends of an interval as text, nothing for none.

    >>> interval((0.5, 1.25), 2)
    '0.50 to 1.25'
    """
    return f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}" if ends else ""


def number(value: float | None, digits: int = 3, sign: str = "") -> str:
    """Return a number as text, nothing for none.

    >>> number(1234.5, 1, "+")
    '+1,234.5'
    """
    return "" if value is None or not math.isfinite(value) else f"{value:{sign},.{digits}f}"


def _with_error(value: float | None, error: float | None) -> str:
    return number(value, 3, "+") + (f" ± {error:.3f}" if error is not None else "")
