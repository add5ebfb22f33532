"""Files of shards: found (and fetched, if they lie in an object store) when first touched, and mapped into memory.

What is held does not grow with the data: of each file its name, size and checksum, and of at most `OPEN_MAPS` files a map.
"""

import hashlib
import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from xmodel2.errors import XmodelError
from xmodel2.files import sha256_file, writing_atomic


def _open_maps() -> int:
    """Return how many files may be mapped at once: each holds a file descriptor, of which half are left to others."""
    try:
        import resource
    except ImportError:  # not a Unix
        return 256
    return min(512, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


OPEN_MAPS = _open_maps()
SMALL = 1 << 30
"""Bytes; the files of a split that has fewer are soon in memory as a whole."""
_CHUNK = 1 << 24
_numbers = count()


class MapCache:
    """Maps by key; the least recently used beyond ``limit`` is let go. May be used from several threads."""

    def __init__(self, limit: int = OPEN_MAPS) -> None:
        self._limit, self._lock = limit, threading.Lock()
        self._maps: OrderedDict[Hashable, np.ndarray] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the map of a key, made if it is not there."""
        try:
            self._maps.move_to_end(key)
            return self._maps[key]
        except KeyError:  # not there, or let go by another thread just now
            pass
        with self._lock:
            if key not in self._maps:
                self._maps[key] = make()
                if len(self._maps) > self._limit:
                    self._maps.popitem(last=False)
            return self._maps[key]


def map_file(path: str, dtype: np.dtype, size: int | None = None) -> np.ndarray | None:
    """Return a file's content as a read-only array, read page by page as it is touched.

    None if there is no such file, or it has not ``size`` bytes or no whole number of elements.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        found = os.fstat(handle).st_size
        if found % dtype.itemsize or size not in (None, found):
            return None
        return np.frombuffer(mmap.mmap(handle, found, access=mmap.ACCESS_READ) if found else b"", dtype)
    finally:
        os.close(handle)


@dataclass
class Folder:
    """A folder of this machine and, for remote data, the folder of the object store that fills it."""

    local: Path
    remote: Any = None
    """A `UPath`, or None."""

    def __truediv__(self, name: str) -> "Folder":
        return Folder(self.local / name, None if self.remote is None else self.remote / name)

    def __str__(self) -> str:
        return str(self.local if self.remote is None else self.remote)

    def exists(self) -> bool:
        """Tell whether the folder is there, where the data lies."""
        return bool((self.local if self.remote is None else self.remote).is_dir())

    def find(self, name: str, size: int, sha256: str) -> Path:
        """Return a file's local path. Raises `XmodelError` if it is missing or has another size than ``size`` bytes."""
        path = self.local / name
        try:
            found = path.stat().st_size
        except OSError:
            found = None
        if found == size:
            return path
        if self.remote is None:
            state = "missing" if found is None else f"{found} bytes"
            raise XmodelError(f"{path}: {state}, {size} bytes expected; prepare the data again")
        self._fetch(name, size, sha256)
        return path

    def verify(self, name: str, size: int, sha256: str) -> Path:
        """Read a file whole and return its path; raises as `find`, and if its content changed."""
        path = self.find(name, size, sha256)
        if sha256_file(path) != sha256:
            raise XmodelError(
                f"{path}: its content changed since it was written (SHA-256 differs); prepare the data again"
            )
        return path

    def _fetch(self, name: str, size: int, sha256: str) -> None:
        """Copy a file of the object store whole, or not at all."""
        where, digest, copied = self.remote / name, hashlib.sha256(), 0
        try:
            with where.open("rb") as source, writing_atomic(self.local / name) as copy:
                while chunk := source.read(_CHUNK):
                    copy.write(chunk)
                    digest.update(chunk)
                    copied += len(chunk)
                if copied != size:
                    raise XmodelError(f"{where}: {copied} bytes, {size} bytes expected; prepare the data again")
                if digest.hexdigest() != sha256:
                    raise XmodelError(
                        f"{where}: its content changed since it was written (SHA-256 differs); prepare the data again"
                    )
        except FileNotFoundError:
            raise XmodelError(f"{where}: missing, {size} bytes expected; prepare the data again") from None
        except XmodelError:
            raise
        except Exception as error:  # every store has exceptions of its own
            raise XmodelError(f"{where}: cannot be copied to {self.local / name}: {error!r}") from None


class ShardFiles:
    """Files of one kind of a split, one a shard; indexing maps one."""

    def __init__(self, folder: Folder, records: Sequence[dict[str, Any]], dtype: str, maps: MapCache) -> None:
        """``records`` are {file, bytes, sha256}, as the index has them; ``large`` tells whether `announce` is of use."""
        self.folder, self.dtype, self.maps = folder, np.dtype(dtype), maps
        self.number = next(_numbers)  # in keys, where the object itself would make a circle and keep maps open
        self._prefix = f"{folder.local}{os.sep}"
        self._names = np.array([record["file"].encode() for record in records])
        self._sizes = np.array([record["bytes"] for record in records], dtype=np.int64)
        self._sha256 = np.array([record["sha256"].encode() for record in records])
        self.large = int(self._sizes.sum()) > SMALL and hasattr(mmap.mmap, "madvise")

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, shard: int) -> np.ndarray:
        return self.maps.get((self.number, shard), lambda: self.map(shard))

    def map(self, shard: int) -> np.ndarray:
        """Return a new map of a file; raises as `path`."""
        size = int(self._sizes[shard])
        found = map_file(self._prefix + self.name(shard), self.dtype, size)
        if found is None:
            path = self.path(shard)
            found = map_file(str(path), self.dtype, size)
        if found is None:
            raise XmodelError(f"{path}: cannot be read as {self.dtype} numbers; prepare the data again")
        return found

    def announce(self, spans: Iterable[tuple[int, int, int]]) -> None:
        """Let the disk fetch elements begin..end of files, [(shard, begin, end)], while other work goes on.

        Read without it, each page brings hundreds of kilobytes around it: good for little data, bad for much (`large`).
        """
        for shard, begin, end in spans:
            first = begin * self.dtype.itemsize // mmap.PAGESIZE * mmap.PAGESIZE
            base: Any = self[shard].base  # a view of the map
            base.obj.madvise(mmap.MADV_WILLNEED, first, end * self.dtype.itemsize - first)

    def name(self, shard: int) -> str:
        """Return a file's name."""
        return bytes(self._names[shard]).decode()

    def sha256(self, shard: int) -> str:
        """Return the checksum that the index has of a file."""
        return bytes(self._sha256[shard]).decode()

    def path(self, shard: int) -> Path:
        """Return a file's local path, fetched if need be; raises as `Folder.find`."""
        return self.folder.find(self.name(shard), int(self._sizes[shard]), self.sha256(shard))
