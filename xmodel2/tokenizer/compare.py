"""Several tokenizers on the same texts become a table and a figure: which one needs how many tokens, and where."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from xmodel2.errors import XmodelError
from xmodel2.plots import PALETTE
from xmodel2.tokenizer.encoder import Encoder
from xmodel2.tokenizer.inspect import Counts

ALL = "all"
Comparison = dict[str, dict[str, dict[str, Any]]]
"""Figures (`tokenizer_statistics`) by tokenizer, then by source and group; the last, ``all``, is of all texts."""

_FIGURES = {
    "vocab_size": ",.0f",
    "tokens": ",.0f",
    "chars_per_token": ".3f",
    "bytes_per_token": ".3f",
    "tokens_per_word": ".3f",
    "tokens_per_number": ".3f",
    "byte_fallback_rate": ".3%",
    "used_vocabulary": ".1%",
    "renyi_efficiency": ".3f",
    "round_trip_failures": ",.0f",
}
_HIGHER_IS_BETTER = {"chars_per_token", "bytes_per_token", "used_vocabulary", "renyi_efficiency"}
_MARKERS = "osD^vP"


def compare_tokenizers(
    tokenizers: Mapping[str, Encoder],
    texts_by_source: Mapping[str, Iterable[str]],
    groups: Mapping[str, Sequence[str]] | None = None,
) -> Comparison:
    """Measure each tokenizer on each source, on each group of sources (such as a language) and on all.

    Texts are read once and held, a source at a time. Raises `XmodelError` if a source is empty or named as the sum, or a group
    names none.
    """
    if ALL in texts_by_source:
        raise XmodelError(f"source {ALL}: is the name of the sum of all sources; rename its file or folder")
    groups = {**(groups or {}), ALL: list(texts_by_source)}
    for group, names in groups.items():
        if group in texts_by_source:
            raise XmodelError(f"groups.{group}: is the name of a source; choose another")
        for name in names:
            if name not in texts_by_source:
                raise XmodelError(f"groups.{group}: there is no source {name}")
    result: Comparison = {name: {} for name in tokenizers}
    sums = {name: {group: Counts(encoder) for group in groups} for name, encoder in tokenizers.items()}
    for source, texts in texts_by_source.items():
        kept = list(texts)
        if not any(kept):
            raise XmodelError(f"source {source}: the text is empty; give files with text")
        for name, encoder in tokenizers.items():
            counts = Counts(encoder)
            counts.add(kept)
            result[name][source] = counts.figures()
            for group, members in groups.items():
                if source in members:
                    sums[name][group].update(counts)
    for name in tokenizers:
        result[name] |= {group: counts.figures() for group, counts in sums[name].items()}
    return result


def comparison_markdown(comparison: Comparison, figure: str = "chars_per_token", form: str = ".3f") -> str:
    """Return a table of one figure: a row a source, a column a tokenizer, the best in bold."""
    rows = [["source", *comparison]]
    for source in next(iter(comparison.values())):
        values = [float(figures[source][figure]) for figures in comparison.values()]
        cells = [f"{value:{form}}" for value in values]
        best = cells[values.index(max(values) if figure in _HIGHER_IS_BETTER else min(values))]
        rows.append([source, *(f"**{cell}**" if cell == best and len({*cells}) > 1 else cell for cell in cells)])
    return _markdown(rows)


def summary_markdown(comparison: Comparison, source: str = ALL, figures: Mapping[str, str] = _FIGURES) -> str:
    """Return a table of many figures of one source or group: a row a figure, each with its number format."""
    rows = [["figure", *comparison]]
    for figure, form in figures.items():
        values = [f"{found[source][figure]:{form}}" for found in comparison.values()]
        rows.append([figure, *values])
    return _markdown(rows)


def comparison_figure(comparison: Comparison, figure: str = "chars_per_token") -> Figure:
    """Draw one figure by source, sorted by the first tokenizer; ``all`` on top."""
    first = next(iter(comparison.values()))
    sources = [*sorted((name for name in first if name != ALL), key=lambda name: float(first[name][figure])), ALL]
    drawing = Figure(figsize=(7.6, 1.2 + 0.24 * len(sources)), layout="constrained")
    axes = drawing.subplots()
    for index, (name, found) in enumerate(comparison.items()):
        values = [found[source][figure] for source in sources]
        axes.plot(
            values,
            range(len(sources)),
            linestyle="",
            marker=_MARKERS[index % len(_MARKERS)],
            markersize=6 if index == 0 else 5,
            markerfacecolor=PALETTE[index % len(PALETTE)] if index == 0 else "none",
            color=PALETTE[index % len(PALETTE)],
            label=name,
        )
    axes.set_yticks(range(len(sources)), sources)
    axes.set_ylim(-0.7, len(sources) - 0.3)
    axes.set_xlabel(figure.replace("_", " ").replace("chars", "characters"))
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.legend(frameon=False, loc="lower right")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return drawing


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    rule = "|---" + "|---:" * (len(rows[0]) - 1) + "|"
    return "\n".join([head, rule, *body]) + "\n"
