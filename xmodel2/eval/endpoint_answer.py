"""What an OpenAI-compatible server answers, checked: a wrong answer is never a score.

With ``echo`` and ``logprobs`` a completion lists every token of the prompt, then the one that was generated:

    {"choices": [{"text": ..., "logprobs": {"tokens": [The, sky, is, blue, .], "token_logprobs": [null, -4.1, -0.9, -2.0, -1.1],
                                            "top_logprobs": [null, {cat: -2.3}, ...]}}],
     "usage": {"prompt_tokens": 4, "completion_tokens": 1}}
"""

import math
from typing import Any

from xmodel2.eval.endpoint_client import UnusableError


def score_ids(answer: Any, sent: int, scored: int) -> tuple[float, bool]:
    """Return nats of the last ``scored`` of ``sent`` prompt tokens, and whether each is the most probable.

    Raises `UnusableError` unless exactly the tokens that were sent are there.
    """
    logprobs, prompt = _echo(answer)
    if prompt != sent:
        raise UnusableError(
            f"log-probabilities of {prompt} tokens where {sent} were sent (does the server support echo with logprobs, and add no "
            "token of its own?)",
            temporary=False,
        )
    return _sum(logprobs, sent - scored, sent)


def score_text(answer: Any, continuation: str) -> tuple[float, bool]:
    """Return nats of the prompt's tokens that spell the ``continuation`` at its end, and whether each is the most probable.

    A token that begins before the continuation belongs to the context. Raises `UnusableError` if the tokens spell something
    else.
    """
    logprobs, end = _echo(answer)
    tokens = [str(token) for token in logprobs["tokens"][:end]]
    start, length = end, 0
    while start and length + len(tokens[start - 1]) <= len(continuation):
        start -= 1
        length += len(tokens[start])
    spelt = "".join(tokens[max(0, start - 1) : end] if length < len(continuation) else tokens[start:end])
    if not spelt.endswith(continuation):
        raise UnusableError(
            f"tokens that end in {spelt!r} for a text that ends in {continuation!r} (does the server support echo with "
            "logprobs? give a tokenizer, so that ids are sent)",
            temporary=False,
        )
    return _sum(logprobs, start, end)


def completion_text(answer: Any) -> str:
    """Return the generated text of a completion."""
    return _text(_choice(answer)["text"])


def chat_text(answer: Any) -> str:
    """Return the content of the assistant's message; none is an empty answer (a filter, or all tokens went into thought)."""
    content = _choice(answer)["message"]["content"]
    return "" if content is None else _text(content)


def _choice(answer: Any) -> Any:
    choices = answer["choices"]
    if len(choices) != 1:
        raise UnusableError(f"{len(choices)} choices where one was asked for")
    return choices[0]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise UnusableError(f"a {type(value).__name__} where text should be")
    return value


def _echo(answer: Any) -> tuple[dict[str, list[Any]], int]:
    """Return the log-probabilities and how many of the entries are the prompt's."""
    logprobs = _choice(answer).get("logprobs")
    if not logprobs:
        raise UnusableError("no log-probabilities (does the server support logprobs in completions?)", temporary=False)
    entries = len(logprobs["token_logprobs"])
    if len(logprobs["top_logprobs"]) != entries:
        raise UnusableError("lists of log-probabilities that differ in length")
    usage = answer.get("usage") or {}
    prompt = entries - int(usage.get("completion_tokens", 1))
    read = usage.get("prompt_tokens", prompt)
    if read != prompt:
        raise UnusableError(
            f"log-probabilities of {prompt} tokens of a prompt of {read} (does the server support echo with logprobs?)",
            temporary=False,
        )
    return logprobs, prompt


def _sum(logprobs: dict[str, list[Any]], start: int, end: int) -> tuple[float, bool]:
    nats, greedy = 0.0, True
    for value, top in zip(logprobs["token_logprobs"][start:end], logprobs["top_logprobs"][start:end], strict=True):
        if value is None:
            raise UnusableError("no log-probability of the prompt's first token (give a tokenizer)", temporary=False)
        if not isinstance(value, int | float) or not math.isfinite(value) or value > 1e-3 or not top:
            raise UnusableError(f"{value} and {top} where log-probabilities should be")
        nats += value
        greedy = greedy and value >= max(top.values())
    return nats, greedy
