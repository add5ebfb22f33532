"""Pieces of an answer in OpenAI's forms: chat or completion, streamed or whole."""

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from xmodel2.release.serving.requests import Asked
from xmodel2.release.serving.ways import Logprob, Piece

DONE = b"data: [DONE]\n\n"


class Answer:
    """What is said to one request, and its usage so far."""

    def __init__(self, asked: Asked, model: str, prompt_tokens: int) -> None:
        self._chat, self._alternatives, self._usage = asked.messages is not None, asked.logprobs, asked.include_usage
        self.prompt_tokens, self.tokens = prompt_tokens, 0
        self.finish: str | None = None
        self._offset = 0
        self._head = {
            "id": ("chatcmpl-" if self._chat else "cmpl-") + secrets.token_hex(12),
            "object": "chat.completion" if self._chat else "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        chunk = self._head | ({"object": "chat.completion.chunk"} if self._chat else {})
        usage = ',"usage":null' if self._usage else ""
        self._open = _dumps(chunk)[:-1]
        self._choice = f'{self._open}{usage},"choices":[{{"index":0,'

    def count(self, piece: Piece) -> None:
        """Add a piece to the usage."""
        self.tokens += piece.tokens
        self.tokens = piece.all_tokens if piece.all_tokens is not None else self.tokens
        self.prompt_tokens = piece.prompt_tokens or self.prompt_tokens
        self.finish = piece.finish or self.finish

    @property
    def usage(self) -> dict[str, int]:
        """Return the tokens of prompt and answer."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": self.prompt_tokens + self.tokens,
        }

    def beginning(self) -> bytes:
        """Return the first event: a chat says who speaks."""
        role = '"delta":{"role":"assistant","content":""},"finish_reason":null}]}'
        return f"data: {self._choice}{role}\n\n".encode() if self._chat else b""

    def event(self, piece: Piece) -> bytes:
        """Return the event of a piece's text."""
        said = _dumps(piece.text)
        content = f'"delta":{{"content":{said}}}' if self._chat else f'"text":{said}'
        return f'data: {self._choice}{content}{self._logprobs_of(piece)},"finish_reason":null}}]}}\n\n'.encode(
            errors="replace"
        )

    def ending(self) -> bytes:
        """Return the last events."""
        content = '"delta":{}' if self._chat else '"text":""'
        finish = _dumps(self.finish or "stop")
        last = f'data: {self._choice}{content},"finish_reason":{finish}}}]}}\n\n'.encode()
        usage = f'data: {self._open},"choices":[],"usage":{_dumps(self.usage)}}}\n\n'.encode() if self._usage else b""
        return last + usage + DONE

    def whole(self, pieces: Sequence[Piece]) -> bytes:
        """Return the answer in one JSON object."""
        text = "".join(piece.text for piece in pieces)
        entries = [entry for piece in pieces for entry in piece.logprobs or []]
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        logprobs = None if self._alternatives is None else self._logprobs(entries)
        choice = {"index": 0, **said, "logprobs": logprobs, "finish_reason": self.finish or "stop"}
        return _dumps({**self._head, "choices": [choice], "usage": self.usage}).encode(errors="replace")

    def _logprobs_of(self, piece: Piece) -> str:
        if self._alternatives is None:
            return ""
        return f',"logprobs":{_dumps(self._logprobs(piece.logprobs or []))}'

    def _logprobs(self, entries: list[Logprob]) -> dict[str, Any]:
        shown = [{**entry, "top_logprobs": entry.get("top_logprobs", [])[: self._alternatives]} for entry in entries]
        if self._chat:
            return {"content": shown}
        offsets = []
        for entry in shown:
            offsets.append(self._offset)
            self._offset += len(entry["token"])
        return {
            "tokens": [entry["token"] for entry in shown],
            "token_logprobs": [entry["logprob"] for entry in shown],
            "top_logprobs": [{top["token"]: top["logprob"] for top in entry["top_logprobs"]} for entry in shown],
            "text_offset": offsets,
        }


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
