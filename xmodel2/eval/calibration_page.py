"""What a calibration leaves in a folder, calibration.json, figures and a page; and the section that a report shows of it."""

from html import escape
from pathlib import Path
from typing import Any

from xmodel2.eval.calibration_figure import reliability_figure, subjects_figure, temperature_text
from xmodel2.eval.tasks import TASKS
from xmodel2.files import read_json, write_json_atomic, write_text_atomic
from xmodel2.page import page, table, tiles

PAPER_TASK = "mmlu"
"""Task of the report's Figure 4."""


def write_calibration(found: dict[str, Any], folder: Path) -> list[Path]:
    """Write what `calibrate_evaluation` found, and return the files: figures, page, JSON.

    MMLU's are calibration.*, those of another task calibration-TASK.*.
    """
    stem, name = _stem(found["task"]), str(found["model"].get("name", ""))
    figures = _figures(found)
    texts = {f"{stem}{ending}.svg": figure for ending, figure in figures.items()}
    texts[f"{stem}.html"] = page(f"Calibration of {name}", f"<h1>{escape(name)}</h1>\n{_section(found, figures)}")
    for file, text in texts.items():
        write_text_atomic(folder / file, text)
    write_json_atomic(folder / f"{stem}.json", found)  # last: where it is, the figures are
    return [*(folder / file for file in texts), folder / f"{stem}.json"]


def calibration_section(folder: Path) -> str:
    """Return the HTML of all calibrations in a folder, that of the report's Figure 4 first; empty if there are none."""
    sections = []
    for path in sorted(folder.glob("calibration*.json"), key=lambda path: path.stem):
        found = read_json(path)
        endings = ("", "-subjects") if found["parts"] else ("",)
        drawn = {ending: path.with_name(f"{path.stem}{ending}.svg").read_text(encoding="utf-8") for ending in endings}
        sections.append(_section(found, drawn))
    return "\n".join(sections)


def verdict(found: dict[str, Any]) -> str:
    """Return in one sentence how far the model's confidence is from its accuracy."""
    gap, chance = found["gap"], found["ece_by_chance"]
    means = (
        f"gives its chosen options {found['confidence']:.1%} on average and is right in {_percent(found['accuracy'])}"
    )
    if found["ece"]["value"] <= chance["high"]:
        return f"The model {means}: its calibration error is no more than a calibrated model would show by chance."
    if gap["low"] is None:
        return f"The model {means}; the items are too few, or too alike, to say more."
    if gap["low"] > 0:
        return f"The model is over-confident: it {means}."
    if gap["high"] < 0:
        return f"The model is too modest: it {means}."
    return f"The model {means}; on the whole that agrees, in single bins it does not."


def measure_rows(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return (measure, value as it is, value after temperature scaling or "") of all measures."""
    scaled = found["temperature"]
    after = _cells(scaled["after"]) if scaled else {}
    rows = [(name, value, after.get(name, "")) for name, value in _cells(found).items()]
    if scaled:
        shown = _number(scaled) if scaled["determined"] and not scaled["at_bound"] else temperature_text(scaled)
        rows.append(("temperature", "1", shown))
    return rows


def _figures(found: dict[str, Any]) -> dict[str, str]:
    """Return the SVG of each figure by the ending of its file's name."""
    figures = {"": reliability_figure(found, _title(found["task"]))}
    if found["parts"]:
        figures["-subjects"] = subjects_figure(found["parts"])
    return figures


def _section(found: dict[str, Any], figures: dict[str, str]) -> str:
    task = _title(found["task"])
    guess = found["guess"]
    headline = [
        ("expected calibration error", f"{found['ece']['value']:.3f}"),
        ("maximum calibration error", f"{found['mce']['value']:.3f}"),
        (f"Brier score ({guess['brier']:.3f} by guessing)", f"{found['brier']['value']:.3f}"),
        (f"accuracy ({guess['accuracy']:.1%} by guessing)", f"{found['accuracy']['value']:.1%}"),
        ("mean confidence", f"{found['confidence']:.1%}"),
    ]
    parts = [
        f"<h2>Calibration: {escape(task)}</h2>",
        tiles(headline),
        f"<p>{escape(verdict(found))}</p>",
        f"<figure>{figures['']}<figcaption>{_caption(found)}</figcaption></figure>",
        table(
            ("measure", "as it is", "temperature scaled"),
            measure_rows(found),
            "95% intervals in brackets; scaled: each half of the items at the temperature fitted on the other half",
        ),
        _details("Bins", _bins_table(found)),
    ]
    if found["parts"]:
        outside = sum(
            not row["accuracy"]["low"] <= row["confidence"] <= row["accuracy"]["high"]
            for row in found["parts"].values()
        )
        caption = (
            f"Accuracy and mean confidence by subject, the most over-confident on top. In {outside} of "
            f"{len(found['parts'])} the mean confidence lies outside the accuracy's interval."
        )
        parts.append(f"<figure>{figures['-subjects']}<figcaption>{caption}</figcaption></figure>")
        parts.append(_details("Subjects", _subjects_table(found["parts"])))
    return "\n".join(parts)


def _caption(found: dict[str, Any]) -> str:
    chance = found["ece_by_chance"]
    of = f" of the set's {found['of']:,}" if found["of"] not in (None, found["items"]) else ""
    return (
        f"Reliability of {found['items']:,} items{of}: how often the chosen option is right, by the probability the model gives "
        "it (softmax over the options' log-likelihoods), in ten equal bins. A calibrated model with these confidences shows "
        f"an expected calibration error of {chance['mean']:.3f} by chance, and more than {chance['high']:.3f} in one of 40 "
        "draws."
    )


def _cells(found: dict[str, Any]) -> dict[str, str]:
    low, high = found["mce"]["bin"]
    chance = found["ece_by_chance"]
    return {
        "accuracy": _percent(found["accuracy"]),
        "mean confidence": f"{found['confidence']:.1%}",
        "confidence less accuracy": _number(found["gap"], sign=True),
        "expected calibration error": _number(found["ece"]),
        "of it over-confidence": f"{found['over_confidence']:.4f}",
        "of it under-confidence": f"{found['under_confidence']:.4f}",
        "expected by chance": f"{chance['mean']:.4f} (one in 40 above {chance['high']:.4f})",
        "debiased": f"{found['ece_debiased']:.4f}",
        "in bins of equal items": f"{found['ece_adaptive']:.4f}",
        "maximum calibration error": f"{found['mce']['value']:.4f} (items from {low:g} to {high:g}: {found['mce']['items']:,})",
        "Brier score": _number(found["brier"]),
        "negative log-likelihood, nats": _number(found["nll"]),
    }


def _bins_table(found: dict[str, Any]) -> str:
    rows = []
    for row in found["bins"]:
        cells = [f"{row['bin'][0]:g} to {row['bin'][1]:g}", f"{row['items']:,}"]
        if row["items"]:
            low, high = row["interval"]
            cells += [f"{row['confidence']:.1%}", f"{row['accuracy']:.1%}", f"{low:.1%} to {high:.1%}"]
        rows.append(cells + [""] * (5 - len(cells)))
    return table(("probability", "items", "mean confidence", "accuracy", "95% (Wilson)"), rows, "As it is")


def _subjects_table(parts: dict[str, dict[str, Any]]) -> str:
    ranked = sorted(parts.items(), key=lambda item: -item[1]["gap"]["value"])
    rows = [
        (
            name,
            f"{row['items']:,}",
            _percent(row["accuracy"]),
            f"{row['confidence']:.1%}",
            _number(row["gap"], sign=True),
            f"{row['ece']['value']:.3f}",
            f"{row['ece_by_chance']['mean']:.3f}",
            f"{row['brier']['value']:.3f}",
            f"{row['nll']['value']:.3f}",
        )
        for name, row in ranked
    ]
    head = (
        "subject",
        "items",
        "accuracy",
        "confidence",
        "confidence less accuracy",
        "ECE",
        "by chance",
        "Brier",
        "nats",
    )
    return table(head, rows, "ECE of few items is large by chance: compare it with the column beside it")


def _details(summary: str, inner: str) -> str:
    return f"<details><summary>{summary}</summary>{inner}</details>"


def _percent(row: dict[str, float]) -> str:
    return f"{row['value']:.1%} [{row['low']:.1%}, {row['high']:.1%}]"


def _number(row: dict[str, Any], sign: bool = False) -> str:
    form = "+.4f" if sign else ".4f"
    if row["low"] is None:
        return f"{row['value']:{form}}"
    high = "∞)" if row["high"] is None else f"{row['high']:{form}}]"
    return f"{row['value']:{form}} [{row['low']:{form}}, {high}"


def _stem(task: str) -> str:
    return "calibration" if task == PAPER_TASK else f"calibration-{task}"


def _title(task: str) -> str:
    return TASKS[task].title if task in TASKS else task
