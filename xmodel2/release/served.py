"""The GGUF file that a model is served from, written the first time and kept while weights and form are the same.

a run            -> RUN/serving/step-N-q8_0.gguf
a native folder  -> FOLDER/serving/FOLDER-q8_0.gguf
a .gguf file     -> itself, with the tokenizer.json beside it if that is its own
"""

from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from xmodel2.errors import XmodelError
from xmodel2.files import sha256_file
from xmodel2.release.exporting.gguf_file import (
    FINGERPRINT,
    FORM,
    TOKENIZER,
    TOKENIZER_FILE,
    WRITTEN_AS,
    remove_leftovers,
    write_gguf,
)
from xmodel2.release.exporting.gguf_read import context_of, read_metadata
from xmodel2.release.exporting.gguf_types import check_kind
from xmodel2.release.exporting.gguf_vocabulary import is_held
from xmodel2.release.served_kind import SERVED_KIND
from xmodel2.release.trained import Trained, open_trained
from xmodel2.tokenizer import load_tokenizer
from xmodel2.train.checkpoint import find_tokenizer


@dataclass(frozen=True)
class Served:
    """What an engine needs of a model."""

    name: str
    gguf: Path
    tokenizer_dir: Path | None
    """None for a GGUF file without ours beside it: llama.cpp's own tokenizer turns text into ids then."""
    context: int
    """Tokens of a sequence."""
    stop_ids: tuple[int, ...]
    """Tokens that end an answer."""


def served_model(path: Path, kind: str = SERVED_KIND) -> Served:
    """Return the GGUF file of a run, checkpoint, native directory of ours, or .gguf file; writes it if needed.

    Raises `XmodelError` for what is none of these, and if the folder cannot be written.
    """
    path = Path(path)
    if path.is_file() or path.suffix == ".gguf":
        return _of_file(path)
    check_kind(kind)
    trained = open_trained(path)
    file = (trained.run or trained.path) / "serving" / f"{trained.path.resolve().name}-{kind}.gguf"
    if not _is_of(file, trained):
        try:
            file.parent.mkdir(exist_ok=True)
            with FileLock(file.parent / ".lock"):
                if not _is_of(file, trained):  # another process may have written it meanwhile
                    remove_leftovers(file.parent)
                    write_gguf(trained, file, kind)
        except OSError as error:
            raise XmodelError(
                f"{file}: cannot be written ({error.strerror}); export to a folder of yours with"
                f" `xmodel2 export {path} --to gguf --out DIR` and give that file"
            ) from None
    return replace(_of_file(file), name=trained.name, tokenizer_dir=trained.tokenizer_dir)


def is_servable(path: Path) -> bool:
    """Tell whether GGUF holds a model's tokenizer; of what is no model `served_model` says what is wrong."""
    if path.is_file():
        return True
    try:
        return is_held(load_tokenizer(path if (path / "config.json").exists() else find_tokenizer(path)))
    except XmodelError:
        return True


def _is_of(file: Path, trained: Trained) -> bool:
    try:
        found = read_metadata(file)
    except XmodelError:  # there is none, or it is not whole
        return False
    return found.get(WRITTEN_AS) == FORM and found.get(FINGERPRINT) == trained.fingerprint.encode()


def _of_file(file: Path) -> Served:
    found = read_metadata(file)
    name = found.get("general.name")
    stops = [found.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    stop_ids = tuple(dict.fromkeys(stop for stop in stops if isinstance(stop, int)))
    tokenizer = file.with_name(TOKENIZER_FILE)
    ours = tokenizer.is_file() and sha256_file(tokenizer).encode() == found.get(TOKENIZER)
    return Served(
        (name.decode(errors="replace") if isinstance(name, bytes) else "") or file.stem,
        file,
        file.parent if ours else None,
        context_of(found, file),
        stop_ids,
    )
