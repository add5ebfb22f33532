"""Engines that get messages and give text: any OpenAI-compatible server, and llama.cpp on a file whose tokenizer is not ours.

messages -> /v1/chat/completions -> events -> text
            /v1/completions, if the server has no chats or the model no template
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.release.chatting.address import Address, AddressError
from xmodel2.release.chatting.streams import Sampling, TooLongError, Usage
from xmodel2.release.chatting.token_streams import LEAST_ROOM, llama_sampling, plain_text
from xmodel2.release.exporting.gguf_read import read_metadata
from xmodel2.release.llama_server import LlamaError, LlamaServer
from xmodel2.tokenizer import Message

Send = Callable[[str, dict[str, Any]], Iterator[dict[str, Any]]]
"""(path, body) -> events; raises an error with a ``status``."""
_NO_CHATS = {404, 405, 501}


class MessageEngine:
    """An `Engine` around what answers OpenAI's requests; ``settings`` names sampling settings as it wants them."""

    def __init__(
        self,
        model: str,
        kind: str,
        context: int,
        send: Send,
        settings: Callable[[Sampling], dict[str, Any]],
        *,
        chat: bool = True,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.model, self.kind, self.context, self.close = model, kind, context, close
        self._send, self._settings, self._chat = send, settings, chat
        self._tokens_a_letter = 0.0
        """Of the newest prompt."""

    def stream(self, messages: Sequence[Message], sampling: Sampling, usage: Usage) -> Iterator[str]:
        """Yield the answer as it comes. Raises `TooLongError` if the server says so, or little room would be left for it."""
        letters = sum(len(message["content"]) for message in messages)
        asked = sum(message["role"] == "user" for message in messages)
        least = min(sampling.max_new_tokens, self.context // LEAST_ROOM)
        # A guess, so never of a question alone; without it, answers get shorter and shorter as the context fills.
        if self.context and asked > 1 and self._tokens_a_letter * letters > self.context - least:
            raise TooLongError(f"the context of {self.context:,} tokens is full")
        yield from self._answer(messages, sampling, usage)
        self._tokens_a_letter = usage.prompt_tokens / max(1, letters)

    def _answer(self, messages: Sequence[Message], sampling: Sampling, usage: Usage) -> Iterator[str]:
        if self._chat:
            try:
                yield from self._read("/v1/chat/completions", {"messages": list(messages)}, sampling, usage)
                return
            except (AddressError, LlamaError) as error:
                if error.status not in _NO_CHATS and not _is_of_template(error):
                    raise
            usage.notes.append("the server has no chat template for this model: texts are continued")
            self._chat = False
        yield from self._read("/v1/completions", {"prompt": plain_text(messages)}, sampling, usage)

    def _read(self, path: str, body: dict[str, Any], sampling: Sampling, usage: Usage) -> Iterator[str]:
        body |= {"model": self.model, "max_tokens": sampling.max_new_tokens, "stream": True}
        body |= {"stream_options": {"include_usage": True}, **self._settings(sampling)}
        try:
            for event in self._send(path, body):
                if "error" in event:
                    raise AddressError(500, str(_field(event["error"], "message", str) or event["error"]))
                yield from self._text(event, usage)
        except (AddressError, LlamaError) as error:
            if error.status in (400, 413, 500) and _is_too_long(error):
                raise TooLongError(str(error)) from None
            raise

    def _text(self, event: dict[str, Any], usage: Usage) -> Iterator[str]:
        for choice in _field(event, "choices", list) or []:
            usage.finish = _field(choice, "finish_reason", str) or usage.finish
            delta = _field(choice, "delta", dict) or {}
            if text := _field(delta, "content", str) or _field(choice, "text", str):
                usage.tokens += 1
                usage.came()
                yield text
        counts = _field(event, "usage", dict) or {}
        usage.prompt_tokens = _field(counts, "prompt_tokens", int) or usage.prompt_tokens
        usage.tokens = _field(counts, "completion_tokens", int) or usage.tokens


def _field(value: Any, name: str, kind: type) -> Any:
    """Return a field if it is there and of the kind: servers differ in what they send."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, kind) else None


def _is_of_template(error: XmodelError) -> bool:
    return "template" in str(error).lower()


def _is_too_long(error: AddressError | LlamaError) -> bool:
    if isinstance(error, AddressError) and error.code == "context_length_exceeded":
        return True
    said = str(error).lower()  # servers that have no such code
    return "context" in said and any(word in said for word in ("length", "size", "exceed", "window", "long"))


def address_engine(address: Address, name: str = "") -> MessageEngine:
    """Return a server as an engine; ``name`` is the model's there, by default the first that it lists."""
    found = address.models()
    listed = [str(row["id"]) for row in found]
    if name and listed and name not in listed:
        raise XmodelError(f"{address.url}: has no model {name!r}; it has {', '.join(listed)}")
    chosen = name or (listed[0] if listed else "default")
    context = next((_context(row) for row in found if str(row["id"]) == chosen), 0)
    return MessageEngine(chosen, address.url, context, address.stream, _openai_sampling)


def _context(row: dict[str, Any]) -> int:
    """Return the context that a server tells of a model (vLLM, llama.cpp), 0 if it does not."""
    return _field(row, "max_model_len", int) or _field(row.get("meta"), "n_ctx", int) or 0


def _openai_sampling(sampling: Sampling) -> dict[str, Any]:
    """Return settings as OpenAI names them; those it does not have only if they were asked for."""
    asked = {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": sampling.seed}
    usual = Sampling()
    for name in ("top_k", "min_p", "repetition_penalty"):
        if getattr(sampling, name) != getattr(usual, name):
            asked[name] = getattr(sampling, name)
    return asked


def file_engine(server: LlamaServer, model: str, kind: str) -> MessageEngine:
    """Return llama.cpp on a GGUF file with a tokenizer of its own; closing the engine closes the server."""
    chat = "tokenizer.chat_template" in read_metadata(server.gguf)
    kind += "" if chat else ", without a chat template: texts are continued"
    settings = partial(llama_sampling, context=server.context)
    return MessageEngine(model, kind, server.context, server.stream, settings, chat=chat, close=server.close)
