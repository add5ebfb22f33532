"""Loader tokens/s beside grain, litdata and Hugging Face datasets on the same tokens.

    python -m benchmarks.loader [--quick] [--json] [--data DIR]

All deliver batches of 16 int64 rows of 4,096 tokens (peers: 4,097, so that inputs and targets are views of them) of two text
sources mixed 0.6 : 0.4 and shuffled, in one process on one core, page cache warm. Ours also delivers targets without
cross-document loss and document ids; peers are credited as they are, and the notes have equal work. `--data` adds what
packing costs on a directory of your own.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Result, argument_parser, interleaved, machine
from xmodel2.data.loader import Loader
from xmodel2.data.rows import source_rows
from xmodel2.data.shards import ShardSet, open_shards
from xmodel2.data.synthetic import repeat_shards, write_shards

LENGTH, ROWS = 4096, 16
MIXTURE = {"web": 0.6, "code": 0.4}
LIMIT = 20e6
CHUNK_ROWS = 1024
"""Rows in one of litdata's chunks, which it keeps together."""
VOCAB_SIZE = 60_000
LOG_NORMAL = {"web": (6.2, 1.0), "code": (6.8, 1.2), "sft": (5.3, 0.9)}
"""Mean and standard deviation of the logarithm of a document's tokens."""


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "less data, fewer repeats")
    parser.add_argument("--data", type=Path, help="a data directory whose packing is measured too")
    options = parser.parse_args()
    if sys.platform == "linux":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_corpus(root / "data", 8_000_000 if options.quick else 40_000_000)
        shards = open_shards(root / "data")
        runs = {"ours": ours(shards, MIXTURE), "sft": ours(shards, {"sft": 1.0})}
        masked, skipped = [], []
        for name, make in {"grain": grain_rows, "litdata": litdata_rows, "datasets": datasets_rows}.items():
            try:
                runs[name] = make(root, {source: stream(shards, source) for source in MIXTURE})
                runs[f"{name}, masked"] = map(with_masks, runs[name])
                masked.append(f"{name}, masked")
            except ImportError:
                skipped.append(name)
        batches = 20 if options.quick else 100
        timed = {name: timer(run, batches) for name, run in runs.items()}
        for run in timed.values():
            run(), run()
        speeds = interleaved(timed, 5 if options.quick else 15)
        equal = {name: speeds.pop(name) for name in masked}
        notes = [
            "peers deliver rows as they are, ours targets, document ids and padding too; with those made from their rows "
            + ", ".join(f"{name.split(',')[0]} {speed / 1e6:.0f}M" for name, speed in equal.items())
            + (f", ours {speeds['ours'] / max(equal.values()):.2f} times the best" if equal else ""),
            f"instruction data packed by best fit {speeds.pop('sft') / 1e6:.0f}M tokens/s",
            index_notes(root),
            mixture_notes(shards),
            f"log-normal documents: {packing_notes(shards)}",
            *([f"{options.data}: {packing_notes(open_shards(options.data))}"] if options.data else []),
            *[f"{name} is not installed here, skipped" for name in skipped],
        ]
    best = speeds.pop("ours")
    Result(
        name="loader",
        machine=machine(),
        ours=best,
        peers=speeds,
        unit="tokens/s",
        ratio_to_best_peer=best / max(speeds.values()) if speeds else None,
        share_of_limit=best / LIMIT,
        limit=LIMIT,
        notes="; ".join(notes),
    ).show(options.json)


def write_corpus(out: Path, tokens: int) -> None:
    """Write documents of log-normal length, ``tokens`` a text source and a tenth of it of instruction data, in 100 shards."""
    random = np.random.default_rng(0)

    def documents(name: str, wanted: int) -> Iterator[tuple[Any, Any]]:
        while wanted > 0:
            length = max(3, int(random.lognormal(*LOG_NORMAL[name])))
            ids = random.integers(3, VOCAB_SIZE, length, dtype=np.uint16)
            ids[0], ids[-1] = 1, 2
            yield ids, [0] * (length // 2) + [1] * (length - length // 2) if name == "sft" else None
            wanted -= length

    sizes = {"web": tokens, "code": tokens, "sft": tokens // 10}
    sources = {
        name: ("sft" if name == "sft" else "text", {"train": documents(name, size)}) for name, size in sizes.items()
    }
    write_shards(out, VOCAB_SIZE, sources, shard_tokens=tokens // 100)


def stream(shards: ShardSet, source: str) -> np.ndarray:
    """Return all training tokens of a source, uint16."""
    split = shards.source(source).train
    assert split is not None
    return np.concatenate([split.files["tokens"][shard] for shard in range(len(split.files["tokens"]))])


def timer(batches: Iterator[Any], count: int) -> Callable[[], float]:
    """Return what measures tokens/s over the next ``count`` batches."""

    def speed() -> float:
        started = time.perf_counter()
        for _ in range(count):
            next(batches)
        return count * ROWS * LENGTH / (time.perf_counter() - started)

    return speed


def ours(shards: ShardSet, mixture: dict[str, float]) -> Iterator[Any]:
    """Yield our batches."""
    loader = Loader(shards, [(10**9, mixture)], LENGTH, ROWS, seed=1)
    return map(loader.batch, range(10**9 // ROWS))


def with_masks(rows: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what ours delivers, made of a peer's rows: inputs, targets without a document's first token, document ids."""
    rows = np.asarray(rows)
    inputs, targets = rows[:, :-1], rows[:, 1:].copy()
    targets[targets == 1] = -100
    return inputs, targets, np.cumsum(inputs == 1, axis=1, dtype=np.int32)


def _memory_mapped(folder: Path, tokens: np.ndarray) -> np.ndarray:
    """Write rows of LENGTH + 1 tokens to a file and return its map, uint16 [rows, LENGTH + 1]."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = tokens[: len(tokens) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1)
    np.save(folder / "rows.npy", rows)
    return np.load(folder / "rows.npy", mmap_mode="r")  # type: ignore[no-any-return]


def grain_rows(root: Path, tokens: dict[str, np.ndarray]) -> Iterator[Any]:
    """Yield batches of grain's MapDataset.mix over memory-mapped rows, read in the thread that asks, cast once a batch."""
    import grain

    sources = [_memory_mapped(root / "grain" / name, tokens[name]) for name in MIXTURE]
    mixed = grain.MapDataset.mix(
        [grain.MapDataset.source(source).shuffle(seed=1).repeat() for source in sources], list(MIXTURE.values())
    )
    cast = mixed.batch(ROWS).map(lambda rows: rows.astype(np.int64))
    return iter(cast.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))


def _chunks(rows: str) -> Iterator[Any]:
    import torch

    mapped = np.load(rows, mmap_mode="r")
    for row in mapped[
        : len(mapped) // CHUNK_ROWS * CHUNK_ROWS
    ]:  # a last chunk that is not full cannot be read to its end
        yield torch.from_numpy(row.copy())


def litdata_rows(root: Path, tokens: dict[str, np.ndarray]) -> Iterator[Any]:
    """Yield batches of litdata's combined streaming of optimised token chunks, without worker processes."""
    os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = str(root / "litdata-cache")
    import litdata

    loader = litdata.TokensLoader(block_size=LENGTH + 1)
    parts = []
    for name in MIXTURE:
        _memory_mapped(root / "litdata" / name, tokens[name])
        out = str(root / "litdata" / name / "chunks")
        with _stdout_to_stderr():
            litdata.optimize(
                fn=_chunks,
                inputs=[str(root / "litdata" / name / "rows.npy")],
                output_dir=out,
                chunk_size=(LENGTH + 1) * CHUNK_ROWS,
                item_loader=loader,
                num_workers=1,
            )
        parts.append(litdata.StreamingDataset(out, item_loader=loader, shuffle=True, drop_last=True, seed=1))
    mixed = litdata.CombinedStreamingDataset(parts, weights=list(MIXTURE.values()), seed=1, iterate_over_all=False)
    batches = litdata.StreamingDataLoader(mixed, batch_size=ROWS, num_workers=0)
    return (rows.long() for rows in _forever(lambda: batches))


def datasets_rows(root: Path, tokens: dict[str, np.ndarray]) -> Iterator[Any]:
    """Yield batches of Hugging Face datasets' interleaved memory-mapped Arrow rows, as NumPy."""
    import datasets
    import pyarrow as pa

    datasets.disable_progress_bars()
    parts = []
    for name in MIXTURE:
        rows = tokens[name][: len(tokens[name]) // (LENGTH + 1) * (LENGTH + 1)]
        table = pa.table({"tokens": pa.FixedSizeListArray.from_arrays(pa.array(rows), LENGTH + 1)})
        datasets.Dataset(table).save_to_disk(str(root / "datasets" / name))
        parts.append(datasets.load_from_disk(str(root / "datasets" / name)).shuffle(seed=1))
    mixed = datasets.interleave_datasets(parts, probabilities=list(MIXTURE.values()), seed=1).with_format("numpy")
    return (
        batch["tokens"].astype(np.int64, copy=False)
        for batch in _forever(lambda: mixed.iter(batch_size=ROWS, drop_last_batch=True))
    )


def _forever(epoch: Callable[[], Any]) -> Iterator[Any]:
    while True:
        yield from epoch()


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Let what other processes print go to standard error: the last line of standard output is ours."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


_PROBE = """
import json, sys, time
from pathlib import Path
from xmodel2.data.shards import open_shards
from xmodel2.data.loader import Loader
started = time.perf_counter()
loader = Loader(open_shards(Path(sys.argv[1])), [(10**7, {"web": 0.6, "code": 0.4})], 4096, 16, seed=1)
loader.batch(0)
first = time.perf_counter() - started
for step in range(0, 500_000, 1000):
    loader.batch(step)
status = Path("/proc/self/status")
lines = dict(line.split(":", 1) for line in status.read_text().splitlines()) if status.exists() else {}
size = {key: int(lines[name].split()[0]) // 1024 for key, name in (("peak", "VmHWM"), ("own", "RssAnon")) if name in lines}
print(json.dumps({"first": first, **size}))
"""


def index_notes(root: Path) -> str:
    """Return time to the first batch and memory with 100 and with 10,000 shards a source, medians of three processes."""
    found = []
    for times in (1, 100):
        repeat_shards(root / "data", times)
        probes = [json.loads(subprocess.check_output([sys.executable, "-c", _PROBE, root / "data"])) for _ in range(3)]
        found.append({key: statistics.median(probe[key] for probe in probes) for key in probes[0]})
    small, large = found
    memory = (
        f"peak resident memory {small['peak']} MiB at 100 and {large['peak']} MiB at 10,000 shards"
        f" (not file pages, after 500 batches: {small['own']} and {large['own']})"
        if "peak" in small
        else "memory not measured on this system"
    )
    return f"first batch {large['first']:.2f} s with 10,000 shards a source in the index; {memory}"


def mixture_notes(shards: ShardSet) -> str:
    """Return the largest difference of asked and realised shares after 1M tokens, ours and grain's, in points."""
    found = []
    for length in (256, LENGTH):
        rows = 1_000_000 // length
        loader = Loader(shards, [(rows, MIXTURE)], length, 1, seed=1)
        realised = loader.realised(0)
        text = f"rows of {length}: ours {_worst({n: t / (rows * length) for n, t in realised.items()}):.3f}"
        try:
            import grain

            names = list(MIXTURE)
            parts = [grain.MapDataset.source([name]).repeat() for name in names]
            mixed = grain.MapDataset.mix(parts, list(MIXTURE.values()))
            taken = [mixed[row] for row in range(rows)]
            text += f", grain {_worst({name: taken.count(name) / rows for name in names}):.3f}"
        except ImportError:
            pass
        found.append(text)
    return f"points of mixture error after 1M tokens: {'; '.join(found)}"


def _worst(shares: dict[str, float]) -> float:
    return max(abs(100 * shares[name] - 100 * asked) for name, asked in MIXTURE.items())


def packing_notes(shards: ShardSet) -> str:
    """Return padding, and documents cut, of both packings in rows of LENGTH, by source."""
    found = []
    for name, source in shards.sources.items():
        if source.train is None:
            continue
        fit, cut = (source_rows(name, source, LENGTH, 0, packing) for packing in ("best_fit", "concatenate"))  # type: ignore[arg-type]
        found.append(
            f"{name} best fit pads {1 - fit.mean_tokens / LENGTH:.2%} and cuts {fit.cut_share():.1%} of documents,"
            f" concatenation pads 0% and cuts {cut.cut_share():.1%}"
        )
    return "; ".join(found)


if __name__ == "__main__":
    main()
