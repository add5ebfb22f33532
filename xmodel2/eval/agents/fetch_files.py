"""Bring the agents' data on a machine with a network, for `--agents-dir` and `--data-dir` on machines without.

    OUT/agents/hotpotqa/dev-simplified.jsonl.gz ...     what `xmodel2.eval.agents.agent_files` lists
    OUT/agents/downloads/                               originals on their way, and what a stopped fetch goes on with
    OUT/MANIFEST.json                                   rows, bytes, SHA-256 and origin of each, written after it

A file that is there, whole, is taken as it is, and none that someone changed is overwritten. One that cannot be had does not
keep the others from coming: what is missing is told at the end, with the way to get it by hand.
"""

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.agent_files import AGENT_FILES, AgentFile
from xmodel2.eval.agents.benchmarks import AGENTS_FOLDER
from xmodel2.eval.download import UnavailableError, Web
from xmodel2.eval.manifest import fetching_into, read_manifest, write_record
from xmodel2.files import fsync_dir, sha256_file

_MEGABYTE = 10**6


def fetch_agents(
    benchmarks: Sequence[str],
    out: Path,
    *,
    wiki_pages: bool = False,
    all_products: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
    web: Web | None = None,
    files: Sequence[AgentFile] = AGENT_FILES,
) -> dict[str, dict[str, Any]]:
    """Write the files of the benchmarks, and return the manifest's record of each.

    ``progress`` receives (file, megabytes that are here, megabytes in all). Raises `XmodelError` at the end, naming each file
    that could not be had, is not whole, or has another one in its place.
    """
    options = {"", "wiki_pages"} if wiki_pages else {""}
    options.add("all_products" if all_products else "few_products")
    wanted = [file for file in files if set(file.benchmarks) & set(benchmarks) and file.when in options]
    records, missing = dict[str, dict[str, Any]](), list[str]()
    with fetching_into(out):
        for file in wanted:
            try:
                records[f"{AGENTS_FOLDER}/{file.name}"] = _fetch(file, out, web or Web(), progress)
            except XmodelError as error:
                missing.append(str(error))
        with suppress(OSError):
            (out / AGENTS_FOLDER / "downloads").rmdir()
            (out / AGENTS_FOLDER).rmdir()
    if missing:
        way = f"run this again, or save with a browser what cannot be downloaded in {out / AGENTS_FOLDER / 'downloads'} first"
        raise XmodelError("\n".join([f"{len(missing)} of {len(wanted)} files are missing; {way}", *missing]))
    return records


def _fetch(file: AgentFile, out: Path, web: Web, progress: Callable[[str, int, int], None] | None) -> dict[str, Any]:
    name, target = f"{AGENTS_FOLDER}/{file.name}", out / AGENTS_FOLDER / file.name
    known = read_manifest(out)["files"].get(name)
    if target.exists():
        if known:
            if file.form.record(target).items() <= known.items():
                return dict(known)
            raise XmodelError(
                f"{target}: is not what `xmodel2 eval fetch` wrote; move it away if you changed it, and remove it if it is damaged"
            )
        origin = "was in the folder"
        try:
            _check(file, target)
        except XmodelError as error:
            raise XmodelError(
                f"{target}: was not written by `xmodel2 eval fetch`, and {error}; move it away, or choose another --out"
            ) from None
    else:
        origin = _bring(file, target, out / AGENTS_FOLDER / "downloads", web, progress)
    record = {
        "rows": file.rows,
        "unit": file.unit,
        **file.form.record(target),
        "origin": origin,
        "licence": file.licence,
    }
    write_record(out, name, record)
    return record


def _check(file: AgentFile, target: Path) -> None:
    if (found := file.form.count(target)) != file.rows:
        raise XmodelError(f"has {found:,} {file.unit}, and the official one {file.rows:,}")


def _bring(
    file: AgentFile, target: Path, downloads: Path, web: Web, progress: Callable[[str, int, int], None] | None
) -> str:
    """Make the target, and return where it is from; an original that lies in ``downloads`` was brought by hand."""
    original, new = downloads / file.original_name, downloads / "new"
    by_hand = original.exists()
    origin = "downloaded by hand" if by_hand else _download(file, target, original, web, progress)
    try:
        if file.sha256 and (found := sha256_file(original)) != file.sha256:
            raise XmodelError(f"is damaged, or another version: SHA-256 {found[:16]}..., not {file.sha256[:16]}...")
        new.mkdir(parents=True, exist_ok=True)
        file.form.write(original, new / target.name)
        _check(file, new / target.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        (new / target.name).replace(target)
        fsync_dir(target.parent)
    except XmodelError as error:
        if by_hand:
            raise XmodelError(f"{original}: {error}; remove it") from None
        original.unlink(missing_ok=True)
        raise XmodelError(f"{target}: what {origin} gives {error}; nothing was kept of it") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
    original.unlink(missing_ok=True)
    return origin


def _download(
    file: AgentFile, target: Path, original: Path, web: Web, progress: Callable[[str, int, int], None] | None
) -> str:
    def on_bytes(done: int, size: int) -> None:
        if progress:
            progress(f"{original.name}, MB", done // _MEGABYTE, max(done, size) // _MEGABYTE)

    try:
        return web.download(file.addresses, original, on_bytes)
    except UnavailableError as error:
        by_hand = f"; in a browser {file.page}" if file.page else ""
        raise XmodelError(f"{target}: cannot be downloaded ({error}{by_hand})") from None
