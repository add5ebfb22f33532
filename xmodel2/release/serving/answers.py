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
    """One choice, and its usage so far."""

    def __init__(self, asked: Asked, head: dict[str, Any], index: int, prompt_tokens: int) -> None:
        self._chat, self._alternatives, self.again = asked.messages is not None, asked.logprobs, asked.again
        self.prompt_tokens, self.tokens, self._index = prompt_tokens, 0, index
        self.finish: str | None = None
        self._offset, self._begun = 0, False
        usage = ',"usage":null' if asked.include_usage else ""
        self._choice = f'{_open(head, self._chat)}{usage},"choices":[{{"index":{index},'

    def count(self, piece: Piece) -> None:
        """Add a piece to the usage."""
        self.tokens += piece.tokens
        self.tokens = piece.all_tokens if piece.all_tokens is not None else self.tokens
        self.prompt_tokens = piece.prompt_tokens or self.prompt_tokens
        self.finish = piece.finish or self.finish

    def said(self, piece: Piece | None) -> bytes:
        """Return the events of a piece, if there is anything to say; of the end, without one."""
        events = b"" if self._begun or not self._chat else self._event('"delta":{"role":"assistant","content":""}')
        self._begun = True
        if piece is None:
            content = '"delta":{}' if self._chat else '"text":""'
            return events + self._event(content, _dumps(self.finish or "stop"))
        if not piece.text and not piece.logprobs:
            return events
        said = _dumps(piece.text)
        content = f'"delta":{{"content":{said}}}' if self._chat else f'"text":{said}'
        return events + self._event(content + self._logprobs_of(piece))

    def _event(self, content: str, finish: str = "null") -> bytes:
        return f'data: {self._choice}{content},"finish_reason":{finish}}}]}}\n\n'.encode(errors="replace")

    def choice(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Return it whole."""
        text = "".join(piece.text for piece in pieces)
        entries = [entry for piece in pieces for entry in piece.logprobs or []]
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        logprobs = None if self._alternatives is None else self._logprobs(entries)
        return {"index": self._index, **said, "logprobs": logprobs, "finish_reason": self.finish or "stop"}

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


class Answers:
    """The choices of one request, and what it has used in all."""

    def __init__(self, asked: Sequence[Asked], model: str, prompt_tokens: Sequence[int]) -> None:
        self._chat, self._told = asked[0].messages is not None, asked[0].include_usage
        self._head = {
            "id": ("chatcmpl-" if self._chat else "cmpl-") + secrets.token_hex(12),
            "object": "chat.completion" if self._chat else "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        self.each = [
            Answer(one, self._head, index, count)
            for index, (one, count) in enumerate(zip(asked, prompt_tokens, strict=True))
        ]

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompts, each counted once."""
        return sum(answer.prompt_tokens for answer in self.each if not answer.again)

    @property
    def tokens(self) -> int:
        """Tokens of the answers."""
        return sum(answer.tokens for answer in self.each)

    @property
    def usage(self) -> dict[str, int]:
        """Return both, as OpenAI has them."""
        prompt, answer = self.prompt_tokens, self.tokens
        return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}

    def ending(self) -> bytes:
        """Return the last events of a stream."""
        opened = _open(self._head, self._chat)
        usage = f'data: {opened},"choices":[],"usage":{_dumps(self.usage)}}}\n\n'.encode() if self._told else b""
        return usage + DONE

    def whole(self, pieces: Sequence[Sequence[Piece]]) -> bytes:
        """Return the answers, by the pieces of each, in one JSON object."""
        choices = [answer.choice(said) for answer, said in zip(self.each, pieces, strict=True)]
        return _dumps({**self._head, "choices": choices, "usage": self.usage}).encode(errors="replace")


def _open(head: dict[str, Any], chat: bool) -> str:
    """Return the beginning of an event."""
    return _dumps(head | ({"object": "chat.completion.chunk"} if chat else {}))[:-1]


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
