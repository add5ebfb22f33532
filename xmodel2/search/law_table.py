"""What a scaling law found, as tables for people; law.json has all of it."""

from typing import Any

from rich.console import Console
from rich.table import Table

Found = dict[str, Any]


def print_law(found: Found) -> None:
    """Print constants, errors and optimum under each way of counting parameters, then what was predicted."""
    laws = found["laws"]
    console = Console(
        width=max(Console().width, 110), highlight=False
    )  # in a window too narrow, lines are longer, not cut
    left_out = f", {found['diverged']} diverged and left out" if found["diverged"] else ""
    console.print(
        f"{found['points']} points{left_out}; intervals: {found['interval']:.0%} of draws over {found['drawn']}"
    )
    table = Table("", *(f"N {counting}" for counting in laws), box=None, pad_edge=False)
    for row in zip(*(_rows(law) for law in laws.values()), strict=True):
        table.add_row(row[0][0], *(cell for _, cell in row))
    console.print(table)
    if found["cost"]:
        trained, whole = found["cost"]["tokens_trained"], found["cost"]["tokens_from_the_beginning"]
        console.print(f"trained on {trained:,} tokens; runs from the beginning: {whole:,} ({trained / whole:.0%})")
    if "prediction" in found:
        console.print(_predictions(found["prediction"]))


def _rows(law: Found) -> list[tuple[str, str]]:
    """Return (what, figure), the same rows for each way of counting."""
    fit, squares = law["huber"], law["squares"]
    rows = [(name, _interval(fit[name], ".4g")) for name in squares]
    rows.append(("not determined by these points", ", ".join(fit["undetermined"]) or "none"))
    rows.append(("by least squares", ", ".join(f"{value:.4g}" for value in squares.values())))
    rows.append(("fitted points are off by (rms)", f"{law['fitted_rms_percent']:.2f}%"))
    for what, error in law["left_out"].items():
        text = f"{error['mean_nats']:.4f} nats, at most {error['largest_percent']:.2f}%" if error else "too few remain"
        rows.append((f"{what}, left out, is off by", text))
    for best in law["optimum"]:
        place = "" if best["within_points"] else ", extrapolated"
        n, d, ratio = (best[key] for key in ("parameters", "tokens", "tokens_per_parameter"))
        rows.append((f"best N, D for {best['flops']:.1e} FLOPs", f"{n['value']:.3g}, {d['value']:.3g}{place}"))
        rows.append(("    D / N", _interval(ratio, ".3g")))
    return rows


def _predictions(prediction: Found) -> Table:
    head = ("tokens", "N counted", "predicted", "measured", "off by", "covered")
    table = Table(
        *head, title=f"{prediction['size']}, predicted at {prediction['made']}", title_justify="left", box=None
    )
    for length in prediction["lengths"]:
        for counting in prediction["laws"]:
            said = length[counting]
            measured = (
                [f"{said['measured']:.4f}", f"{said['nats']:+.4f} ({said['percent']:+.2f}%)"]
                if "measured" in said
                else ["diverged", ""]
            )
            covered = {True: "yes", False: "no", None: ""}[said.get("covered")]
            predicted = _interval({"value": said["loss"], **said}, ".4f")
            table.add_row(f"{length['tokens']:,}", counting, predicted, *measured, covered)
    return table


def _interval(value: Found, form: str) -> str:
    return f"{value['value']:{form}} ({value['low']:{form}} to {value['high']:{form}})"
