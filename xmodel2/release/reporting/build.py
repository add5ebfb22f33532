"""The report: one self-contained HTML page of a run, or of several side by side, and of what searches found.

    run directories --Recorded, results, evaluation/, scaling/--> sections --shell--> report.html
    folders of search, transfer, ratio, law, ablate, peer --------^

What is not there is said in a line; what is damaged costs its own section, which says so.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from html import escape
from pathlib import Path
from urllib.parse import quote

from xmodel2.errors import XmodelError
from xmodel2.files import write_text_atomic
from xmodel2.page import printable
from xmodel2.release.quantising.table import quantising_section
from xmodel2.release.reporting.agents import agents_section
from xmodel2.release.reporting.claims import claims_section
from xmodel2.release.reporting.comparisons import comparison_sections
from xmodel2.release.reporting.curves import curves_section
from xmodel2.release.reporting.environment import environment_section
from xmodel2.release.reporting.faults import told, told_sections
from xmodel2.release.reporting.measured import (
    benchmark_sections,
    calibration_sections,
    compared,
    heldout_sections,
    test_time_sections,
)
from xmodel2.release.reporting.mixtures import mixture_sections
from xmodel2.release.reporting.model_table import model_section
from xmodel2.release.reporting.overview import overview_section
from xmodel2.release.reporting.runs import ReportedRun, open_runs
from xmodel2.release.reporting.samples import samples_section
from xmodel2.release.reporting.section import Section
from xmodel2.release.reporting.shell import report_page
from xmodel2.release.reporting.wind_tunnel import wind_tunnel_sections
from xmodel2.train.environment import ENVIRONMENT_FILE
from xmodel2.train.metrics import METRICS_FILE
from xmodel2.train.run_dir import RECIPE_FILE

QUANTIZED = "quantized"
"""Where `xmodel2 quantize` writes in a run."""
_UNREAD = {"checkpoints", "tensorboard", "tokenizer", "figures"}
"""Folders of a run that the report does not read."""


_File = tuple[str, int, float]
"""What changes when a file does: path, bytes, time of change."""


def build_report(paths: Sequence[Path], out: Path) -> Path:
    """Write ``out`` and return it. Raises `XmodelError` if a folder is neither a run directory nor one of a search."""
    return Report(paths, out).write()


class Report:
    """The page of some folders, to be written once or again and again: what has not changed is not made again."""

    def __init__(self, paths: Sequence[Path], out: Path) -> None:
        """Open the folders. Raises as `build_report`."""
        self.out = Path(out)
        self._folders = list(dict.fromkeys(map(Path, paths)))
        found = {folder: _studies(folder) for folder in self._folders}
        self._studies = [section for sections in found.values() for section in sections]
        self.runs = open_runs([folder for folder in self._folders if not found[folder]])
        self._known: list[_File] = self._files()
        self._made_of: list[_File] | None = None
        self._around: tuple[list[Section], list[Section]] = ([], [])

    def read_on(self) -> bool:
        """Read what was added to the runs; tell whether anything changed."""
        grown = [run.recorded.read_on() for run in self.runs]
        before, self._known = self._known, self._files()
        return self._known != before or any(grown)

    def write(self, live: str = "") -> Path:
        """Write the page and return its path; ``live``: the line of a page that follows its run and loads itself again."""
        files = self._files()
        if files != self._made_of or not live:
            self._around, self._made_of = self._unhurried(), files
        before, after = self._around
        summary = self._tried(lambda: overview_section(self.runs) if self.runs else None, "summary", "Summary")
        curves = self._tried(lambda: curves_section(self.runs, bool(live)), "curves", "Training curves")
        sections = _unique([*summary, *curves, *before, *self._studies, *after])
        names = " and ".join(run.label for run in self.runs) or self._studies[0].title
        where = "".join(f"{escape(printable(str(run.path)))} · " for run in self.runs)
        made = time.strftime("%Y-%m-%d %H:%M")
        top = f'<h1>{escape(names)}</h1><p class="sub">{where}report of {made}</p>'
        write_text_atomic(self.out, report_page(f"Xmodel-2 report: {names}", top, sections, live))
        return self.out

    def _unhurried(self) -> tuple[list[Section], list[Section]]:
        """Return the sections before and after those of searches: all that does not change with every step."""
        benchmarks = self._of_runs("Benchmarks", benchmark_sections)
        if benchmarks and len(self.runs) > 1:
            first = benchmarks[0]
            benchmarks[0] = Section(
                first.anchor, first.title, told(partial(compared, self.runs), self.out) + first.body
            )
        after = [
            *self._of_runs("Held-out text and questions", heldout_sections),
            *benchmarks,
            *self._of_runs("Calibration (Figure 4)", calibration_sections),
            *self._of_runs("Test-time scaling law (Figure 5)", test_time_sections),
            *self._of_runs("Agent transcripts", lambda run: _some(agents_section(run.path)), "evaluation"),
            *self._of_runs("Samples over training", lambda run: _some(samples_section(run.recorded))),
            *self._of_runs("Quantisation", lambda run: _some(quantising_section(run.path / QUANTIZED)), QUANTIZED),
            *([model_section(self.runs)] if self.runs else []),
            *self._of_runs(
                "Environment and recipe", lambda run: _some(environment_section(run.path)), ENVIRONMENT_FILE
            ),
            *self._tried(lambda: claims_section(self._folders), "claims", "Claims"),
        ]
        return self._of_runs("Mixtures", mixture_sections), after

    def _tried(self, make: Callable[[], Section | None], anchor: str, title: str) -> list[Section]:
        """Return the section about all folders, if there is one."""
        return told_sections(lambda: _some(make()), self._folders[0], anchor, title)

    def _of_runs(self, title: str, make: Callable[[ReportedRun], list[Section]], reads: str = "") -> list[Section]:
        """Return a section for all runs: its body, or of several runs one below the other under their names.

        ``reads``: what ``make`` reads of a run, named if it is damaged.
        """
        found: dict[str, list[tuple[ReportedRun, Section]]] = {}
        for run in self.runs:
            for section in told_sections(partial(make, run), run.path / reads, title.split()[0].lower(), title):
                found.setdefault(section.anchor, []).append((run, section))
        return [self._joined(parts) for parts in found.values()]

    def _joined(self, parts: list[tuple[ReportedRun, Section]]) -> Section:
        """Return the parts of a section as one, with links to a run's files as seen from the page."""
        bodies = []
        for run, section in parts:
            folder = quote(Path(os.path.relpath(run.path.resolve(), self.out.parent.resolve())).as_posix())
            body = (
                section.body
                if folder == "."
                else section.body.replace('href="evaluation/', f'href="{folder}/evaluation/')
            )
            bodies.append(body if len(self.runs) == 1 else f'<h3 class="of">{escape(run.label)}</h3>{body}')
        return Section(parts[0][1].anchor, parts[0][1].title, "\n".join(bodies))

    def _files(self) -> list[_File]:
        """Return what changes when the page around the curves does: files, and the samples that metrics.jsonl holds."""
        own = {str(self.out.resolve()), *(str(run.recorded.path.resolve()) for run in self.runs)}
        files = sorted(file for run in self.runs for file in _files_read(run.path.resolve()) if file[0] not in own)
        return files + [(run.label, len(run.recorded.lines("samples")), 0.0) for run in self.runs]


def _files_read(run_dir: Path) -> Iterator[_File]:
    """Yield the files that the report may read."""
    for folder, below, names in os.walk(run_dir):
        below[:] = [name for name in below if name not in _UNREAD and not name.startswith(".")]
        for path in (os.path.join(folder, name) for name in names if not name.startswith(".")):
            with suppress(FileNotFoundError):  # it went while we looked
                status = os.stat(path)
                yield path, status.st_size, status.st_mtime


def _some(section: Section | None) -> list[Section]:
    return [section] if section else []


def _studies(folder: Path) -> list[Section]:
    """Return what a search or its like found in a folder, nothing for a run. Raises `XmodelError` for another folder."""
    if not folder.is_dir():
        raise XmodelError(
            f"{folder}: no such folder; give a run directory, or a folder of search, transfer, ratio, law, ablate, peer or"
            " quantize"
        )
    name = printable(folder.resolve().name)

    def found() -> list[Section]:
        sections = [*wind_tunnel_sections(folder), *comparison_sections(folder), *_some(quantising_section(folder))]
        return list(dict.fromkeys(sections))  # two parts rest on one file, and both tell that it is damaged

    if sections := told_sections(found, folder, "damaged", name):
        return sections
    if (folder / "state.json").exists():
        raise XmodelError(f"{folder}: is a checkpoint; give its run, {folder.resolve().parents[1]}")
    if (folder / "config.json").exists():
        raise XmodelError(f"{folder}: is an exported model; give the run that it is of")
    if not (folder / RECIPE_FILE).exists():
        below = next((path.parent for path in sorted(folder.glob(f"*/{METRICS_FILE}"))), None)
        hint = f"; did you mean {below}?" if below else ""
        raise XmodelError(f"{folder}: not a run directory (no {RECIPE_FILE}), nor the folder of a search{hint}")
    return []


def _unique(sections: Sequence[Section]) -> list[Section]:
    """Return the sections with a number behind an anchor that came before."""
    seen: dict[str, int] = {}
    result = []
    for section in sections:
        seen[section.anchor] = seen.get(section.anchor, 0) + 1
        number = "" if seen[section.anchor] == 1 else f"-{seen[section.anchor]}"
        result.append(Section(section.anchor + number, section.title, section.body))
    return result
