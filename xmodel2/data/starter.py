"""A corpus to start with, no download: the embedded text and verifiable instruction data, as files that `data prepare` takes.

DIR/docs.jsonl  code.jsonl  web.jsonl               text (data/embedded.py)
DIR/reasoning.jsonl  reasoning-heldout.jsonl        questions with answers (data/reasoning.py), no question in both
DIR/sources.toml                                    names them all
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xmodel2.data.embedded import embedded_corpus
from xmodel2.data.reasoning import reasoning_examples
from xmodel2.errors import XmodelError
from xmodel2.files import write_text_atomic

_SOURCES = """# Text that this machine already had, and questions made by reasoning-gym.
[tokenizer]
vocab_size = {vocab_size}
{text}
[sources.reasoning]
kind = "sft"
files = ["reasoning.jsonl"]
heldout = ["reasoning-heldout.jsonl"]
"""
_TEXT = """
[sources.{name}]
files = ["{name}.jsonl"]
heldout_fraction = {heldout_fraction}
"""


def write_starter_corpus(
    out: Path,
    max_bytes: int = 4_000_000,
    examples: int = 30_000,
    heldout_examples: int = 450,
    vocab_size: int = 4096,
    heldout_fraction: float = 0.03,
    overwrite: bool = False,
) -> dict[str, int]:
    """Write the corpus into ``out`` and return the number of documents by file.

    Args:
        out: folder to write
        max_bytes: of each text source
        examples: questions to train on
        heldout_examples: questions to be held out, from another seed
        vocab_size: pieces of the tokenizer that sources.toml asks for
        heldout_fraction: share of the text documents to be held out
        overwrite: replace ``out``

    Raises `XmodelError` if ``out`` exists.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        if not overwrite:
            raise XmodelError(f"{out}: already exists; choose another --out, or give --overwrite")
        shutil.rmtree(out)
    corpus = embedded_corpus(max_bytes)
    files: dict[str, list[dict[str, Any]]] = {
        name: [{"text": text} for text in texts] for name, texts in sorted(corpus.items())
    }
    files["reasoning"] = reasoning_examples(examples, seed=1)
    asked = {example["question"] for example in files["reasoning"]}
    files["reasoning-heldout"] = reasoning_examples(heldout_examples, seed=2, exclude=asked)
    for name, documents in files.items():
        write_text_atomic(out / f"{name}.jsonl", _lines(documents))
    text = "".join(_TEXT.format(name=name, heldout_fraction=heldout_fraction) for name in sorted(corpus))
    write_text_atomic(out / "sources.toml", _SOURCES.format(vocab_size=vocab_size, text=text))
    return {name: len(documents) for name, documents in files.items()}


def _lines(documents: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(document) + "\n" for document in documents)
