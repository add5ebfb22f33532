"""Commands on corpora and token shards."""

from pathlib import Path
from typing import Literal

import tyro

from xmodel2.arguments import Flag, key_values
from xmodel2.cores import usable_cores
from xmodel2.errors import XmodelError
from xmodel2.files import as_path
from xmodel2.output import busy, print_dict, print_inspection, print_json, print_sources, progress_bars


def data_starter(*, out: Path, vocab_size: int = 8192, overwrite: Flag = False) -> None:
    """Write a corpus to start with, from what this machine already has: text, and questions with answers.

    Example: xmodel2 data starter --out corpus && xmodel2 data prepare corpus/sources.toml --out data

    Args:
        out: folder to write
        vocab_size: pieces of the tokenizer that its sources.toml asks for
        overwrite: replace what is in the folder
    """
    from xmodel2.data.starter import write_starter_corpus

    with busy("collecting text and making questions"):
        counts = write_starter_corpus(out, vocab_size=vocab_size, overwrite=overwrite)
    print_dict(counts, as_json=False)


def data_prepare(
    sources: tyro.conf.Positional[Path],
    /,
    *,
    out: str,
    strict: Flag = False,
    overwrite: Flag = False,
    workers: int | None = None,
    executor: Literal["local", "ray", "slurm"] = "local",
    slurm: tuple[str, ...] = (),
    work: Path | None = None,
    json: Flag = False,
) -> None:
    """Raw documents to cleaned, deduplicated, decontaminated, tokenized, checksummed shards; goes on where it was stopped.

    Example: xmodel2 data prepare sources.toml --out data/nano

    Args:
        sources: TOML file that names tokenizer, sources and rules (docs/data.md)
        out: directory to write, or URL of an object store
        strict: stop at the first malformed record instead of skipping and counting
        overwrite: replace what is in the directory
        workers: tasks at once (default: one a core)
        executor: where tasks are done
        slurm: partition=NAME time=HH:MM:SS and other arguments of datatrove's Slurm executor
        work: folder for what is half done, on a file system that all machines see (default: beside --out)
        json: print the report as one JSON object
    """
    from xmodel2.data.executors import Cluster
    from xmodel2.data.prepare import Options, prepare

    if workers is not None and workers < 1:
        raise XmodelError(f"--workers {workers}: must be at least 1")
    cluster = Cluster(executor, workers or usable_cores(), key_values("slurm", slurm))
    with progress_bars() as show:
        report = prepare(sources, as_path(out), Options(strict, overwrite, cluster, work), show)
    if json:
        return print_json(report)
    print_sources(report["sources"])


def data_inspect(
    dir: tyro.conf.Positional[str],
    /,
    samples: int = 1,
    out: Path | None = None,
    cache_dir: str = "",
    json: Flag = False,
) -> None:
    """Counts, shares and lengths of every source, Figure 2's two pies, and a page of samples and of what was removed.

    Example: xmodel2 data inspect data/nano --samples 3

    Args:
        dir: directory made by `data prepare`
        samples: documents shown of each source
        out: folder for the page and the figures (default: inspect/ in the directory)
        cache_dir: folder that files of an object store are copied to
        json: print one JSON object, and write nothing unless --out is given
    """
    from xmodel2.data.inspect import inspect_data
    from xmodel2.data.inspect_page import write_inspection

    report = inspect_data(dir, samples, cache_dir=cache_dir)
    written = write_inspection(report, out or as_path(dir) / "inspect") if out or not json else []
    if json:
        return print_json(report)
    print_inspection(report["sources"])
    print(f"{written[-1]}: the two pies, lengths, samples, and what was removed")


def data_verify(dir: tyro.conf.Positional[str], /, cache_dir: str = "") -> None:
    """Read every shard and compare sizes and checksums.

    Example: xmodel2 data verify data/nano

    Args:
        dir: directory made by `data prepare`
        cache_dir: folder that files of an object store are copied to
    """
    from xmodel2.data.shards import verify_shards

    with busy("reading"):
        rows = verify_shards(dir, cache_dir)
    print(f"{dir}: {len(rows)} files, all as recorded")
