"""A model behind an OpenAI-compatible server (vLLM, SGLang, ...) as a `Backend`.

pairs   -> ids or text with echo and logprobs -> POST /completions      -> nats of the continuation's tokens
prompts -> at most four stop strings          -> POST /completions      -> text, cut here as well
        -> one message of the user            -> POST /chat/completions -> (no log-probabilities: the API has none)
"""

import hashlib
import json
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from xmodel2.errors import XmodelError, nearest
from xmodel2.eval.backend import Prompt
from xmodel2.eval.endpoint_answer import chat_text, completion_text, score_ids, score_text
from xmodel2.eval.endpoint_client import EndpointClient, EndpointError
from xmodel2.eval.requests import cut_at_stop, distinct, encode_pair, fit_pair, fit_prompt, fit_windows, sum_windows
from xmodel2.eval.text import TextTokenizer, tokenizer_hash

_DEFAULT_LENGTH = 2048
"""Context of a server that does not tell, as lm-evaluation-harness has it."""
_MAX_STOPS = 4
"""OpenAI's limit."""
Ids = tuple[int, ...]
Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")


class EndpointBackend:
    """A model of a server.

    With ``tokenizer`` (directory or hub id) prompts go out as token ids, and only then can long texts be scored and prompts be
    cut to the context; without, as text, before which the server puts its own first token. ``api_key_env`` names the
    environment variable that holds the key: none is sent unasked. ``max_length`` is the context in tokens, None to ask the
    server; ``backoff_s`` the first pause before another try, which doubles.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key_env: str | None = None,
        chat: bool = False,
        tokenizer: Path | str | None = None,
        max_length: int | None = None,
        concurrency: int = 8,
        timeout_s: float = 300.0,
        retries: int = 5,
        backoff_s: float = 1.0,
        seed: int = 0,
    ) -> None:
        self._client = EndpointClient(base_url, api_key_env, concurrency, timeout_s, retries, backoff_s, seed)
        self._model, self._chat, self._given_length = model, chat, max_length
        self._tokenizer = TextTokenizer(_load_tokenizer(tokenizer)) if tokenizer is not None and not chat else None

    @property
    def description(self) -> dict[str, Any]:
        """As `Backend` has it; the fingerprint is of URL, model, tokenizer and context: a server's weights cannot be seen."""
        parts: list[Any] = [self._client.base_url, self._model, self._chat, None]
        if self._tokenizer:  # only then are prompts cut here
            parts[-1:] = [tokenizer_hash(self._tokenizer.tokenizer), self.max_length]
        return {
            "name": self._model,
            "backend": "endpoint",
            "fingerprint": hashlib.sha256(json.dumps(parts).encode()).hexdigest(),
            "parameters": None,
            "dtype": None,
            "source": self._client.base_url,
        }

    @cached_property
    def max_length(self) -> int:
        """Context in tokens: what was given, what the server's list of models says, or 2,048."""
        if self._given_length is not None:
            return self._given_length
        try:
            models = self._client.ask(
                "/models", None, lambda answer: {str(m["id"]): m for m in answer["data"]}, "a list of models"
            )
        except EndpointError as error:
            if error.status in (404, 405, 501):
                return _DEFAULT_LENGTH
            raise
        if self._model not in models and len(models) > 1:  # a server of one model may call it as it likes
            there = self._client.hide(f"{', '.join(models)}.{nearest(self._model, models)}")
            raise XmodelError(f"{self._client.base_url}: no model {self._model!r}; there are {there}")
        length = next((models[name].get("max_model_len") for name in (self._model, *models) if name in models), None)
        return length if isinstance(length, int) else _DEFAULT_LENGTH

    def token_counts(self, texts: Sequence[str]) -> list[int] | None:
        """As `Backend` has it."""
        return self._tokenizer.count_tokens(texts) if self._tokenizer else None

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[int, tuple[float, bool]]]:
        """As `Backend` has it."""
        self._check_scores("log-likelihoods")
        if self._tokenizer is None:
            yield from self._answers([(context + c, len(context.rstrip())) for context, c in pairs], self._score_text)
            return
        rows = [
            fit_pair(*encode_pair(self._tokenizer.encode, *pair, self._tokenizer.prefix_id), self.max_length - 1)
            for pair in pairs
        ]
        yield from self._answers(rows, self._score_ids)

    def rolling(self, texts: Sequence[str]) -> Iterator[tuple[int, float]]:
        """As `Backend` has it; a window leaves room for the token that the server has to generate."""
        self._check_scores("log-likelihoods of texts")
        if self._tokenizer is None:
            raise XmodelError(
                f"{self._client.base_url}: texts are scored in windows of tokens, which needs the tokenizer; give its directory "
                "or hub id"
            )
        encoded = self._tokenizer.encode_many(texts, special=False)
        rows, owners = fit_windows(encoded, self._tokenizer.prefix_id, self.max_length)
        scored = ((window, nats) for window, (nats, _) in self._answers(rows, self._score_ids))
        yield from sum_windows(scored, owners, len(texts))

    def generate(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, str]]:
        """As `Backend` has it; a prompt too long for the context loses its beginning if there is a tokenizer."""
        yield from self._answers(prompts, self._generate)

    def _answers(
        self, jobs: Sequence[Key], ask: Callable[[Key, threading.Event], Answer]
    ) -> Iterator[tuple[int, Answer]]:
        """Ask each different job once; in groups that begin alike, which a server's prefix cache likes."""
        places = distinct(jobs)
        order = sorted(places, key=lambda job: job.text if isinstance(job, Prompt) else job)  # type: ignore[arg-type, return-value]
        for job, answer in self._client.ask_all(order, ask):
            yield from ((index, answer) for index in places[job])

    def _score_ids(self, row: tuple[Ids, int], stop: threading.Event) -> tuple[float, bool]:
        ids, scored = row
        expected = f"log-probabilities of the prompt's {len(ids)} tokens"
        return self._score(list(ids), lambda answer: score_ids(answer, len(ids), scored), expected, stop)

    def _score_text(self, row: tuple[str, int], stop: threading.Event) -> tuple[float, bool]:
        text, start = row
        return self._score(
            text, lambda answer: score_text(answer, text[start:]), "log-probabilities of the prompt's tokens", stop
        )

    def _score(
        self, prompt: str | list[int], read: Callable[[Any], Answer], expected: str, stop: threading.Event
    ) -> Answer:
        body = {"model": self._model, "prompt": prompt, "temperature": 0, "max_tokens": 1, "logprobs": 1, "echo": True}
        return self._client.ask("/completions", body, read, expected, stop)

    def _generate(self, prompt: Prompt, stop: threading.Event) -> str:
        body: dict[str, Any] = {
            "model": self._model,
            "max_tokens": prompt.max_new_tokens,
            "temperature": prompt.temperature,
        }
        if stops := [text for text in prompt.until if text][:_MAX_STOPS]:
            body["stop"] = stops
        if prompt.temperature > 0:
            body |= {"top_p": prompt.top_p, "seed": prompt.seed}
        if self._chat:
            body["messages"] = [{"role": "user", "content": prompt.text}]
            text = self._client.ask("/chat/completions", body, chat_text, "a chat completion", stop)
        else:
            body["prompt"] = prompt.text
            if self._tokenizer:
                ids = self._tokenizer.encode(prompt.text) or [self._tokenizer.prefix_id]
                body["prompt"], body["max_tokens"] = fit_prompt(ids, prompt.max_new_tokens, self.max_length)
            text = self._client.ask("/completions", body, completion_text, "a completion", stop)
        return cut_at_stop(text, prompt.until)

    def _check_scores(self, what: str) -> None:
        if self._chat:
            raise XmodelError(
                f"{self._client.base_url}: {what} are not to be had from chat completions, which give no log-probabilities of a "
                "prompt; run generation tasks only (gsm8k, math, bbh, humaneval, mbpp), or use the server's /completions"
            )


def _load_tokenizer(name: Path | str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(name))
    except (OSError, ValueError, KeyError) as error:
        raise XmodelError(f"tokenizer {name}: cannot be loaded ({str(error).splitlines()[0]})") from None
