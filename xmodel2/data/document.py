"""Records of any layout become documents: {"text": ...}, or {"messages": [{"role": ..., "content": ...}, ...]}.

A chat may carry `answer` and `task` (`data/questions.py`). Line ends become \\n. What cannot be used is a ValueError
with the reason.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.recipe.preparation import FieldSettings
from xmodel2.tokenizer.load import ROLES, Message, is_unicode

Document = dict[str, Any]
PLAIN = FieldSettings()
_BESIDE = ("answer", "task")
TURNS_APART = "\n\n"
"""What stands between two turns of a chat that is written as text."""


def to_document(record: Any, fields: FieldSettings = PLAIN) -> Document:
    """Return the document in a record. Raises ValueError with the reason if there is none."""
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    turns, text = _get(record, fields.messages), _get(record, fields.text)
    if fields.instruction is not None and fields.output is not None:
        document: Document = {"messages": _triple(record, fields)}
    elif turns is not None and not (turns == [] and isinstance(text, str)):
        document = {"messages": _messages(turns, fields)}
    elif isinstance(text, str):
        document = {"text": _unix(text)}
    elif text is not None:
        raise ValueError(f"{fields.text} is not text")
    else:
        raise ValueError(f"neither {fields.text} nor {fields.messages}")
    text = document_text(document)
    if not text.strip():
        raise ValueError("no text in it")
    if "\0" in text:
        raise ValueError("a NUL character, so probably not text")
    if not is_unicode(text):
        raise ValueError("a lone surrogate, which is no Unicode text")
    if "messages" in document:
        for key in _BESIDE:
            value = record.get(key)
            if isinstance(value, float) and value.is_integer():  # a column of whole numbers with gaps
                value = int(value)
            if isinstance(value, str | int | float) and not isinstance(value, bool) and value == value:
                document[key] = str(value)
        if not all(is_unicode(document.get(key, "")) for key in _BESIDE):
            raise ValueError("a lone surrogate, which is no Unicode text")
    return document


def to_documents(
    records: Iterable[tuple[str, Any]],
    fields: FieldSettings = PLAIN,
    strict: bool = False,
    on_skip: Callable[[str], None] | None = None,
) -> Iterator[tuple[str, Document]]:
    """Yield (place, document) of (place, record, or what parses it and raises ValueError).

    ``on_skip`` receives "place: reason" for each record that is none; with ``strict`` it is an `XmodelError`.
    """
    for place, record in records:
        try:
            document = to_document(record() if callable(record) else record, fields)
        except ValueError as error:
            if strict:
                raise XmodelError(f"{place}: {error}") from None
            if on_skip:
                on_skip(f"{place}: {error}")
        else:
            yield place, document


def field_columns(fields: FieldSettings) -> set[str]:
    """Return the names that fields of a document may have in a record; of a nested one, also of what it lies in."""
    names = [fields.text, fields.messages, fields.instruction, fields.input, fields.output, fields.system, *_BESIDE]
    return {part for name in names if name is not None for part in (name, name.partition(".")[0])}


def document_text(document: Document) -> str:
    """Return the text of a document, or of all its messages joined by newlines."""
    if isinstance(document.get("text"), str):
        return str(document["text"])
    return "\n".join(message["content"] for message in document["messages"])


def chat_as_text(messages: Sequence[Message]) -> str:
    """Return a chat as pretraining text: what is said, in order, a blank line between two turns.

    >>> chat_as_text([{"role": "user", "content": "1 + 2?"}, {"role": "assistant", "content": "3"}])
    '1 + 2?\\n\\n3'
    """
    return TURNS_APART.join(message["content"] for message in messages if message["content"])


def _triple(record: dict[str, Any], fields: FieldSettings) -> list[dict[str, str]]:
    values = {}
    for key in ("system", "instruction", "input", "output"):
        name = getattr(fields, key)
        value = _get(record, name) if name is not None else None
        if not isinstance(value or "", str) or (key in ("instruction", "output") and not isinstance(value, str)):
            raise ValueError(f"{name} is {'missing' if value is None else 'not text'}")
        values[key] = _unix(value or "")
    question = "\n\n".join(part for part in (values["instruction"], values["input"]) if part)
    turns = [("system", values["system"]), ("user", question), ("assistant", values["output"])]
    return [{"role": role, "content": content} for role, content in turns if role != "system" or content]


def _messages(turns: Any, fields: FieldSettings) -> list[dict[str, str]]:
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"{fields.messages} is not a list of at least one")
    messages = []
    for number, turn in enumerate(turns):
        where = f"{fields.messages}[{number}]"
        if not isinstance(turn, dict) or turn.get(fields.content) is None:
            raise ValueError(f"{where} lacks {fields.content}")
        if not isinstance(turn[fields.content], str):
            raise ValueError(f"{where}.{fields.content} is not text")
        role = turn.get(fields.role)
        role = fields.roles.get(role, role) if isinstance(role, str) else role
        if role not in ROLES:
            raise ValueError(f"{where}.{fields.role} is not one of {', '.join([*ROLES, *fields.roles])}: {role!r}")
        if role == "system" and number:
            raise ValueError(f"{where}: a system message must come first")
        messages.append({"role": role, "content": _unix(turn[fields.content])})
    return messages


def _get(record: dict[str, Any], name: str) -> Any:
    """Return a field; ``a.b`` is field b of field a, unless there is a field of that very name."""
    if name in record:
        return record[name]
    head, dot, rest = name.partition(".")
    inner = record.get(head) if dot else None
    return _get(inner, rest) if isinstance(inner, dict) else None


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
