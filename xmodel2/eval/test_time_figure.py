"""Figure 5: loss by token index with the law, the same less a on two logarithmic axes, and what the law leaves."""

from collections.abc import Sequence
from html import escape
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FormatStrFormatter, LogLocator, NullFormatter

from xmodel2.errors import XmodelError
from xmodel2.files import read_json
from xmodel2.page import table
from xmodel2.plots import GREY, PALETTE, svg

Result = dict[str, Any]
_TWO_SIDED = 1.96  # standard errors of a 95% interval


def read_result(folder: Path) -> Result:
    """Return the scaling.json of a folder. Raises `XmodelError` if there is none, or it is something else."""
    path = folder / "scaling.json"
    found = read_json(path)
    if found is None:
        raise XmodelError(f"{path}: no such file; `xmodel2 scaling MODEL --out {folder}` makes it")
    if not isinstance(found, dict) or not {"model", "bins", "fit", "settings"} <= found.keys():
        raise XmodelError(f"{path}: is not what `xmodel2 scaling` writes; measure again into another --out")
    return found


def draw(results: Sequence[Result]) -> str:
    """Return the figure of one or several models as SVG."""
    figure = Figure(figsize=(11.0, 5.0), layout="constrained")
    panels = figure.subplot_mosaic([["loss", "less"], ["loss", "rest"]], height_ratios=(2, 1))
    laws = [result for result in results if result["fit"]["determined"]]
    for result, color in zip(results, cycle(PALETTE)):
        _linear(panels["loss"], result, color)
        if result in laws:
            _less_floor(panels["less"], result, color)
            _residuals(panels["rest"], result, color)
        elif not laws:
            _points(panels["less"], result["bins"], 0.0, color, None)
    _furnish(panels, max(result["settings"]["context"] for result in results))
    if laws:
        panels["less"].set_yscale("log")
        panels["less"].set_ylim(min(map(_least, laws)), max(row["bins"][0]["loss"] - _floor(row) for row in laws) * 1.5)
        panels["less"].set_ylabel("loss - a")
        panels["less"].yaxis.set_minor_formatter(NullFormatter())
        panels["less"].tick_params(labelbottom=False)
        panels["rest"].axhline(0, color=GREY, linewidth=0.8)
    else:
        panels["less"].set_ylabel("loss, nats a token")
        panels["rest"].set_axis_off()
        panels["rest"].text(0.5, 0.3, "no law to draw", ha="center", transform=panels["rest"].transAxes, color=GREY)
    return svg(figure)


def equation(result: Result) -> str:
    """Return the law with its constants, or why there is none."""
    fit = result["fit"]
    if not fit["determined"]:
        return "no law: " + str(fit["complaint"]).partition(":")[0]
    a, b, c = (fit["constants"][name]["value"] for name in "abc")
    return f"{a:.3f} + {b:.3f} t$^{{-{c:.3f}}}$"


def _floor(result: Result) -> float:
    return float(result["fit"]["constants"]["a"]["value"])


def _least(result: Result) -> float:
    """Return where loss - a may end below: at half of the law's last value, or where all is noise."""
    last = float(result["fit"]["ahead"]["loss"]) - _floor(result)
    return max(last / 2, min(row["error"] for row in result["bins"]) / 4, 1e-9)


def _linear(axes: Axes, result: Result, color: str) -> None:
    law, end = result["fit"]["law"], result["settings"]["context"]
    name = result["model"]["name"].replace("$", r"\$")
    _points(axes, result["bins"], 0.0, color, f"{name}: {equation(result)}")
    if law:
        t, loss, low, high = (np.array(law[key]) for key in ("t", "loss", "low", "high"))
        seen = t <= end
        axes.plot(t[seen], loss[seen], color=color, linewidth=1.5)
        axes.fill_between(t[seen], low[seen], high[seen], color=color, alpha=0.18, linewidth=0)


def _less_floor(axes: Axes, result: Result, color: str) -> None:
    """Draw loss - a: a straight line if the law holds; beyond the context dashed, with the prediction at twice of it."""
    law, end, floor = result["fit"]["law"], result["settings"]["context"], _floor(result)
    _points(axes, result["bins"], floor, color, None)
    t, loss, low, high = (np.array(law[key]) for key in ("t", "loss", "low", "high"))
    axes.plot(t, loss - floor, color=color, linewidth=1.2, linestyle="--")
    axes.plot(t[t <= end], loss[t <= end] - floor, color=color, linewidth=1.5)
    axes.fill_between(t, np.maximum(low - floor, 1e-9), high - floor, color=color, alpha=0.18, linewidth=0)
    ahead = result["fit"]["ahead"]
    bar = [[ahead["loss"] - ahead["low"]], [ahead["high"] - ahead["loss"]]]
    axes.errorbar(
        [ahead["t"]], [ahead["loss"] - floor], bar, fmt="D", color=color, markersize=4, mfc="white", capsize=2
    )


def _residuals(axes: Axes, result: Result, color: str) -> None:
    a, b, c = (result["fit"]["constants"][name]["value"] for name in "abc")
    rest = [{**row, "loss": row["loss"] - a - b * row["t"] ** -c} for row in result["bins"]]
    _points(axes, rest, 0.0, color, None)


def _points(axes: Axes, rows: Sequence[dict[str, Any]], less: float, color: str, label: str | None) -> None:
    t, loss = [row["t"] for row in rows], [row["loss"] - less for row in rows]
    errors = [_TWO_SIDED * row["error"] for row in rows]
    axes.errorbar(t, loss, errors, fmt="o", color=color, markersize=3.5, elinewidth=0.8, capsize=0, label=label)


def _furnish(panels: dict[str, Axes], context: int) -> None:
    for name, axes in panels.items():
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        if name != "loss":
            axes.set_xscale("log")
            axes.set_xlim(0.8, 2.2 * context)
            axes.xaxis.set_major_locator(LogLocator(subs=(1,), numticks=12))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.tick_params(labelsize=9)
    panels["loss"].set_xlabel("token index in the context, t")
    panels["loss"].set_ylabel("loss, nats a token")
    panels["loss"].legend(frameon=False, fontsize=9)
    panels["less"].yaxis.set_major_formatter(FormatStrFormatter("%.3g"))
    panels["rest"].set_ylabel("loss - law")
    panels["rest"].set_xlabel("token index, t")


def scaling_section(folder: Path) -> str:
    """Return the report's section of a folder of `xmodel2 scaling`: figure, and table of constants. Raises as `read_result`."""
    result = read_result(folder)
    settings, fit = result["settings"], result["fit"]
    caption = (
        f"Figure 5. Loss by token index on {settings['text']} ({settings['windows']} windows of {settings['context']:,} tokens);"
        f" bars and bands are {settings['interval']:.0%} intervals over {settings['drawn']}; dashed: beyond the context."
    )
    figure = f"<figure>{draw([result])}<figcaption>{escape(caption)}</figcaption></figure>"
    if not fit["determined"]:
        return f"<h2>Test-time scaling law</h2>{figure}<p>No law is given: {escape(fit['complaint'])}.</p>"
    rows = [(name, *(f"{fit['constants'][name][key]:.4g}" for key in ("value", "low", "high"))) for name in "abc"]
    ahead = fit["ahead"]
    rows.append((f"loss at t = {ahead['t']:,}", *(f"{ahead[key]:.4g}" for key in ("loss", "low", "high"))))
    said = f"loss(t) = a + b t^-c, weighted R² {fit['goodness']['r2']:.4f}"
    remarks = "".join(f"<p>{escape(remark)}.</p>" for remark in fit["remarks"])
    return f"<h2>Test-time scaling law</h2>{figure}{table(('', 'value', 'from', 'to'), rows, said)}{remarks}"
