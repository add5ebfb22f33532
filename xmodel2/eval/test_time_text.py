"""The text of a test-time scaling law: WikiText-2's test split, or any other.

The raw split, as perplexities on WikiText-2 usually are of: not the detokenized text of the harness's `wikitext` task.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodel2.data.read import read_records
from xmodel2.errors import XmodelError

HUB = ("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1", "test")
"""Data set, subset and split that the harness takes as well; a row an article, in `page`."""
_FIELDS = ("page", "text")
_RECORDS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst", ".parquet")


@dataclass(frozen=True)
class Text:
    """Documents in their order."""

    name: str
    documents: list[str]


def read_text(text: Path | None = None, data_dir: Path | None = None) -> Text:
    """Return the documents of a file, of ``data_dir``/wikitext/test.jsonl[.gz], or with neither of the Hub's WikiText-2.

    A file of records (.jsonl, .parquet ...) has a document a row in `page` or `text`; any other is one plain text.
    Raises `XmodelError` for what is not there or cannot be read.
    """
    if text is not None:
        return _not_empty(str(text), _from_file(text))
    if data_dir is not None:
        names = ("test.jsonl", "test.jsonl.gz")
        found = next((path for name in names if (path := data_dir / "wikitext" / name).is_file()), None)
        if found is None:
            raise XmodelError(
                f"{data_dir / 'wikitext' / 'test.jsonl.gz'}: no such file (nor .jsonl); on a machine with a network,"
                f" `xmodel2 eval fetch` makes it; or give --text FILE"
            )
        return _not_empty(str(found), _from_file(found))
    return _not_empty(f"{HUB[0]}, {HUB[2]}", _from_hub())


def _from_file(path: Path) -> list[str]:
    if path.name.endswith(_RECORDS):
        return [_field(record, f"{path}:{number}") for number, record in read_records(path)]
    try:
        return [path.read_text(encoding="utf-8")]
    except FileNotFoundError:
        raise XmodelError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise XmodelError(f"{path}: is a folder; give a file, or --data-dir for a folder of data sets") from None
    except UnicodeDecodeError as error:
        raise XmodelError(f"{path}: not valid UTF-8 at byte {error.start}, so not plain text") from None


def _field(record: Any, place: str) -> str:
    found = [record[name] for name in _FIELDS if isinstance(record, dict) and isinstance(record.get(name), str)]
    if not found:
        raise XmodelError(f"{place}: has neither of the fields {' and '.join(_FIELDS)} as text")
    return str(found[0])


def _from_hub() -> list[str]:
    elsewhere = "give --data-dir DIR (with wikitext/test.jsonl.gz, which `xmodel2 eval fetch` makes) or --text FILE"
    try:
        import datasets
    except ImportError:
        raise XmodelError(
            f"scaling: needs the package datasets (pip install 'xmodel2[eval]'); or {elsewhere}"
        ) from None
    name, subset, split = HUB
    try:
        rows = datasets.load_dataset(name, subset, split=split)
    except Exception as error:  # of many kinds: no network, no such data set, a full disk
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise XmodelError(f"data set {name!r}: cannot be fetched from the Hub ({first}); {elsewhere}") from None
    return [_field(row, f"{name}:{number}") for number, row in enumerate(rows)]


def _not_empty(name: str, documents: list[str]) -> Text:
    kept = [document for document in documents if document.strip()]
    if not kept:
        raise XmodelError(f"{name}: holds no text")
    return Text(name, kept)
