"""Held-out questions with known answers, kept beside the shards, so that any run on them can be asked later.

A held-out instruction document that carries `answer` beside its `messages` is a question; `task` groups it (otherwise the
name of its source does).
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from xmodel2.data.document import Document
from xmodel2.data.shards import ShardSet, read_index
from xmodel2.errors import XmodelError
from xmodel2.files import as_path, file_record, write_text_atomic
from xmodel2.tokenizer import Message, Tokenizer

QUESTIONS_FILE = "questions.jsonl"


def is_question(document: Document) -> bool:
    """Tell whether a document has a question and then the assistant's answer, which is known."""
    messages = document.get("messages")
    if not messages or len(messages) < 2 or not isinstance(document.get("answer"), str):
        return False
    return bool(messages[-1]["role"] == "assistant")


def write_questions(folder: Path, documents: Sequence[Document]) -> dict[str, Any]:
    """Write a source's questions and return their record for the index."""
    path = Path(folder) / QUESTIONS_FILE
    write_text_atomic(path, "".join(json.dumps(document) + "\n" for document in documents))
    return {"file": path.name, **file_record(path)}


def has_questions(directory: str | Path) -> bool:
    """Tell whether a data directory has held-out questions."""
    return any("questions" in entry for entry in read_index(directory)["sources"].values())


def read_questions(directory: str | Path) -> list[Document]:
    """Return the held-out questions of a data directory. Raises `XmodelError` if it has none."""
    found: list[Document] = []
    for name, entry in read_index(directory)["sources"].items():
        if "questions" in entry:
            path = as_path(directory) / name / entry["questions"]["file"]
            try:
                lines = path.read_text(encoding="utf-8").split("\n")[:-1]
                found += [{"task": name, **json.loads(line)} for line in lines]
            except (OSError, ValueError) as error:
                raise XmodelError(f"{path}: cannot be read ({error}); prepare the data again") from None
    if not found:
        raise XmodelError(
            f"{directory}: no held-out questions; prepare it with a source of kind sft whose held-out documents have"
            " an `answer` beside their messages"
        )
    return found


def heldout_answers(shards: ShardSet, sources: Iterable[str], tokenizer: Tokenizer, most: int) -> list[Document]:
    """Return chats that end with an answer, read back from held-out shards: ``most`` a source at most, which is their `task`."""
    return [chat for name in sources for chat in islice(_answered(shards, name, tokenizer), most)]


def _answered(shards: ShardSet, name: str, tokenizer: Tokenizer) -> Iterator[Document]:
    split = shards.source(name).heldout
    for number in range(split.documents if split else 0):
        messages = _decoded(split.document(number).tolist(), tokenizer) if split else []
        if len(messages) > 1 and messages[-1]["role"] == "assistant" and messages[-1]["content"]:
            yield {"task": name, "messages": messages}


def _decoded(ids: Sequence[int], tokenizer: Tokenizer) -> list[Message]:
    """Return the messages whose `encode_chat` is ``ids``; none of a document that is no chat."""
    roles = {role_id: role for role, role_id in tokenizer.role_ids.items()}
    turns: list[tuple[str, list[int]]] = []
    for token in ids:
        if token in roles:
            turns.append((roles[token], []))
        elif turns and token not in (tokenizer.end_id, tokenizer.eos_id):
            turns[-1][1].append(token)
    return [{"role": role, "content": tokenizer.decode(content)} for role, content in turns]
