"""MB of text a second and core: `Tokenizer.encode_batch` beside plain `tokenizers` and SentencePiece, on the same texts.

    python -m benchmarks.tokenize [--quick] [--json] [--data DIR] [--tokenizer DIR]

All encode batches of 256 documents to lists of ids on one thread. Without `--data` the texts are what this machine has
(data/embedded.py); without `--tokenizer` one of 8,192 pieces is trained on them. The ids must equal those of `tokenizers`, or it
exits 1. The notes tell how two processes scale, beside two that only count (a busy machine gives neither two cores), and time and
memory of one long line and of one ten times as long.
"""

import os

os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers

from benchmarks.harness import Result, argument_parser, interleaved, machine
from xmodel2.data.embedded import embedded_corpus
from xmodel2.data.read import SUFFIXES, document_text, read_documents
from xmodel2.tokenizer import Tokenizer, load_tokenizer, sample_texts, train_unigram

Batches = list[list[str]]
_BATCH = 256


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "less text, shorter lines")
    parser.add_argument("--data", type=Path, help="folder of .jsonl, .jsonl.gz, .jsonl.zst or .txt files")
    parser.add_argument("--tokenizer", type=Path, help="directory; default: one trained on embedded text")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = options.tokenizer or Path(folder)
        if not options.tokenizer:
            train_unigram(embedded_corpus(1_000_000), 8192, directory, max_bytes=3_000_000)
        texts = _texts(options.data, 2_000_000 if options.quick else 16_000_000)
        batches = [texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH)]
        size = sum(len(text.encode()) for text in texts) / 1e6
        runs = _runs(directory, batches)
        equal = runs["ours"]() == runs["tokenizers encode_batch"]()
        repeats = 5 if options.quick else 7
        speeds = interleaved({name: _timed(run, size) for name, run in runs.items()}, repeats)
        scaling, possible = _scaling(directory, texts, 0.3 if options.quick else 2.0, repeats)
        lines = [_line(directory, texts, megabytes) for megabytes in ((2, 20) if options.quick else (10, 100))]
        ours, arrays = speeds.pop("ours"), speeds.pop("ours, arrays")
    Result(
        name="tokenize",
        machine=machine(),
        ours=ours,
        peers=speeds,
        unit="MB/s a core",
        ratio_to_best_peer=ours / max(speeds.values()),
        share_of_limit=None,
        limit=None,
        notes=f"{len(texts)} documents, {size:.1f} MB; ids {'equal' if equal else 'DIFFER FROM'} plain tokenizers'; "
        f"arrays instead of lists {arrays:.1f} MB/s; two processes encode {scaling:.2f} times as much as one "
        f"(counting: {possible:.2f} times); "
        + ", ".join(f"a line of {mb:.0f} MB: {seconds:.2f} s, {peak:.0f} MB of memory" for mb, seconds, peak in lines),
    ).show(options.json)
    sys.exit(0 if equal else 1)


def _texts(data: Path | None, max_bytes: int) -> list[str]:
    """Whole documents, of each file or source the same bytes at most."""
    if data is None:
        return [text for texts in embedded_corpus(max_bytes // 3).values() for text in texts]
    files = sorted(path for path in data.rglob("*") if path.name.endswith(SUFFIXES))
    texts: list[str] = []
    for file in files:
        left = max_bytes // len(files)
        for document in read_documents([file]):
            texts.append(document_text(document))
            left -= len(texts[-1].encode())
            if left <= 0:
                break
    return texts


def _runs(directory: Path, batches: Batches) -> dict[str, Callable[[], list[Any]]]:
    ours = load_tokenizer(directory)
    fast = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    fast.encode_special_tokens = True
    model = sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))

    def plain(encode: Callable[..., Sequence[Any]]) -> list[list[int]]:
        return [encoding.ids for batch in batches for encoding in encode(batch, add_special_tokens=False)]

    return {
        "ours": lambda: [ids for batch in batches for ids in ours.encode_batch(batch)],
        "ours, arrays": lambda: [ids for batch in batches for ids in ours.encode_arrays(batch)],
        "tokenizers encode_batch": lambda: plain(fast.encode_batch),
        "tokenizers encode_batch_fast": lambda: plain(fast.encode_batch_fast),
        "SentencePiece": lambda: [ids for batch in batches for ids in model.encode(batch, num_threads=1)],
    }


def _timed(run: Callable[[], object], size: float) -> Callable[[], float]:
    def speed() -> float:
        started = time.perf_counter()
        run()
        return size / (time.perf_counter() - started)

    return speed


def _scaling(directory: Path, texts: list[str], seconds: float, repeats: int) -> tuple[float, float]:
    """What two processes encode over what one does, and the same of counting; medians of interleaved runs."""
    with multiprocessing.get_context("spawn").Pool(2, _load, (directory, texts)) as pool:

        def total(work: Callable[[float], float], processes: int) -> Callable[[], float]:
            return lambda: sum(pool.map(work, [seconds] * processes, chunksize=1))

        total(_encode_for, 2)()
        runs = {(work, count): total(work, count) for work in (_encode_for, _count_for) for count in (1, 2)}
        speeds = interleaved({f"{work.__name__} {count}": run for (work, count), run in runs.items()}, repeats)
    return speeds["_encode_for 2"] / speeds["_encode_for 1"], speeds["_count_for 2"] / speeds["_count_for 1"]


_worker: tuple[Tokenizer, list[str]]


def _load(directory: Path, texts: list[str]) -> None:
    global _worker
    _worker = load_tokenizer(directory), texts


def _encode_for(seconds: float) -> float:
    """Encode for a while and return MB a second."""
    tokenizer, texts = _worker
    started, size, position = time.perf_counter(), 0, 0
    while (passed := time.perf_counter() - started) < seconds:
        batch = texts[position : position + _BATCH]
        tokenizer.encode_batch(batch)
        size += sum(map(len, batch))
        position = position + _BATCH if position + _BATCH < len(texts) else 0
    return size / passed / 1e6


def _count_for(seconds: float) -> float:
    started, rounds = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        rounds += sum(range(1000)) > 0
    return rounds / seconds


def _line(directory: Path, texts: list[str], megabytes: int) -> tuple[float, float, float]:
    """Return MB, seconds and peak memory (MB, above what the process had) of encoding one line, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_encode_line, (directory, texts, megabytes))


def _encode_line(directory: Path, texts: list[str], megabytes: int) -> tuple[float, float, float]:
    tokenizer = load_tokenizer(directory)
    unit = " ".join(sample_texts({"texts": texts}, 1_000_000)).replace("\n", " ")
    line = unit * (1 + megabytes * 1_000_000 // len(unit.encode()))
    tokenizer.encode("start")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    tokenizer.encode_arrays([line])
    seconds = time.perf_counter() - started
    return len(line.encode()) / 1e6, seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3


if __name__ == "__main__":
    main()
