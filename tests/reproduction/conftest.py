"""A folder of sources, small, with a folder for each that the mixtures are made of."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from xmodel2.reproduction.kinds import INSTRUCTIONS, TEXT


def write_documents(path: Path, documents: Sequence[dict[str, Any]]) -> None:
    """Write a .jsonl.gz file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in documents).encode(), mtime=0))


def chat(question: str, answer: str) -> dict[str, Any]:
    """Return a chat of two turns."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files of three documents and a held-out one in each folder; few questions."""
    monkeypatch.setattr("xmodel2.reproduction.corpus._QUESTIONS", 40)
    monkeypatch.setattr("xmodel2.reproduction.corpus._HELDOUT_QUESTIONS", 8)
    folder = tmp_path / "sources"
    for kind in (*TEXT.values(), *INSTRUCTIONS.values()):
        for name in kind.folders:
            for part in ("000", "001", "heldout"):
                said = [f"{name} {part} {number} " + "word " * 20 for number in range(3)]
                rows = [chat(f"About {text}?", text) if name.startswith("sft-") else {"text": text} for text in said]
                write_documents(folder / name / f"{name}-{part}.jsonl.gz", rows)
    return folder
