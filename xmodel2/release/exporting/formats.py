"""A trained model in every format that other engines load, published together or not at all.

hf        native GraniteForCausalLM                transformers, vLLM, SGLang
llama     LlamaForCausalLM, scales folded in       engines that know plain Llama alone
gguf-TYPE one file; gguf alone is gguf-f16         llama.cpp and what builds on it
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError, nearest
from xmodel2.files import replaced_folder
from xmodel2.release.exporting.directory import write_directory
from xmodel2.release.exporting.gguf_types import KINDS, file_name
from xmodel2.release.exporting.llama import LLAMA
from xmodel2.release.exporting.native import NATIVE
from xmodel2.release.exporting.shards import DTYPES
from xmodel2.release.trained import Trained, open_trained

LAYOUTS = {"hf": NATIVE, "llama": LLAMA}
FORMATS = (*LAYOUTS, "gguf", *(f"gguf-{kind}" for kind in KINDS))
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def export_model(
    model: Path,
    formats: Sequence[str],
    out: Path,
    *,
    dtype: str = "float32",
    max_shard_size: str = "5GB",
    overwrite: bool = False,
    show: Callable[[str], object] = lambda step: None,
) -> list[dict[str, Any]]:
    """Write ``out`` and return a report a format: "format", "path", "bytes", "seconds", "max_abs_difference" ...
    (of logits; of log-probabilities in llama.cpp, or None without it).

    One kind of format has ``out`` itself, several have a folder each in it: hf, llama, gguf. Every one is loaded and held
    against our own logits. Raises `XmodelError` if one is not proved, or if something else is in the way; what was in
    ``out`` then stays.
    """
    wanted = check_formats(formats)
    limit = parse_size(max_shard_size)
    if dtype not in DTYPES:
        raise XmodelError(f"--dtype {dtype!r}: must be one of {', '.join(DTYPES)}.{nearest(dtype, DTYPES)}")
    if kinds := [name.removeprefix("gguf-") for name in wanted if name not in LAYOUTS]:
        from xmodel2.release.exporting.gguf_file import gguf_installed

        gguf_installed(kinds)
    trained = open_trained(model)
    _check_place(trained, out)
    several = len({name.partition("-")[0] for name in wanted}) > 1
    try:
        with replaced_folder(out, overwrite, "export") as folder:
            return [_write(trained, name, folder, Path(out), several, dtype, limit) for name in _shown(wanted, show)]
    except OSError as error:
        raise XmodelError(f"{out}: the export could not be written ({error}); what was there before stays") from error


def _shown(names: Sequence[str], show: Callable[[str], object]) -> Iterator[str]:
    for number, name in enumerate(names, 1):
        show(f"exporting {name} ({number} of {len(names)})")
        yield name


def _write(
    trained: Trained, name: str, folder: Path, out: Path, several: bool, dtype: str, limit: int
) -> dict[str, Any]:
    """Write one format below ``folder``, which will be ``out``, and return its report."""
    started = time.perf_counter()
    sort, _, kind = name.partition("-")
    part = Path(sort if several else ".")
    (folder / part).mkdir(exist_ok=True)
    if name in LAYOUTS:
        report = write_directory(trained, folder / part, LAYOUTS[name], dtype, limit)
    else:
        from xmodel2.release.exporting.gguf_file import write_gguf

        part /= file_name(trained.name, kind)
        report = write_gguf(trained, folder / part, kind)
    seconds = round(time.perf_counter() - started, 2)
    return {**report, "format": name, "path": str(out / part), "seconds": seconds}


def check_formats(formats: Iterable[str]) -> list[str]:
    """Return the formats, each once, "gguf" by its whole name. Raises `XmodelError` for one that is unknown, or for none."""
    names = [name.strip().lower() for name in formats if name.strip()]
    for name in names:
        if name not in FORMATS:
            raise XmodelError(f"--to {name}: must be of {', '.join(FORMATS)}.{nearest(name, FORMATS)}")
    if not names:
        raise XmodelError(f"--to: names no format; give one or more of {', '.join(FORMATS)}")
    return list(dict.fromkeys("gguf-f16" if name == "gguf" else name for name in names))


def parse_size(text: str) -> int:
    """Return the bytes of a size such as 5GB or 512MiB. Raises `XmodelError` for anything else.

    >>> parse_size("1.5 GB")
    1500000000
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]I?B)?\s*", text.upper())
    size = int(float(found[1]) * _UNITS[found[2] or ""]) if found else 0
    if size < 1:
        raise XmodelError(f"--max-shard-size {text!r}: write it as 5GB, 500MB or 2GiB")
    return size


def _check_place(trained: Trained, out: Path) -> None:
    """Raise `XmodelError` if writing ``out`` would replace the model itself, or put a folder among checkpoints."""
    place, model = Path(out).resolve(), trained.path.resolve()
    if model.is_relative_to(place):
        raise XmodelError(f"{out}: the model itself is there ({trained.path}); choose another --out")
    kept = model.parent if model.parent.name == "checkpoints" else model
    if trained.state and place.is_relative_to(kept):
        raise XmodelError(f"{out}: is among the checkpoints that the run looks after; choose another --out")
