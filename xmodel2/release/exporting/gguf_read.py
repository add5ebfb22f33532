"""The metadata of a GGUF file: what it says of its model and tokenizer, read without the tensors.

Layout (little endian): "GGUF", version, number of tensors, number of pairs, then the pairs (key, type, value); the format's
description is docs/gguf.md of the ggml project.
"""

import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np

from xmodel2.errors import XmodelError

_HEAD = struct.Struct("<4sIQQ")
_NUMBERS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8"}
_STRING, _ARRAY = 8, 9


def read_metadata(file: Path) -> dict[str, Any]:
    """Return all pairs, arrays of numbers as NumPy arrays, of strings as lists of bytes.

    Raises `XmodelError` for a file that is not GGUF, or ends within them.
    """
    try:
        with open(file, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            magic, version, _, pairs = _HEAD.unpack_from(data)
            if magic != b"GGUF" or version not in (2, 3):
                raise XmodelError(f"{file}: not a GGUF file of version 2 or 3 (it begins {bytes(data[:8])!r})")
            found, at = {}, _HEAD.size
            for _ in range(pairs):
                key, at = _string(data, at)
                (kind,) = struct.unpack_from("<I", data, at)
                found[key.decode(errors="replace")], at = _value(data, at + 4, kind)
            return found
    except OSError as error:
        raise XmodelError(f"{file}: cannot be read ({error.strerror})") from None
    except (struct.error, ValueError, KeyError):
        raise XmodelError(f"{file}: not a whole GGUF file; write or copy it again") from None


def of_model(metadata: dict[str, Any], key: str) -> Any:
    """Return a value under the file's architecture, such as ``context_length``. Raises `KeyError` if it has none."""
    return metadata[f"{metadata['general.architecture'].decode(errors='replace')}.{key}"]


def _string(data: mmap.mmap, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from("<Q", data, at)
    end = at + 8 + length
    if end > len(data):
        raise ValueError("a string beyond the end")
    return data[at + 8 : end], end


def _value(data: mmap.mmap, at: int, kind: int) -> tuple[Any, int]:
    if kind == _STRING:
        return _string(data, at)
    if kind != _ARRAY:
        dtype = np.dtype(_NUMBERS[kind])
        return np.frombuffer(data[at : at + dtype.itemsize], dtype)[0].item(), at + dtype.itemsize
    kind, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if kind != _STRING:
        dtype = np.dtype(_NUMBERS[kind])
        end = at + count * dtype.itemsize
        if end > len(data):
            raise ValueError("an array beyond the end")
        return np.frombuffer(data[at:end], dtype), end
    strings = []
    for _ in range(count):
        string, at = _string(data, at)
        strings.append(string)
    return strings, at
