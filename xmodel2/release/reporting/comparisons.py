"""What `ablate`, `transfer --direct-trials`, `ratio --compare format` and `peer` found, as parts of the report."""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from xmodel2.files import read_json
from xmodel2.page import table
from xmodel2.release.reporting.ablation_verdicts import PEER_FILE
from xmodel2.release.reporting.faults import told_sections
from xmodel2.release.reporting.section import Section
from xmodel2.release.reporting.wind_tunnel import RATIO_FILE, figures, interval, number
from xmodel2.search.ablation_runs import RESULT_FILE as ABLATION_FILE
from xmodel2.search.ablation_summary import UNITS
from xmodel2.search.direct import RESULT_FILE as DIRECT_FILE
from xmodel2.search.ratio_formats import MEASURES


def comparison_sections(folder: Path) -> list[Section]:
    """Return what a folder of a comparison holds, none for another folder; a damaged file tells of itself."""
    found = []
    for name, build in _BUILDERS.items():

        def read(path: Path = folder / name, build: Callable[[Any, Path], list[Section]] = build) -> list[Section]:
            return [] if (result := read_json(path)) is None else build(result, folder)

        found += told_sections(read, folder / name, Path(name).stem, name)
    return found


def _ablation(result: dict[str, Any], folder: Path) -> list[Section]:
    body = ""
    for name, comparison in result["comparisons"].items():
        rows = [
            [
                arm["name"],
                f"{arm['parameters']:,}",
                f"{arm['parameters_total']:,}",
                f"{arm['tokens']:,}",
                f"{arm['rate']:g}{' (edge)' if arm['at_edge'] else ''}" if arm["rate"] else "diverged",
                str(len(arm["losses"])),
                number(arm["mean"], 4),
                number(arm["difference"], 4, "+"),
                interval(arm["interval"], 4),
                number(arm["percent"], 2, "+"),
            ]
            for arm in comparison["arms"]
        ]
        unit = UNITS[comparison["measure"]]
        head = ["arm", "in blocks", "parameters", "tokens", "best rate", "seeds", unit, "less own", "95%", "%"]
        caption = f"{name.capitalize()}: rates are multiples of the recipe's; less own above 0 is worse than the recipe"
        body += table(head, rows, caption)
    if result["diverged"]:
        body += f"<p>Diverged: {escape(', '.join(result['diverged']))}</p>"
    return [Section("ablation", f"Ablations: {result['recipe']}", body + figures(folder, {"ablation": "All arms"}))]


def _direct(result: dict[str, Any], folder: Path) -> list[Section]:
    rows = [
        [
            f"{size['width']} x {size['layers']}",
            f"{size['parameters']:,}",
            number(size["carried"]["mean"], 4),
            number(size["direct"]["mean"], 4),
            number(size["percent"], 2, "+"),
            interval(size["percent_interval"], 2),
            size["verdict"],
        ]
        for size in result["sizes"]
    ]
    head = [
        "size",
        "parameters",
        "carried over",
        "searched there",
        "lost, %",
        "95%",
        f"within {result['bound_percent']:g}%",
    ]
    caption = f"{result['trials']} trials at each size; losses of {len(result['seeds'])} seeds that chose nothing, nats a token"
    body = table(head, rows, caption) + figures(folder, {"direct": "Trials at each size, and what was carried over"})
    return [Section("direct", f"Carried over against searched: {result['recipe']}", body)]


def _format(result: dict[str, Any], folder: Path) -> list[Section]:
    if not (formats := result.get("format")):
        return []
    rows = [
        [
            MEASURES[name],
            *(number(row[arm][where]) for arm in ("chat", "text") for where in ("own", "other")),
            number(row["difference"], 3, "+"),
            interval(row["interval"]),
        ]
        for name, row in formats["measures"].items()
    ]
    head = ["score", "chats: as chat", "as text", "texts: as text", "as chat", "chats less texts", "95%"]
    body = table(
        head,
        rows,
        "The same documents in the decay as chats and as plain text, each asked in both formats; losses in nats a token",
    )
    return [Section("format", f"Formats: {result['recipe']}", body + figures(folder, {"format": "Chats less texts"}))]


def _peer(result: dict[str, Any], folder: Path) -> list[Section]:
    tokens = result["tokens_factor"]
    missed = f" (not reached with {len(tokens['not_reached'])} of the seeds)" if tokens["not_reached"] else ""
    most = " at most" if tokens["at_most"] else ""
    rows = [
        _apart("at equal tokens, ours less the Trainer's", result["difference"]),
        [
            f"tokens to the Trainer's loss, as a share of its own{most}{missed}",
            number(tokens["mean"]),
            interval(tokens["interval"]),
        ],
    ]
    for name, product in result["tokens_time"].items():
        time = result["time_factor"][name]
        ends = interval((time["low"], time["high"]))
        rows += [
            [f"time a token, as a share of the {name} Trainer's", number(time["factor"]), ends],
            [
                f"tokens-time, {name} Trainer: at most {result['bound']:g} {product['verdict']}",
                number(product["factor"]),
                interval(product["interval"]),
            ],
            _apart(
                f"at equal time, ours less the {name} Trainer's",
                result["equal_time"][name]["difference"],
            ),
        ]
    caption = f"{result['tokens']:,} tokens, {len(result['seeds'])} seeds; {result['peer']['name']} {result['peer']['version']}."
    caption += " Intervals of 95% over seeds; of times, what all rounds lie between"
    body = table(["", "", "interval"], rows, caption) + figures(folder, {"peer": "Held-out loss by tokens"})
    return [Section("peer", f"Beside a plain Trainer: {result['recipe']}", body)]


def _apart(where: str, found: dict[str, Any]) -> list[str]:
    return [f"loss {where}, nats a token", number(found["mean"], 4, "+"), interval(found["interval"], 4)]


_BUILDERS: dict[str, Callable[[Any, Path], list[Section]]] = {
    RATIO_FILE: _format,
    DIRECT_FILE: _direct,
    ABLATION_FILE: _ablation,
    PEER_FILE: _peer,
}
