"""How an engine is asked, and how its events are read: all engines say the same `Piece`s to the gateway.

    Asked -> prepare -> Question(path, body, prompt_tokens) -> engine -> events -> read -> Piece, Piece, ...

A model of ours is asked in token ids where the engine takes them (llama.cpp, vLLM): our tokenizer never reads ``<|end|>``
inside a user's text as the special token, and llama.cpp's breaks ties between segmentations otherwise than ours.
"""

import json
import math
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from xmodel2.errors import XmodelError
from xmodel2.release.serving.api_error import ApiError, wrong
from xmodel2.release.serving.requests import Asked
from xmodel2.tokenizer import Tokenizer

Logprob = dict[str, Any]
"""A token's text, log-probability (None: not known), bytes and ``top_logprobs``, as OpenAI's chat answers have them."""
_COMPLETION_TOKENS = 16
"""Tokens of a completion whose request says nothing: OpenAI's."""
_NEUTRAL: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""OpenAI's defaults: what the model says, untouched. llama.cpp's own, and many a generation_config.json, cut the tail off."""
_SAMPLERS = ["penalties", "temperature", "top_k", "top_p", "min_p"]
"""vLLM's order."""
_DENSE = {"x-guidance": {"whitespace_flexible": False}}
"""JSON without blanks between its parts, of which a small model writes until the limit."""
_LLAMA: dict[str, Any] = {
    "stream": True,
    "return_tokens": True,
    "response_fields": ["content", "stop", "stop_type", "tokens_predicted", "tokens_evaluated"],
}


@dataclass(slots=True)
class Piece:
    """A part of an answer."""

    text: str = ""
    tokens: int = 0
    """Tokens it was made of."""
    finish: str | None = None
    """stop or length, once it is over."""
    logprobs: list[Logprob] | None = None
    prompt_tokens: int | None = None
    all_tokens: int | None = None
    """Tokens of the whole answer, if the engine counts them itself."""


@dataclass(frozen=True)
class Question:
    """What is sent to the engine."""

    path: str
    body: dict[str, Any]
    prompt_tokens: int = 0
    """0 if the engine counts them."""
    stops: tuple[str, ...] = ()
    """Texts that end the answer and that the engine leaves in it."""
    read_on: bool = False
    """Beyond them, as only the engine's last words count the prompt."""


class Way(Protocol):
    """A kind of engine's language."""

    def prepare(self, asked: Asked) -> Question:
        """Return what to send. Raises `ApiError` for what cannot be asked."""

    def read(self, event: dict[str, Any]) -> Piece:
        """Return what an event says."""


@dataclass(frozen=True)
class Prompts:
    """Requests become token ids of a model of ours."""

    tokenizer: Tokenizer
    context: int
    _last: list[tuple[object, list[int]]] = field(default_factory=list, repr=False, compare=False)
    """The last prompt, and its ids: each answer to it is asked for by itself."""

    def ids(self, asked: Asked) -> tuple[list[int], int]:
        """Return the prompt's ids and how many tokens may follow. Raises `ApiError` (400) if they do not fit."""
        key = asked.prompt if asked.messages is None else asked.messages
        known = next((ids for prompt, ids in self._last if prompt is key), None) if asked.again else None
        if known is not None:
            ids = known
        elif asked.messages is not None:
            try:
                ids = self.tokenizer.encode_prompt(asked.messages)
            except XmodelError as error:
                raise wrong("messages", str(error)) from None
        elif isinstance(asked.prompt, str):
            ids = [self.tokenizer.bos_id, *self.tokenizer.encode(asked.prompt)]
        else:
            ids = asked.prompt
            if not all(0 <= token < self.tokenizer.vocab_size for token in ids):
                raise wrong("prompt", f"token ids are from 0 to {self.tokenizer.vocab_size - 1}")
        self._last[:] = [(key, ids)]
        room = self.context - len(ids)
        if room < 1:
            raise ApiError(
                400,
                f"the prompt has {len(ids):,} tokens, and the model's context is {self.context:,} tokens with the answer"
                " in it; shorten the prompt",
                code="context_length_exceeded",
                param="messages" if asked.messages is not None else "prompt",
            )
        otherwise = room if asked.messages is not None else _COMPLETION_TOKENS
        return ids, min(room, asked.options.get("max_tokens", otherwise))


class LlamaWay:
    """llama.cpp's own ``/completion``, asked in ids."""

    def __init__(self, prompts: Prompts) -> None:
        self._prompts = prompts

    def prepare(self, asked: Asked) -> Question:
        ids, tokens = self._prompts.ids(asked)
        if max(asked.options.get("logit_bias", ()), default=0) >= (size := self._prompts.tokenizer.vocab_size):
            raise wrong("logit_bias", f"token ids are from 0 to {size - 1}")
        given = _for_llama({name: value for name, value in asked.options.items() if name != "max_tokens"})
        if asked.logprobs is not None:
            given["n_probs"] = max(1, asked.logprobs)
        return Question(
            "/completion",
            _LLAMA | given | {"prompt": ids, "n_predict": tokens, "repeat_last_n": self._prompts.context},
            len(ids),
            tuple(asked.options.get("stop", ())),
        )

    def read(self, event: dict[str, Any]) -> Piece:
        if not event["stop"]:
            found = event.get("completion_probabilities")
            return Piece(
                event["content"],
                len(event["tokens"]),
                logprobs=[self._told(token) for token in found] if found else None,
                all_tokens=event["tokens_predicted"],
            )
        finish = "length" if event["stop_type"] == "limit" else "stop"
        return Piece(event["content"], finish=finish, all_tokens=event["tokens_predicted"])

    def _told(self, token: dict[str, Any]) -> Logprob:
        """Return a token's entry; one that also has the bytes of tokens before it is without what is of its last one only."""
        entry = _entry(token)
        alone = self._prompts.tokenizer.bytes_of(token["id"]) == bytes(token["bytes"])
        return entry if alone else {**entry, "logprob": None, "top_logprobs": []}


class OpenAIWay:
    """An engine that speaks OpenAI's protocol. With ``prompts`` it is asked in ids, chats too."""

    refused: tuple[str, ...] = ("response_format", "logit_bias")

    def __init__(self, model: str, prompts: Prompts | None = None, extra: dict[str, Any] | None = None) -> None:
        self._model, self._prompts, self._extra = model, prompts, extra or {}

    def prepare(self, asked: Asked) -> Question:
        for name, given in (("logprobs", asked.logprobs is not None), *asked.options.items()):
            if given not in (False, 0) and name in self.refused:
                raise wrong(name, "is not supported by this server's engine", "unsupported_value")
        body = {**asked.options, "model": self._model, "stream": True, **self._extra}
        chat = asked.messages is not None and self._prompts is None
        if asked.logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": asked.logprobs} if chat else {"logprobs": asked.logprobs}
        if chat:
            return Question("/v1/chat/completions", {**body, "messages": asked.messages})
        if self._prompts is None:
            return Question("/v1/completions", {"max_tokens": _COMPLETION_TOKENS, **body, "prompt": asked.prompt})
        ids, tokens = self._prompts.ids(asked)
        stops = {"stop_token_ids": self._prompts.tokenizer.stop_ids}
        return Question("/v1/completions", {**body, **stops, "prompt": ids, "max_tokens": tokens}, len(ids))

    def read(self, event: dict[str, Any]) -> Piece:
        usage = event.get("usage") or {}
        piece = Piece(prompt_tokens=usage.get("prompt_tokens"), all_tokens=usage.get("completion_tokens"))
        for choice in event.get("choices", [])[:1]:
            delta = choice.get("delta")
            piece.text = str((choice.get("text") if delta is None else delta.get("content")) or "")
            piece.tokens = int(bool(piece.text))
            piece.finish = choice.get("finish_reason")
            piece.logprobs = _entries(choice.get("logprobs"))
        return piece


class LlamaTextWay(OpenAIWay):
    """llama.cpp asked in text, for a GGUF file whose tokenizer only llama.cpp has."""

    refused = ()

    def prepare(self, asked: Asked) -> Question:
        question = super().prepare(asked)
        body = _for_llama(question.body) | {"timings_per_token": True}  # which count, too
        return replace(question, body=body, stops=tuple(asked.options.get("stop", ())))

    def read(self, event: dict[str, Any]) -> Piece:
        piece = super().read(event)
        if counts := event.get("timings"):
            piece.prompt_tokens, piece.all_tokens = counts["cache_n"] + counts["prompt_n"], counts["predicted_n"]
        return piece


class TransformersWay(OpenAIWay):
    """`transformers serve` takes texts only, samples only if its generation config says so, and keeps stop texts.

    With ``counted`` prompts are counted by our tokenizer; the engine's reads names of special tokens inside them as such.
    """

    refused = (*OpenAIWay.refused, "logprobs", "presence_penalty", "frequency_penalty")

    def __init__(self, model: str, generation: dict[str, Any], counted: Prompts | None = None) -> None:
        super().__init__(model)
        self._generation, self._counted = generation, counted

    def prepare(self, asked: Asked) -> Question:
        question = super().prepare(asked)
        body, tokens = dict(question.body), 0
        if self._counted:
            ids, body["max_tokens"] = self._counted.ids(asked)
            tokens = len(ids)
        settings = _NEUTRAL | {name: body.pop(name) for name in _NEUTRAL if name in body}
        settings["top_k"] = max(settings["top_k"], 0)
        sampled = settings if settings["temperature"] > 0 else {"repetition_penalty": settings["repetition_penalty"]}
        body["generation_config"] = json.dumps({**self._generation, "do_sample": sampled is settings, **sampled})
        return Question(question.path, body, tokens, tuple(asked.options.get("stop", ())), read_on=not tokens)


def _for_llama(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings by llama.cpp's names.

    Without stop texts: told of them, it loses what it holds back at the limit, and gives log-probabilities to other tokens.
    """
    given = {**_NEUTRAL, **settings, "samplers": _SAMPLERS}
    given.pop("stop", None)
    given["repeat_penalty"] = given.pop("repetition_penalty")
    if "logit_bias" in given:
        given["logit_bias"] = [[token, bias] for token, bias in given["logit_bias"].items()]
    if "response_format" in given:
        given["json_schema"] = given.pop("response_format") | _DENSE
    if "seed" in given:
        given["seed"] %= 2**32 - 1  # 2**32 - 1 itself asks for a random one
    return given


def _entry(token: dict[str, Any]) -> Logprob:
    shown = {"token": token["token"], "logprob": _finite(token["logprob"]), "bytes": token.get("bytes")}
    top = token.get("top_logprobs")
    return shown if top is None else {**shown, "top_logprobs": [_entry(other) for other in top]}


def _finite(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else -9999.0  # as OpenAI says "very unlikely" in JSON


def _entries(found: dict[str, Any] | None) -> list[Logprob] | None:
    if not found:
        return None
    if found.get("content") is not None:
        return [_entry(token) for token in found["content"]]
    tops = found.get("top_logprobs") or [{} for _ in found["tokens"]]
    return [
        {
            "token": token,
            "logprob": _finite(value),
            "bytes": list(token.encode()),
            "top_logprobs": [
                {"token": other, "logprob": _finite(its), "bytes": list(other.encode())}
                for other, its in (top or {}).items()
            ],
        }
        for token, value, top in zip(found["tokens"], found["token_logprobs"], tops, strict=True)
    ]
