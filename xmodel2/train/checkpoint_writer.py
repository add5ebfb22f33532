"""Checkpoints, written: while training goes on, by every rank its own files, published by rank 0 once all are on disk.

    save():      plan (which rank writes what) -> room on the disk? -> copy to the CPU ----> training goes on
    background:  write, hash and sync beside -> all ranks done -> manifest -> rename -> prune

A kill, a full disk or a lost rank at any moment leaves the checkpoints before this one as they were.
"""

import shutil
import sys
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from xmodel2.errors import XmodelError
from xmodel2.files import (
    file_record,
    link_or_copy,
    publish_folder,
    read_json,
    write_json_atomic,
    write_text_atomic,
)
from xmodel2.recipe import Recipe, recipe_to_toml
from xmodel2.train.agreement import on_rank_0, rank, together, world_size
from xmodel2.train.checkpoint import FORMAT, MANIFEST_FILE, MODEL, OPTIMIZER, RECIPE_FILE, STATE_FILE
from xmodel2.train.guard import rollback_reach
from xmodel2.train.retention import prune_checkpoints, remove_unfinished
from xmodel2.train.tensor_files import Piece, file_name, piece_of, write_tensors

Chunk = tuple[str, tuple[int, ...], int]
"""Name of a tensor, where a part of it begins, and its bytes."""


class CheckpointWriter:
    """Saves a run's state, one save at a time. Every method is a collective: all ranks call it."""

    def __init__(
        self,
        run_dir: Path,
        recipe: Recipe,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        always: Collection[int] = (),
    ) -> None:
        """``always``: steps whose checkpoints are never pruned. The folder must be one that all ranks see."""
        self.run_dir, self.recipe, self.model, self.optimizer = run_dir, recipe, model, optimizer
        self.always = always
        self._named = list(model.named_parameters())  # as they lie between steps: in the midst of one FSDP shows others
        # The background's own group: its messages must not mix with the loop's, and gloo leaves the GPU alone.
        several = world_size() > 1
        self._group = dist.new_group(backend="gloo", timeout=timedelta(hours=2)) if several else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._buffers: dict[str, torch.Tensor] = {}
        on_rank_0(partial(remove_unfinished, run_dir))

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Save the present weights and moments with ``state`` (JSON); returns once they are copied, or written if not async.

        Waits for the save before. Raises `XmodelError` if that one failed, or if there is no room for this one.
        """
        self.wait()
        final = self.run_dir / "checkpoints" / f"step-{step}"
        pieces = self._own_pieces(final)
        state = {"step": step, **state}
        if not self.recipe.train.async_checkpoint:
            return self._write(final, state, pieces, None)
        staged = {kind: [self._staged(piece) for piece in own] for kind, own in pieces.items()}
        copied = None
        if any(piece.tensor.is_cuda for own in pieces.values() for piece in own):
            copied = torch.cuda.Event()
            copied.record()  # the copies are queued before the next step's kernels, so nobody waits here
        self._pending = self._thread.submit(self._write, final, state, staged, copied)

    def wait(self) -> None:
        """Return once the last save is published; raises `XmodelError` if it failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait for the last save, and end the background thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def _own_pieces(self, final: Path) -> dict[str, list[Piece]]:
        """Return what this rank is to write: of a part that several ranks hold, one writes it. Raises if the disk is too full."""
        moments = (
            (f"{name}/{key}", value)
            for name, p in self._named
            for key, value in self.optimizer.state.get(p, {}).items()
        )
        pieces = {
            MODEL: [piece_of(name, parameter) for name, parameter in self._named],
            OPTIMIZER: [piece_of(name, value) for name, value in moments],
        }
        here = [chunk_of(piece) for own in pieces.values() for piece in own if piece.tensor.numel()]
        plans = together(partial(self._with_room, here), self._group)
        needed, free = sum({chunk[:2]: chunk[2] for plan, _ in plans for chunk in plan}.values()), plans[0][1]
        if needed > free:
            raise XmodelError(
                f"{final}: the checkpoint needs {_size(needed)}, and {_size(free)} are free on its disk; the previous one is"
                " untouched. Free some space and run again with --resume."
            )
        mine = set(assign([plan for plan, _ in plans])[rank()])
        return {kind: [piece for piece in own if chunk_of(piece) in mine] for kind, own in pieces.items()}

    def _with_room(self, here: list[Chunk]) -> tuple[list[Chunk], int]:
        (self.run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
        return here, shutil.disk_usage(self.run_dir / "checkpoints").free

    def _staged(self, piece: Piece) -> Piece:
        """Copy a piece into a CPU buffer that is kept from save to save; pinned, and not waited for, if it comes from a GPU."""
        tensor, buffer = piece.tensor, self._buffers.get(piece.name)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._buffers[piece.name] = buffer
        buffer.copy_(tensor, non_blocking=True)
        return replace(piece, tensor=buffer)

    def _write(
        self, final: Path, state: dict[str, Any], pieces: dict[str, list[Piece]], copied: torch.cuda.Event | None
    ) -> None:
        beside = final.with_name(f".{final.name}.tmp")
        try:
            self._on_rank_0(lambda: fresh(beside))
            records = together(partial(_write_files, beside, pieces, copied), self._group)
            self._on_rank_0(lambda: publish(beside, final, state, self.recipe, records))
        except Exception as error:
            if rank() == 0:
                shutil.rmtree(beside, ignore_errors=True)
            raise XmodelError(
                f"{final}: the checkpoint could not be written ({error}); the previous one is untouched."
                " Free some space and run again with --resume."
            ) from error
        if rank() == 0:
            self._prune()

    def _prune(self) -> None:
        train = self.recipe.train
        keep, every, reach = train.keep_checkpoints, train.keep_checkpoint_every, rollback_reach(self.recipe.guard)
        try:
            prune_checkpoints(self.run_dir, keep, every, self.always, reach)
        except OSError as error:
            print(
                f"{self.run_dir}: older checkpoints could not be deleted ({error}); training goes on", file=sys.stderr
            )

    def _on_rank_0(self, work: Any) -> None:
        together(lambda: work() if rank() == 0 else None, self._group)


def publish(
    beside: Path, final: Path, state: dict[str, Any], recipe: Recipe, records: Sequence[dict[str, Any]]
) -> None:
    """Put a folder with all tensors, of which ``records`` tell size and SHA-256, in its place as a checkpoint."""
    write_json_atomic(beside / STATE_FILE, state)
    write_text_atomic(beside / RECIPE_FILE, recipe_to_toml(recipe))
    files = {name: record for own in records for name, record in own.items()}
    files |= {name: file_record(beside / name) for name in (STATE_FILE, RECIPE_FILE)}
    write_json_atomic(beside / MANIFEST_FILE, {"format": FORMAT, "files": files})
    publish_folder(beside, final)


def take_over(source: Path, final: Path, recipe: Recipe, state: dict[str, Any], moments: bool) -> Path:
    """Publish a run's first checkpoint, its tensors links to those of another run's; without ``moments``, of weights alone.

    Raises `XmodelError` if it cannot be written.
    """
    beside = final.with_name(f".{final.name}.tmp")
    kinds = (MODEL, OPTIMIZER) if moments else (MODEL,)
    files: dict[str, Any] = read_json(source / MANIFEST_FILE)["files"]
    tensors = {
        name: record for name, record in files.items() if name.startswith(kinds) and name.endswith(".safetensors")
    }
    try:
        fresh(beside)
        for name in tensors:
            link_or_copy(source / name, beside / name)
        if not moments:
            tensors[file_name(OPTIMIZER, 0, 1)] = write_tensors(beside / file_name(OPTIMIZER, 0, 1), [])
        write_text_atomic(
            final.parent.parent / RECIPE_FILE, recipe_to_toml(recipe)
        )  # whoever has a checkpoint has a recipe
        publish(beside, final, state, recipe, [tensors])
    except OSError as error:
        raise XmodelError(f"{final}: cannot be taken over from {source} ({error})") from None
    return final


def chunk_of(piece: Piece) -> Chunk:
    """Return what other ranks must know of a piece."""
    return piece.name, piece.offset, piece.tensor.nbytes


def assign(plans: list[list[Chunk]]) -> list[list[Chunk]]:
    """Give each chunk to one of the ranks that hold it, the one with fewest bytes so far; the same answer on every rank.

    >>> assign([[("a", (0,), 8), ("b", (0,), 8)], [("b", (0,), 8)]])
    [[('a', (0,), 8)], [('b', (0,), 8)]]
    """
    holders: dict[Chunk, list[int]] = {}
    for number, plan in enumerate(plans):
        for chunk in plan:
            holders.setdefault(chunk, []).append(number)
    given: list[list[Chunk]] = [[] for _ in plans]
    size = [0] * len(plans)
    for chunk, ranks in holders.items():
        writer = min(ranks, key=lambda number: size[number])
        given[writer].append(chunk)
        size[writer] += chunk[2]
    return given


def fresh(folder: Path) -> None:
    """Make an empty folder, whatever a kill left there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _write_files(folder: Path, pieces: dict[str, list[Piece]], copied: torch.cuda.Event | None) -> dict[str, Any]:
    if copied is not None:
        copied.synchronize()
    # Of rank 0 also if it is empty: before the first update there are no moments, and readers want a file.
    files = {file_name(kind, rank(), world_size()): own for kind, own in pieces.items() if own or rank() == 0}
    return {name: write_tensors(folder / name, own) for name, own in files.items()}


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
