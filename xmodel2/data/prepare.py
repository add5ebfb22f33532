"""Raw documents to the data directory: every step over all tasks, on one machine or many.

    sources.toml -> plan -> clean (a task of files each) -> tables (a task each) -> which documents stay
                 -> tokenizer, from a sample of them -> tokenize (a task of files each) -> index.json -> DIR

All of it lies in a work folder until it is whole, and then takes DIR's place; a preparation that was stopped, by whatever,
goes on from the tasks that are finished when the same command is given again.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from xmodel2.data.decontaminate import build_index, read_benchmarks
from xmodel2.data.deduplicate import tables
from xmodel2.data.document import document_text
from xmodel2.data.executors import Cluster, Progress, TaskRunner
from xmodel2.data.mixture_file import MIXTURE_FILE, mixture_toml, stage_shares
from xmodel2.data.plan import Plan, make_plan
from xmodel2.data.preparation_report import build_report, contaminated_documents
from xmodel2.data.questions import write_questions
from xmodel2.data.shard_writer import COUNTS
from xmodel2.data.shards import write_index
from xmodel2.data.step_clean import BENCHMARKS_FILE, CleanStep, read_account
from xmodel2.data.step_deduplicate import TableStep, document_starts, number_documents, settle
from xmodel2.data.step_tokenize import TokenizeStep, staying_documents, token_dtype
from xmodel2.data.work_folder import check_apart, open_work_folder, work_path
from xmodel2.errors import XmodelError
from xmodel2.files import (
    check_folder,
    is_local,
    mark_folder,
    publish_folder,
    write_json_atomic,
    write_text_atomic,
)
from xmodel2.recipe.preparation import load_preparation
from xmodel2.tokenizer import TRAINERS, load_tokenizer

COMMAND = "data prepare"
REPORT_FILE, CONTAMINATED_FILE = "report.json", "contaminated.jsonl"


@dataclass(frozen=True)
class Options:
    """How a preparation is done."""

    strict: bool = False
    """A record that is no document is an error, not a counted skip."""
    overwrite: bool = False
    """Replace an earlier data directory."""
    cluster: Cluster = field(default_factory=Cluster)
    """Where tasks are done."""
    work: Path | None = None
    """Work folder, which all machines see; by default beside the data directory."""
    shard_tokens: int = 1 << 27
    """Tokens after which a shard is full."""


def prepare(path: Path, out: Path, options: Options | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Prepare what a sources file names, and return the report.

    Raises `XmodelError` naming the file, key or record that is wrong; what was in ``out`` before is then still there.
    """
    path, name, options = Path(path), str(out), options or Options()
    out = Path(out).resolve() if is_local(out) else out
    preparation = load_preparation(path)
    check_folder(out, options.overwrite, COMMAND)
    plan = make_plan(path, preparation)
    work = work_path(out, options.work)
    check_apart(path, plan, out, work)
    work.parent.mkdir(parents=True, exist_ok=True)
    lock = work.with_name(f"{work.name}.lock")
    try:
        with FileLock(lock, timeout=0):
            report = _prepare(plan, out, work, name, options, progress)
    except Timeout:
        if not lock.exists():  # that it could not be made is told alike
            raise XmodelError(
                f"{work}: {work.parent} takes no files, or another `xmodel2 {COMMAND}` has just ended there; try again, or choose"
                " another --out"
            ) from None
        raise XmodelError(
            f"{work}: another `xmodel2 {COMMAND}` works there; wait for it, or choose another --out"
        ) from None
    lock.unlink(missing_ok=True)
    return report


def _prepare(
    plan: Plan, out: Path, work: Path, name: str, options: Options, progress: Progress | None
) -> dict[str, Any]:
    preparation = plan.preparation
    open_work_folder(work, {"plan": plan.fingerprint, "strict": options.strict, "shard_tokens": options.shard_tokens})
    if preparation.decontaminate.dirs:
        _index_benchmarks(plan, work)
    with TaskRunner(work, options.cluster, progress) as runner:
        runner.run("clean", CleanStep(plan, work, options.strict), len(plan.tasks))
        number_documents(plan, work)
        runner.run("deduplicate", TableStep(plan, work), len(tables(preparation.deduplicate)))
        settle(plan, work)
        _check_sources(plan, work)
        _tokenizer(plan, work, progress)
        runner.run("tokenize", TokenizeStep(plan, work, options.shard_tokens), len(plan.tasks))
    index = _index(plan, work)
    accounts = [read_account(work, number) for number in range(len(plan.tasks))]
    report = build_report(plan, work, index, accounts)
    write_json_atomic(work / "out" / REPORT_FILE, report)
    write_text_atomic(work / "out" / CONTAMINATED_FILE, contaminated_documents(accounts))
    write_text_atomic(work / "out" / MIXTURE_FILE, mixture_toml(index, name))
    for leftover in (work / "out").rglob(".*.tmp"):  # of a worker that was killed
        leftover.unlink()
    write_index(work / "out", index)
    mark_folder(work / "out", COMMAND)
    check_folder(out, options.overwrite, COMMAND)  # again: it may have come to be in the meantime
    publish_folder(work / "out", out)
    shutil.rmtree(work)
    return report


def _index_benchmarks(plan: Plan, work: Path) -> None:
    settings = plan.preparation.decontaminate
    if not (work / BENCHMARKS_FILE).exists():
        build_index(read_benchmarks(Path(plan.root) / name for name in settings.dirs), settings).save(
            work / BENCHMARKS_FILE
        )


def _check_sources(plan: Plan, work: Path) -> None:
    """Raise if a source that should be trained on has nothing left."""
    starts, stay, heldout = document_starts(work), np.load(work / "stay.npy"), np.load(work / "heldout.npy")
    left = (stay == np.arange(len(stay))) & ~heldout
    for name, source in plan.preparation.sources.items():
        tasks = plan.source_tasks(name)
        if source.resolved_stage == "evaluation" or any(left[starts[n] : starts[n + 1]].any() for n in tasks):
            continue
        accounts = [read_account(work, n) for n in tasks]
        skipped = [record for account in accounts for record in account["skipped_records"]]
        total = sum(sum(account["skipped"].values()) for account in accounts)
        detail = f" ({total} records were skipped, the first: {skipped[0]})" if skipped else ""
        read = sum(account["read"].get("documents", 0) for account in accounts)
        removed = {rule: counts for account in accounts for rule, counts in account["removed"].items()}
        clean = sum(account["clean"]["documents"] for account in accounts)
        raise XmodelError(
            f"{COMMAND}: source {name} has no training document left{detail}; of {read} read, cleaning and decontamination"
            f" left {clean}, deduplication and holding out none. Removed: {json.dumps(removed)}. Loosen its rules, or leave it out"
        )


def _tokenizer(plan: Plan, work: Path, progress: Progress | None) -> None:
    """Copy or train the tokenizer, unless that is done."""
    show = progress or (lambda *_: None)
    show("tokenizer", 0, 1)
    _make_tokenizer(plan, work)
    show("tokenizer", 1, 1)


def _make_tokenizer(plan: Plan, work: Path) -> None:
    folder, settings = work / "out" / "tokenizer", plan.preparation.tokenizer
    if (folder / "tokenizer.json").exists():
        return
    if settings.path is not None:
        tokenizer = load_tokenizer(Path(plan.root) / settings.path)
        beside = folder.with_name("tokenizer.tmp")
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(tokenizer.directory, beside, ignore=_not_of_a_tokenizer)
        beside.rename(folder)
        return
    texts = {name: _training_texts(plan, work, name) for name in plan.preparation.sources}
    TRAINERS[settings.algorithm](
        texts, int(settings.vocab_size or 0), folder, shares=_sample_shares(plan), max_bytes=settings.sample_bytes
    )


def _not_of_a_tokenizer(folder: str, names: list[str]) -> list[str]:
    """Return what is not copied with a tokenizer: whatever else a model's folder has."""
    return [name for name in names if not name.startswith(("tokenizer", "special_tokens", "chat_template"))]


def _training_texts(plan: Plan, work: Path, name: str) -> Iterator[str]:
    for number in plan.source_tasks(name):
        if not plan.tasks[number].heldout:
            for document in staying_documents(work, number):
                if not document["heldout"]:
                    yield document_text(document)


def _sample_shares(plan: Plan) -> dict[str, float] | None:
    """Return each source's share of the tokenizer's sample: its part of both stages; None if weights are missing."""
    sources = plan.preparation.sources
    if any(source.weight is None for source in sources.values() if source.resolved_stage != "evaluation"):
        return None
    entries = {name: {"stage": source.resolved_stage, "weight": source.weight} for name, source in sources.items()}
    shares = stage_shares({"sft_share": plan.preparation.sft_share, "sources": entries})
    return {name: sum(share.get(name, 0.0) for share in shares.values()) for name in sources}


def _index(plan: Plan, work: Path) -> dict[str, Any]:
    """Put the tasks' parts together and return the index."""
    tokenizer = load_tokenizer(work / "out" / "tokenizer")
    entries: dict[str, Any] = {}
    for name, source in plan.preparation.sources.items():
        parts = [
            json.loads((work / "tokens" / f"{n:05d}.json").read_text(encoding="utf-8")) for n in plan.source_tasks(name)
        ]
        splits = {split: _summed([part["splits"][split] for part in parts]) for split in ("train", "heldout")}
        questions = [question for part in parts for question in part["questions"]]
        entries[name] = {
            "kind": source.kind,
            "stage": source.resolved_stage,
            "weight": source.weight,
            "language": source.language,
            "licence": source.licence,
            "splits": splits,
            **({"questions": write_questions(work / "out" / name, questions)} if questions else {}),
        }
    return {
        "format": 1,
        "dtype": token_dtype(tokenizer),
        "tokenizer": {"fingerprint": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size},
        "sft_share": plan.preparation.sft_share,
        "sources": entries,
    }


def _summed(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        **{key: sum(part[key] for part in parts) for key in COUNTS},
        "shards": [shard for part in parts for shard in part["shards"]],
    }
