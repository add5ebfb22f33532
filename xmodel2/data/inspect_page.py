"""One HTML page of a data directory: the two pies of Figure 2, tables, lengths, what was removed, samples to read."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from xmodel2.data.inspect import INSPECTION_HEAD, LENGTH_EDGES, inspection_rows, removed_documents
from xmodel2.files import write_text_atomic
from xmodel2.page import page, table, tiles
from xmodel2.plots import BLUE, GREY, colors, pie, svg

_PIECES = 14  # of a pie; what is smaller is drawn as one


def write_inspection(report: dict[str, Any], out: Path) -> list[Path]:
    """Write stable.svg, decay.svg, lengths.svg and index.html into a folder and return their paths."""
    color_of = _colors(report["shares"])
    figures = {f"{stage}.svg": mixture_pie(s, stage, color_of) for stage, s in report["shares"].items() if s}
    figures["lengths.svg"] = length_histograms(report["sources"])
    written = []
    for name, figure in figures.items():
        write_text_atomic(out / name, figure)
        written.append(out / name)
    write_text_atomic(out / "index.html", inspection_page(report, figures))
    return [*written, out / "index.html"]


def _colors(shares: dict[str, dict[str, float]]) -> dict[str, str]:
    """Return a colour for each source, the same in both pies, different for the large ones."""
    total = {
        name: max(share.get(name, 0.0) for share in shares.values()) for share in shares.values() for name in share
    }
    return colors(sorted(total, key=lambda name: -total[name]))


def mixture_pie(shares: dict[str, float], stage: str, color_of: dict[str, str]) -> str:
    """Return one of Figure 2's pies; the smallest sources are drawn as one piece."""
    ranked = dict(sorted(shares.items(), key=lambda item: -item[1]))
    drawn = dict(list(ranked.items())[: _PIECES if len(ranked) > _PIECES + 1 else None])
    if small := len(ranked) - len(drawn):
        drawn[f"{small} smaller sources"] = 1 - sum(drawn.values())
    return pie(drawn, f"{stage} stage", {**dict.fromkeys(drawn, GREY), **color_of})


def length_histograms(sources: dict[str, Any]) -> str:
    """Return a small histogram of document lengths for each source that is trained on."""
    drawn = {name: source for name, source in sources.items() if source["lengths"]}
    columns = 4
    rows = math.ceil(len(drawn) / columns) or 1
    figure = Figure(figsize=(11, 1.55 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
    labels = [str(edge) if edge < 1024 else f"{edge >> 10}k" for edge in LENGTH_EDGES]
    for axes, (name, source) in zip(grid.flat, drawn.items(), strict=False):
        counts = source["lengths"]["histogram"]
        axes.bar(range(len(counts)), [count / sum(counts) for count in counts], width=0.9, color=BLUE, align="edge")
        axes.set_title(f"{name} (median {source['lengths']['median']:,})", fontsize=9)
        axes.set_yticks([])
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
    for axes in list(grid.flat)[len(drawn) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xticks(range(0, len(labels), 3), labels[::3], fontsize=8)
    figure.supxlabel("tokens a document", fontsize=9)
    return svg(figure)


def inspection_page(report: dict[str, Any], figures: dict[str, str]) -> str:
    """Return the page."""
    sources = report["sources"]
    tokens = sum(source["train"]["tokens"] for source in sources.values())
    size = sum(source["train"]["bytes"] for source in sources.values())
    documents = sum(source["train"]["documents"] for source in sources.values())
    head = [
        ("sources", f"{len(sources)}"),
        ("documents", f"{documents:,}"),
        ("tokens", f"{tokens:,}"),
        ("bytes a token", f"{size / max(tokens, 1):.2f}"),
        ("pieces", f"{report['vocab_size']:,}"),
    ]
    pies = "".join(f"<figure>{figures[name]}</figure>" for name in ("stable.svg", "decay.svg") if name in figures)
    body = [
        "<h1>Training data</h1>",
        tiles(head),
        "<h2>Mixtures</h2>",
        f'<div class="row">{pies}</div>',
        _sources_table(sources),
        "<h2>Lengths</h2>",
        f"<figure>{figures['lengths.svg']}</figure>",
        *_removal(report),
        "<h2>Samples</h2>",
        *(_samples(name, source) for name, source in sources.items()),
    ]
    return page("Training data", "\n".join(body))


def _sources_table(sources: dict[str, Any]) -> str:
    caption = "Sources; lengths in tokens; share of each stage; tokens of its own stage in which a source is seen once."
    return table(INSPECTION_HEAD, inspection_rows(sources), caption)


def _removal(report: dict[str, Any]) -> list[str]:
    """Return what the preparation removed: by rule, by duplication, by benchmark."""
    sources = {name: source for name, source in report["sources"].items() if "removed" in source}
    if not sources:
        return []
    rules = list(dict.fromkeys(rule for source in sources.values() for rule in source["removed"]))
    rows = []
    for name, source in sources.items():
        removed = [removed_documents(source["removed"].get(rule, {})) for rule in rules]
        rows.append(
            [
                name,
                f"{source['read'].get('documents', 0):,}",
                f"{sum(source['skipped'].values()):,}",
                *(f"{count:,}" for count in removed),
                *(f"{source['duplicates'][key]:,}" for key in ("exact", "near")),
                f"{source['contaminated'].get('documents', 0):,}",
            ]
        )
    head = ["source", "read", "skipped", *rules, "copies", "near-duplicates", "contaminated"]
    parts = ["<h2>Removed</h2>", table(head, rows, "Documents read, and removed by each rule in its turn.")]
    if reasons := _reasons(sources):
        parts.append(table(["source", "rule", "documents", "bytes", "reasons"], reasons, "Why, and how much text."))
    if changed := _changed(sources):
        parts.append(
            table(["source", "rule", "documents changed", "bytes taken"], changed, "Text changed inside documents.")
        )
    if report["benchmarks"]:
        parts += ["<h2>Benchmarks</h2>", _benchmarks(report["benchmarks"], sources)]
        parts += [_contaminated(name, source) for name, source in sources.items() if source["contaminated_documents"]]
    return parts


def _reasons(sources: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, source in sources.items():
        for rule, counts in source["removed"].items():
            why = ", ".join(f"{reason} {count:,}" for reason, count in counts.items() if reason != "bytes")
            rows.append([name, rule, f"{removed_documents(counts):,}", f"{counts['bytes']:,}", why])
    return rows


def _changed(sources: dict[str, Any]) -> list[list[str]]:
    return [
        [name, rule, f"{counts['documents']:,}", f"{counts['bytes']:,}"]
        for name, source in sources.items()
        for rule, counts in source["changed"].items()
    ]


def _benchmarks(benchmarks: dict[str, dict[str, int]], sources: dict[str, Any]) -> str:
    rows = []
    for name, counts in benchmarks.items():
        found = {source: s["contaminated"][name] for source, s in sources.items() if name in s["contaminated"]}
        where = ", ".join(f"{source} {count:,}" for source, count in found.items())
        rows.append([name, f"{counts['items']:,}", f"{counts['checked']:,}", f"{sum(found.values()):,}", where])
    head = ["benchmark", "items", "long enough to check", "documents removed", "from"]
    return table(head, rows, "Documents that held benchmark items. No items: the benchmark's files were not given.")


def _contaminated(name: str, source: dict[str, Any]) -> str:
    shown = source["contaminated_documents"][:3]
    return _cards(
        f"{name}: contaminated",
        [(", ".join(f"{b} {n}" for b, items in d["items"].items() for n in items[:4]), d["text"]) for d in shown],
    )


def _samples(name: str, source: dict[str, Any]) -> str:
    parts = [_cards(name, [("", text) for text in source["samples"]])]
    for rule, samples in source.get("removed_samples", {}).items():
        parts.append(_cards(f"{name}: removed by {rule}", [(sample["reason"], sample["text"]) for sample in samples]))
    for pair in source.get("duplicates", {}).get("samples", []):
        parts.append(_cards(f"{name}: near-duplicate", [("removed", pair["removed"]), ("kept", pair["kept"])]))
    return "".join(parts)


def _cards(title: str, texts: Sequence[tuple[str, str]]) -> str:
    inner = "".join(f'<div class="sample"><h3>{escape(why)}</h3><pre>{escape(text)}</pre></div>' for why, text in texts)
    return f"<details><summary>{escape(title)}</summary>{inner}</details>"
