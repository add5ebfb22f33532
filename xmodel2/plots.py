"""What all figures share: colours, the pie of a mixture, and SVG that is the same bytes for the same figure."""

import hashlib
import io
import re
from collections.abc import Sequence
from itertools import cycle

import matplotlib
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

BLUE, ORANGE, GREY = "#2f6fbb", "#d9822b", "#8a8f98"
PALETTE = (
    *("#2f6fbb", "#d9822b", "#3a9d6b", "#b5485d", "#7d5bb0", "#8a8f98", "#c9b23a", "#3aa3a3"),
    *("#8fb8e3", "#f0bd85", "#93cdb0", "#dda0ad", "#bba6dc", "#c3c7cc", "#e5d88d", "#98d1d1"),
)


def pie(shares: dict[str, float], title: str, color_of: dict[str, str]) -> str:
    """Return one mixture (Figure 2), largest share first, its names and shares in a legend beside it."""
    room_for_wider_fonts = ConstrainedLayoutEngine(rect=(0, 0, 0.93, 1))
    figure = Figure(figsize=(5.6, max(3.2, 0.24 * len(shares))), layout=room_for_wider_fonts)
    axes = figure.subplots()
    wedges, _ = axes.pie(
        list(shares.values()),
        colors=[color_of[name] for name in shares],
        startangle=90,
        counterclock=False,
        wedgeprops={"width": 0.45, "edgecolor": "white", "linewidth": 0.8},
    )
    labels = [f"{name}  {share:.1%}" for name, share in shares.items()]
    axes.legend(wedges, labels, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    axes.set_title(title)
    return svg(figure)


def colors(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each name; after the palette's end they repeat.

    >>> colors(["a", "b"])
    {'a': '#2f6fbb', 'b': '#d9822b'}
    """
    return dict(zip(names, cycle(PALETTE)))


def svg(figure: Figure) -> str:
    """Return a figure as an SVG element, the same bytes for the same figure."""
    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "xmodel2", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    # matplotlib numbers its elements anew in each figure; on a page with several, names must be of one figure.
    own = hashlib.sha256(text.encode()).hexdigest()[:8]
    return re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{own}-", text)
