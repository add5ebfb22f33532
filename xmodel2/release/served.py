"""The GGUF file that a model is served from, written the first time and kept while the weights are the same.

a run            -> RUN/serving/step-N-f16.gguf
a native folder  -> FOLDER/serving/NAME-f16.gguf
a .gguf file     -> itself
"""

from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from xmodel2.errors import XmodelError
from xmodel2.release.exporting.gguf_file import FINGERPRINT, write_gguf
from xmodel2.release.exporting.gguf_read import model_metadata, read_metadata
from xmodel2.release.exporting.gguf_types import check_kind
from xmodel2.release.trained import Trained, open_trained


@dataclass(frozen=True)
class Served:
    """What an engine needs of a model."""

    name: str
    gguf: Path
    tokenizer_dir: Path | None
    """None for a foreign GGUF file: llama.cpp's own tokenizer turns text into ids then."""
    context: int
    """Tokens of a sequence."""
    stop_ids: tuple[int, ...]
    """Tokens that end an answer."""


def served_model(path: Path, kind: str = "f16") -> Served:
    """Return the GGUF file of a run, checkpoint, native directory of ours, or .gguf file; writes it if needed.

    Raises `XmodelError` for what is none of these, and if the folder cannot be written.
    """
    path = Path(path)
    if path.is_file() or path.suffix == ".gguf":
        return _foreign(path)
    check_kind(kind)
    trained = open_trained(path)
    home = trained.run or trained.path
    name = trained.path.name if trained.run else trained.name
    file = home / "serving" / f"{name}-{kind}.gguf"
    if not _is_of(file, trained):
        try:
            file.parent.mkdir(exist_ok=True)
            with FileLock(file.parent / ".lock"):
                if not _is_of(file, trained):  # another process may have written it meanwhile
                    write_gguf(trained, file, kind)
        except OSError as error:
            raise XmodelError(
                f"{file}: cannot be written ({error.strerror}); export to a folder of yours with"
                f" `xmodel2 export {path} --to gguf --out DIR` and give that file"
            ) from None
    found = _foreign(file)
    return Served(trained.name, file, trained.tokenizer_dir, trained.settings.max_position_embeddings, found.stop_ids)


def _is_of(file: Path, trained: Trained) -> bool:
    try:
        return bool(read_metadata(file).get(FINGERPRINT, b"").decode() == trained.fingerprint)
    except XmodelError:  # there is none, or it is not whole
        return False


def _foreign(file: Path) -> Served:
    found = read_metadata(file)
    name = found.get("general.name", b"").decode(errors="replace") or file.stem
    stops = (found.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom"))
    beside = file.parent if (file.parent / "tokenizer.json").exists() else None
    context = int(model_metadata(file, "context_length"))
    return Served(name, file, beside, context, tuple(dict.fromkeys(stop for stop in stops if stop is not None)))
