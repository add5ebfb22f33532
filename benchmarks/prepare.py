"""`data prepare`: MB/s a core, peak memory, and whether the cost is a straight line as the input grows.

python -m benchmarks.prepare [--quick] [--json] [--data SOURCES.toml]

With --data, the first quarter, half and all of the documents of every source of that sources file; otherwise of the
embedded corpus. Reading, deduplication (exact, MinHash, SimHash), tokenizing and sharding, without cleaning rules. Every run
is a process of its own with two workers; all use one tokenizer, whose training costs the same for any larger input.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path

import psutil

from benchmarks.harness import Result, argument_parser, machine
from xmodel2.data.embedded import embedded_corpus
from xmodel2.data.plan import find_files
from xmodel2.data.read import document_text, read_documents
from xmodel2.recipe.load import tree_to_toml
from xmodel2.recipe.preparation import load_preparation
from xmodel2.tokenizer import train_unigram

PARTS = (1, 2, 4)
WORKERS = 2


def write_parts(sources: Path | None, folder: Path, max_bytes: int) -> dict[int, int]:
    """Write a sources.toml of a quarter, half and all of the documents, and return the bytes of text of each."""
    documents: dict[str, list[dict[str, object]]] = {}
    tree: dict[str, object] = {
        "tokenizer": {"path": "../tokenizer"},
        "deduplicate": {"text": ["exact", "minhash"], "sft": ["exact", "simhash"]},
    }
    kinds: dict[str, str] = {}
    if sources is None:
        for name, texts in embedded_corpus(max_bytes // 3).items():
            documents[name], kinds[name] = [{"text": text} for text in texts], "text"
    else:
        preparation = load_preparation(sources)
        for name, source in preparation.sources.items():
            if files := [str(file) for file, *_ in find_files(sources.parent, name, source.files)]:
                documents[name], kinds[name] = list(read_documents(files, fields=source.fields)), source.kind
    sample = (document_text(document) for found in documents.values() for document in found[:200])
    train_unigram(sample, 4096, folder / "tokenizer", max_bytes=2_000_000)
    sizes = {}
    for part in PARTS:
        sizes[part] = 0
        below = folder / f"{part}x"
        tables = {}
        for name, found in documents.items():
            (below / name).mkdir(parents=True)
            chosen = found[: max(1, len(found) * part // PARTS[-1])]
            for at in range(0, len(chosen), 2000):
                lines = "".join(json.dumps(document) + "\n" for document in chosen[at : at + 2000])
                (below / name / f"{at:08d}.jsonl").write_text(lines)
            sizes[part] += sum(len(document_text(document).encode()) for document in chosen)
            tables[name] = {"files": [f"{name}/*.jsonl"], "kind": kinds[name]}
        (below / "sources.toml").write_text(tree_to_toml({**tree, "sources": tables}))
    return sizes


def run(sources: Path, out: Path) -> tuple[float, int]:
    """Prepare in a process of its own; return seconds and the largest memory of it and its workers together, in bytes."""
    command = [
        sys.executable,
        "-m",
        "xmodel2.cli",
        "data",
        "prepare",
        str(sources),
        "--out",
        str(out),
        "--workers",
        str(WORKERS),
    ]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            try:
                family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                peak = max(peak, sum(member.memory_info().rss for member in family))
            except psutil.Error:
                pass
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, errors = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(errors.decode())
    return time.perf_counter() - start, peak


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "less text")
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = write_parts(options.data, folder, 6_000_000 if options.quick else 60_000_000)
        measured = {part: run(folder / f"{part}x" / "sources.toml", folder / f"out{part}") for part in PARTS}
    lines = []
    for part, (seconds, peak) in measured.items():
        lines.append(f"{part}x: {sizes[part] / 1e6:.1f} MB in {seconds:.1f} s, peak {peak / 2**20:.0f} MiB")
    slopes = [(measured[b][0] - measured[a][0]) / (sizes[b] - sizes[a]) * 1e6 for a, b in pairwise(PARTS)]
    speed = 1 / slopes[-1] / WORKERS
    notes = "; ".join(lines) + f"; seconds a further MB: {slopes[0]:.3f} from 1x to 2x, {slopes[1]:.3f} from 2x to 4x"
    Result("prepare", machine(), speed, {}, "MB/s a core, beyond what does not grow", None, None, None, notes).show(
        options.json
    )


if __name__ == "__main__":
    main()
