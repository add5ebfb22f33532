"""WebShop's product files as its authors release them.

    FOLDER/items_shuffle.json     or items_shuffle_1000.json    products as scraped, an array (5 GB, 1.18 million)
    FOLDER/items_ins_v2.json      or items_ins_v2_1000.json     attributes by asin
    FOLDER/items_human_ins.json                                 what people asked for, by asin
    FOLDER/reviews.json                                         optional, as in the authors' own loader

Products are read from their file when they are looked at; memory holds where each one stands.
"""

import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, overload

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.json_parts import json_parts, whole
from xmodel2.eval.agents.product_fields import (
    Entry,
    read_attributes,
    read_instruction,
    read_product,
    read_reviews,
    usable_asin,
)
from xmodel2.eval.agents.products import Catalogue, Instruction, Product, Review

SIZES = ("", "_1000")
"""Of the released files: if both are there, the whole catalogue is taken."""
_IN_MEMORY = 4096
"""Products that are kept: those that the agents look at again."""


class ProductFile(Sequence[Product]):
    """Products of a file, each read when it is asked for."""

    def __init__(
        self,
        path: Path,
        attributes: Mapping[str, tuple[str, ...]],
        reviews: Mapping[str, tuple[str, tuple[Review, ...]]],
        digest: Any,
    ) -> None:
        """Read a file once, check every product, and note where each one stands.

        Raises `XmodelError` naming file, product (from 1) and field.
        """
        self._path, self._attributes, self._reviews = path, attributes, reviews
        self.positions: dict[str, int] = {}
        self._numbers, self._begins, self._lengths = array("L"), array("Q"), array("L")
        with path.open("rb") as file:
            for number, (_, value, begin, length) in enumerate(json_parts(file, path, "[]", digest), 1):
                entry = self._entry(number, value)
                asin = usable_asin(entry)
                if asin is None or asin in self.positions:
                    continue
                read_product(entry, attributes, reviews)
                self.positions[asin] = len(self.positions)
                self._numbers.append(number)
                self._begins.append(begin)
                self._lengths.append(length)
        if not self.positions:
            raise XmodelError(f"{path}: has no products; fetch it again")
        self._kept = lru_cache(_IN_MEMORY)(self._open)

    def __len__(self) -> int:
        return len(self._begins)

    @overload
    def __getitem__(self, place: int) -> Product: ...

    @overload
    def __getitem__(self, place: slice) -> list[Product]: ...

    def __getitem__(self, place: int | slice) -> Product | list[Product]:
        places = range(len(self))[place]
        return self._kept(places) if isinstance(places, int) else [self._kept(number) for number in places]

    def __iter__(self) -> Iterator[Product]:
        with self._path.open("rb") as file:
            for place in range(len(self)):
                yield self._read(file, place)

    def _open(self, place: int) -> Product:
        with self._path.open("rb") as file:
            return self._read(file, place)

    def _read(self, file: BinaryIO, place: int) -> Product:
        file.seek(self._begins[place])
        try:
            written = file.read(self._lengths[place]).decode()
            value = whole(json.loads(written), written)
        except ValueError:
            raise XmodelError(f"{self._path}: was changed while it was in use; start again") from None
        return read_product(self._entry(self._numbers[place], value), self._attributes, self._reviews)

    def _entry(self, number: int, value: Any) -> Entry:
        return Entry(f"{self._path}, product {number}", value)


def load_products(folder: Path) -> Catalogue:
    """Return the released catalogue that is in a folder.

    Raises `XmodelError` saying which file is missing and how to get it, or naming file, entry and field.
    """
    size = next((size for size in SIZES if (folder / f"items_shuffle{size}.json").exists()), SIZES[-1])
    files = [folder / f"{name}.json" for name in (f"items_shuffle{size}", f"items_ins_v2{size}", "items_human_ins")]
    for file in files:
        if not file.is_file():
            raise XmodelError(f"{file}: no such file; with a network, `xmodel2 eval fetch --suite agents` gets it")
    products_file, attributes_file, human_file = files
    digest = hashlib.sha256()
    attributes = _attributes(attributes_file, digest)
    human = _human(human_file, digest)
    reviews_file = folder / "reviews.json"
    reviews = _reviews(reviews_file, digest) if reviews_file.exists() else {}
    products = ProductFile(products_file, attributes, reviews, digest)
    return Catalogue(products_file.name, products, products.positions, human, digest.hexdigest())


def _entries(path: Path, of: str, name: str, digest: Any) -> Iterator[tuple[str, Any, str]]:
    """Yield key and value of every part of a file, and what to call it."""
    with path.open("rb") as file:
        for number, part in enumerate(json_parts(file, path, of, digest), 1):
            yield part.key, part.value, f"{path}, {name} {part.key or number}"


def _attributes(path: Path, digest: Any) -> dict[str, tuple[str, ...]]:
    read = (
        (asin, read_attributes(Entry(where, value))) for asin, value, where in _entries(path, "{}", "product", digest)
    )
    return {asin: attributes for asin, attributes in read if attributes is not None}


def _human(path: Path, digest: Any) -> dict[str, list[Instruction]]:
    instructions = {}
    for asin, value, where in _entries(path, "{}", "product", digest):
        if not isinstance(value, list):
            raise XmodelError(f"{where}: must be a list of instructions; fetch the file again")
        entries = [Entry(f"{where}, instruction {number}", item) for number, item in enumerate(value, 1)]
        instructions[asin] = [read_instruction(entry) for entry in entries]
    return instructions


def _reviews(path: Path, digest: Any) -> dict[str, tuple[str, tuple[Review, ...]]]:
    reviews = {}
    for _, value, where in _entries(path, "[]", "entry", digest):
        entry = Entry(where, value)
        reviews[entry.text("asin")] = read_reviews(entry)
    return reviews
