"""What a preparation read, removed and kept, by source and rule, with samples of what was removed."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xmodel2.data.clean import SAMPLES
from xmodel2.data.decontaminate import load_index
from xmodel2.data.document import document_text
from xmodel2.data.plan import Plan
from xmodel2.data.shard_writer import COUNTS
from xmodel2.data.step_clean import BENCHMARKS_FILE, read_clean
from xmodel2.data.step_deduplicate import document_starts, exact_copies

_NEAR_SAMPLES = 2  # pairs of near-duplicates shown of each source
_SAMPLE_CHARACTERS = 300
_LISTED = 200  # contaminated documents, and skipped records, of a source that are listed


def build_report(plan: Plan, work: Path, index: dict[str, Any], every: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the report of a preparation whose steps are done, from the account of every task."""
    duplicates = _duplicates(plan, work)
    sources = {}
    for name, entry in index["sources"].items():
        accounts = [every[n] for n in plan.source_tasks(name)]
        sources[name] = {
            **{key: entry[key] for key in ("kind", "stage", "weight", "language", "licence")},
            "read": _added([account["read"] for account in accounts]),
            "skipped": _added([account["skipped"] for account in accounts]),
            "skipped_records": [record for account in accounts for record in account["skipped_records"]][:_LISTED],
            **{key: _added_by_rule([account[key] for account in accounts]) for key in ("removed", "changed")},
            "removed_samples": _joined([account["samples"] for account in accounts]),
            "contaminated": _added([account["contaminated"] for account in accounts]),
            "contaminated_documents": [d for account in accounts for d in account["contaminated_documents"]][:_LISTED],
            "duplicates": duplicates[name],
            **{split: {key: entry["splits"][split][key] for key in COUNTS} for split in ("train", "heldout")},
        }
    benchmarks = load_index(work / BENCHMARKS_FILE).coverage() if (work / BENCHMARKS_FILE).exists() else {}
    return {"tokenizer": index["tokenizer"], "benchmarks": benchmarks, "sources": sources}


def contaminated_documents(accounts: Sequence[dict[str, Any]]) -> str:
    """Return a JSON line for each document that held benchmark items: source, place, items, and its beginning."""
    return "".join(
        json.dumps({"source": account["source"], **document}) + "\n"
        for account in accounts
        for document in account["contaminated_documents"]
    )


def _duplicates(plan: Plan, work: Path) -> dict[str, dict[str, Any]]:
    """Return for each source how many documents went, exact and near, whose copies they were, and samples."""
    starts, stay = document_starts(work), np.load(work / "stay.npy")
    exact = exact_copies(plan, work)
    task_of = np.repeat(np.arange(len(plan.tasks)), np.diff(starts))
    [gone] = np.nonzero(stay != np.arange(len(stay)))
    result: dict[str, dict[str, Any]] = {}
    for name in plan.preparation.sources:
        here = gone[np.isin(task_of[gone], plan.source_tasks(name))]
        near = here[~exact[here]]
        kept_in = Counter(plan.tasks[task_of[document]].source for document in stay[here])
        shown = [(int(document), int(stay[document])) for document in near[:_NEAR_SAMPLES]]
        result[name] = {
            "exact": int(exact[here].sum()),
            "near": len(near),
            "kept_in": dict(kept_in.most_common()),
            "samples": [
                {"removed": _text(work, starts, task_of, a), "kept": _text(work, starts, task_of, b)} for a, b in shown
            ],
        }
    return result


def _text(work: Path, starts: np.ndarray, task_of: np.ndarray, document: int) -> str:
    task = int(task_of[document])
    wanted = document - int(starts[task])
    text = next(document_text(found) for at, found in enumerate(read_clean(work, task)) if at == wanted)
    return text[:_SAMPLE_CHARACTERS]


def _added(counts: list[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total.most_common())


def _added_by_rule(counts: list[dict[str, dict[str, int]]]) -> dict[str, dict[str, int]]:
    rules = dict.fromkeys(rule for count in counts for rule in count)
    return {rule: _added([count.get(rule, {}) for count in counts]) for rule in rules}


def _joined(samples: list[dict[str, list[dict[str, str]]]]) -> dict[str, list[dict[str, str]]]:
    rules = dict.fromkeys(rule for sample in samples for rule in sample)
    return {rule: [one for sample in samples for one in sample.get(rule, [])][:SAMPLES] for rule in rules}
