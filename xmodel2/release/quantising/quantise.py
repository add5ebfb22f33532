"""One trained model in several types, and what each costs and gives.

    trained -> fp32, bf16, f16: to compare with, not kept  \\
            -> int8, int4, GGUF types: kept in OUT          }-> losses of the numbers in each -> speed of each -> quantize.json

Every step is written when it is done: a call that was stopped goes on, and what is there for the same weights stays.
"""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xmodel2.errors import XmodelError
from xmodel2.files import (
    alone_in,
    check_folder,
    fresh_folder,
    is_marked,
    mark_folder,
    read_json,
    replaced_folder,
    write_json_atomic,
    write_text_atomic,
)
from xmodel2.model.count import parameter_count
from xmodel2.release.exporting.directory import write_directory
from xmodel2.release.exporting.gguf_file import gguf_installed, remove_leftovers, write_gguf
from xmodel2.release.exporting.gguf_tensors import StoredTensors
from xmodel2.release.exporting.gguf_types import file_name
from xmodel2.release.exporting.native import NATIVE
from xmodel2.release.exporting.shards import DTYPES
from xmodel2.release.exporting.weights import EMBEDDING, AsWritten, check_tensors, native_shapes, own_model
from xmodel2.release.quantising.documents import Documents
from xmodel2.release.quantising.kinds import GGUF, GGUF_BASE, KINDS, NATIVE_BASES, TORCHAO, check_int4
from xmodel2.release.quantising.losses import document_nats, summary
from xmodel2.release.quantising.speed import ROUNDS, Work, measure
from xmodel2.release.quantising.table import FILE, markdown
from xmodel2.release.quantising.torchao_directory import as_stored, torchao_installed, write_torchao
from xmodel2.release.trained import Trained
from xmodel2.train.environment import environment

COMMAND = "quantize"
_BASES = ".unquantised"
_ONE_FILE = 1 << 62
"""Bytes of the largest file of weights: what is compared has one file each."""
_NAMES = {*KINDS, *(base.name for base in NATIVE_BASES)}
_NOTHING: dict[str, Any] = {"types": {}, "model": {}}
_PROMPT, _NEW = 128, 64
"""Tokens of the prompt, and of what follows, at which speed is measured; less in a short context."""
Show = Callable[[str, int, int], None]


def quantise(
    trained: Trained,
    kinds: list[str],
    out: Path,
    documents: Documents | None,
    *,
    group_size: int = 32,
    rounds: int = ROUNDS,
    overwrite: bool = False,
    show: Show = lambda step, done, of: None,
) -> dict[str, Any]:
    """Write each type into ``out`` and return what quantize.json holds.

    Types that ``out`` has already stay in the table; those of other weights of the model are made again. Without
    ``documents`` no losses are measured, without ``rounds`` no speeds. Raises `XmodelError` for a model that a type does not
    fit, a folder of another model or command, and a type that does not give the logits of its numbers.
    """
    if not is_marked(out, COMMAND):
        check_folder(out, False, COMMAND)
    known = _known(out, trained, overwrite)
    kept = (name for name, row in known["types"].items() if not row.get("path", _BASES).startswith(_BASES))
    kinds = sorted({*kinds, *kept}, key=KINDS.index)
    _check(trained, kinds, group_size)
    if overwrite or known["model"].get("fingerprint") != trained.fingerprint:
        known = _NOTHING
    with alone_in(out):
        mark_folder(out, COMMAND)
        shutil.rmtree(out / _BASES, ignore_errors=True)  # of a call that was killed
        remove_leftovers(out)
        try:
            return _Quantisation(trained, kinds, out, group_size, known, show).run(documents, rounds)
        finally:
            shutil.rmtree(out / _BASES, ignore_errors=True)


def _known(out: Path, trained: Trained, overwrite: bool) -> dict[str, Any]:
    """Return what quantize.json holds so far. Raises `XmodelError` if it is damaged, or of another model."""
    known = read_json(out / FILE) or _NOTHING
    if not _is_record(known):
        raise XmodelError(f"{out / FILE}: was not written by `xmodel2 {COMMAND}`; remove it")
    name = known["model"].get("name", trained.name)
    if name != trained.name:
        if not overwrite:
            raise XmodelError(f"{out}: holds the model {name}; choose another --out, or give --overwrite")
        fresh_folder(out, True, COMMAND)
        return _NOTHING
    return known


def _is_record(known: Any) -> bool:
    if not isinstance(known, dict) or not all(isinstance(known.get(key), dict) for key in ("types", "model")):
        return False
    return known["types"].keys() <= _NAMES and all(isinstance(row, dict) for row in known["types"].values())


def _check(trained: Trained, kinds: list[str], group_size: int) -> None:
    """Raise `XmodelError` for a type that does not fit the model, or whose package is missing, before anything is made."""
    if "int4" in kinds:
        check_int4(trained.settings, group_size)
    if set(kinds) & set(TORCHAO):
        torchao_installed()
    gguf_installed(kind.removeprefix(GGUF) for kind in kinds if kind.startswith(GGUF))
    check_tensors(trained)


class _Quantisation:
    """One call of `quantise`; ``known`` is what quantize.json holds of these weights so far."""

    def __init__(
        self, trained: Trained, kinds: list[str], out: Path, group_size: int, known: dict[str, Any], show: Show
    ) -> None:
        self.trained, self.kinds, self.out, self.group_size, self.show = trained, kinds, out, group_size, show
        self.bases = [base.name for base in NATIVE_BASES]
        if any(kind.startswith(GGUF) for kind in kinds) and GGUF_BASE.name not in kinds:
            self.bases.append(GGUF_BASE.name)
        names = [*self.bases, *kinds]
        self.types: dict[str, dict[str, Any]] = {name: known["types"].get(name, {}) for name in names}
        if self.types.get("int4", {}).get("group_size") != group_size:
            self.types |= {"int4": {}} if "int4" in kinds else {}
        self.places = {name: self._place(name) for name in names}
        self.parameters = parameter_count(trained.settings)
        self.record: dict[str, Any] = {
            "name": COMMAND,
            "model": {
                "name": trained.name,
                "path": str(trained.path),
                "step": trained.state["step"] if trained.state else None,
                "fingerprint": trained.fingerprint,
                "parameters": self.parameters,
                "embedding_share": math.prod(native_shapes(trained.settings)[EMBEDDING]) / self.parameters,
                "tied": trained.settings.tie_word_embeddings,
            },
            "environment": environment(torch.device("cpu")),
            "heldout": known.get("heldout"),
            "speed": known.get("speed"),
            "types": self.types,
        }

    def run(self, documents: Documents | None, rounds: int) -> dict[str, Any]:
        """Do what is not done yet, and return the record."""
        made = [name for name in self.kinds if "bytes" not in self.types[name] or not self.places[name].exists()]
        for number, name in enumerate(made):
            self.show("types", number, len(made))
            self._make(name)
        self.show("types", len(made), len(made))
        if documents:
            self._losses(documents)
        work = self._work(rounds)
        if rounds and (self.record["speed"] != work or any("generate_tokens_s" not in r for r in self.types.values())):
            self._speeds(work)
        self._save()
        write_text_atomic(self.out / "quantize.md", markdown(self.record))
        return self.record

    def _place(self, name: str) -> Path:
        """Return where a type lies; one to compare with lies there while it is measured."""
        folder = self.out / _BASES if name in self.bases else self.out
        if not name.startswith(GGUF):
            return folder / name
        return folder / file_name(self.trained.name, name.removeprefix(GGUF))

    def _make(self, name: str) -> None:
        """Write a type, and what is known of it once it is there."""
        place = self.places[name]
        place.parent.mkdir(exist_ok=True)
        known: dict[str, Any] = {"path": str(place.relative_to(self.out))}
        if name.startswith(GGUF):
            report = write_gguf(self.trained, place, name.removeprefix(GGUF))
            known["weights_bytes"] = report["weights_bytes"]
            files = [place]
        else:
            if name in TORCHAO and not self.places["bf16"].exists():
                self._make("bf16")
            with replaced_folder(place, True, COMMAND) as folder:
                if name in TORCHAO:
                    report = write_torchao(self.trained, self.places["bf16"], folder, name, self.group_size)
                else:
                    report = write_directory(self.trained, folder, NATIVE, _dtype(name), _ONE_FILE)
            files = list(place.glob("*.safetensors"))
        size = sum(file.stat().st_size for file in files)
        known |= {"bytes": size, "bits_a_weight": 8 * size / self.parameters}
        known["max_abs_difference"] = report.get("max_abs_difference")
        if name == "int4":
            known["group_size"] = self.group_size
        # What was measured of a type to compare with holds on: it is written again only to be timed.
        self.types[name] = (self.types[name] if name in self.bases else {}) | known
        self._save()

    def _as_written(self, name: str) -> AsWritten | None:
        """Return what each tensor of the model is in a type; None where nothing changes."""
        if name in TORCHAO:
            return as_stored(self.places[name])
        if name.startswith(GGUF):
            return StoredTensors(self.places[name], self.trained.settings)
        dtype = DTYPES[_dtype(name)]
        return None if dtype == torch.float32 else lambda _, tensor: tensor.to(dtype).float()

    def _losses(self, documents: Documents) -> None:
        """Measure the loss of types that have none of these documents, and of the first, which all are compared with."""
        self.record["heldout"] = {
            "of": documents.origin,
            "documents": len(documents.ids),
            "tokens": documents.tokens,
            "fingerprint": documents.fingerprint,
        }
        base, *others = self.types
        wanted = [name for name in others if self.types[name].get("losses_of") != documents.fingerprint]
        if self.types[base].get("losses_of") != documents.fingerprint or wanted:
            wanted = [base, *wanted]
        before: np.ndarray | None = None
        for number, name in enumerate(wanted):
            self.show("held-out losses", number, len(wanted))
            if name.startswith(GGUF) and not self.places[name].exists():
                self._make(name)
            model = own_model(self.trained, self._as_written(name))
            nats = document_nats(model, documents, self.trained.settings.max_position_embeddings)
            self.types[name] |= {"losses": summary(documents, nats, before), "losses_of": documents.fingerprint}
            if name.startswith(GGUF):
                from xmodel2.release.quantising.llama_difference import llama_difference

                tokenizer = self.trained.tokenizer
                self.types[name]["llama_difference"] = llama_difference(model, tokenizer, self.places[name], documents)
            before = nats if before is None else before
            self._save()
        self.show("held-out losses", len(wanted), len(wanted))

    def _work(self, rounds: int) -> dict[str, Any]:
        context = self.trained.settings.max_position_embeddings
        prompt = min(_PROMPT, context // 2)
        return {
            "prompt_tokens": prompt,
            "new_tokens": min(_NEW, context - prompt - 1),
            "rounds": rounds,
            "threads": torch.get_num_threads(),
            "device": self.record["environment"]["device"],
        }

    def _speeds(self, work: dict[str, Any]) -> None:
        for name, place in self.places.items():
            if not place.exists():
                self._make(name)
        # Which tokens they are changes nothing, so they are the first ids again and again.
        prompt = [number % self.trained.settings.vocab_size for number in range(work["prompt_tokens"])]
        asked = Work(prompt, work["new_tokens"], work["threads"])
        found = measure(self.places, asked, work["rounds"], lambda done, of: self.show("speed", done, of))
        for name, figures in found.items():
            self.types[name] |= figures
        self.record["speed"] = work

    def _save(self) -> None:
        write_json_atomic(self.out / FILE, self.record)


def _dtype(name: str) -> str:
    return next(base.dtype for base in NATIVE_BASES if base.name == name)
