"""A corpus to start with, no download: the embedded text and verifiable instruction data, as files that `data prepare` takes.

DIR/{docs,code,web}.jsonl  {docs,code,web}-heldout.jsonl   text (data/embedded.py); every 16th document is held out
DIR/reasoning.jsonl  reasoning-heldout.jsonl               questions with answers (data/reasoning.py), no question in both
DIR/sources.toml                                           names them all
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xmodel2.data.embedded import embedded_corpus
from xmodel2.data.reasoning import reasoning_examples
from xmodel2.files import replaced_folder, write_text_atomic

COMMAND = "data starter"
_KINDS = {"docs": "text", "code": "text", "web": "text", "reasoning": "sft"}
_HELDOUT_EVERY = 16
_HEAD = """# Text that this machine already had, and questions made by reasoning-gym.
[tokenizer]
vocab_size = {vocab_size}
"""
_SOURCE = """
[sources.{name}]
kind = "{kind}"
files = ["{name}.jsonl"]
heldout = ["{name}-heldout.jsonl"]
"""


def write_starter_corpus(
    out: Path,
    max_bytes: int = 8_000_000,
    examples: int = 30_000,
    heldout_examples: int = 450,
    vocab_size: int = 8192,
    overwrite: bool = False,
) -> dict[str, int]:
    """Write the corpus into ``out`` and return the number of documents by file.

    Args:
        out: folder to write
        max_bytes: of each text source
        examples: questions to train on
        heldout_examples: questions to be held out, from another seed
        vocab_size: pieces of the tokenizer that sources.toml asks for
        overwrite: replace ``out``

    Raises `XmodelError` if ``out`` exists.
    """
    with replaced_folder(Path(out), overwrite, COMMAND) as folder:
        files: dict[str, list[dict[str, Any]]] = {}
        for name, texts in sorted(embedded_corpus(max_bytes).items()):
            documents = [{"text": text} for text in texts]
            files[f"{name}-heldout"] = documents[::_HELDOUT_EVERY]
            files[name] = [document for number, document in enumerate(documents) if number % _HELDOUT_EVERY]
        files["reasoning"] = reasoning_examples(examples, seed=1)
        asked = {example["question"] for example in files["reasoning"]}
        files["reasoning-heldout"] = reasoning_examples(heldout_examples, seed=2, exclude=asked)
        for name, documents in files.items():
            write_text_atomic(folder / f"{name}.jsonl", _lines(documents))
        tables = [_SOURCE.format(name=name, kind=kind) for name, kind in _KINDS.items()]
        write_text_atomic(folder / "sources.toml", _HEAD.format(vocab_size=vocab_size) + "".join(tables))
    return {name: len(documents) for name, documents in files.items()}


def _lines(documents: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(document) + "\n" for document in documents)
