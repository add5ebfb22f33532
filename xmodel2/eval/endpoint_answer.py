"""What an OpenAI-compatible server answers, checked: a wrong answer is never a score.

With ``echo`` and ``logprobs`` a completion lists every token of the prompt, then the one that was generated:

    {"choices": [{"text": ..., "logprobs": {"tokens": [The, sky, is, blue, .], "token_logprobs": [null, -4.1, -0.9, -2.0, -1.1],
                                            "top_logprobs": [null, {cat: -2.3}, ...]}}],
     "usage": {"prompt_tokens": 4, "completion_tokens": 1}}
"""

import math
from typing import Any

from xmodel2.eval.endpoint_client import UnusableError

_FINISHED = (None, "stop", "length", "eos_token", "stop_sequence")
"""OpenAI's two, and what text-generation-inference says for the first."""
_LASTING = ("content_filter", "tool_calls", "function_call")
"""Ends that another try meets again."""
_ROUNDING = 1e-3
_LOWEST_BEST = -7.0
"""No token as improbable as this, nats, is the most probable one of a model that has learnt anything."""


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

    Raises `UnusableError` if the tokens spell something else, or one of them spans the beginning of the continuation: what it
    says of its part cannot be told.
    """
    logprobs, end = _echo(answer)
    tokens = [str(token) for token in logprobs["tokens"][:end]]
    start, length = end, 0
    while start and length + len(tokens[start - 1]) <= len(continuation):
        start -= 1
        length += len(tokens[start])
    if not length or length < len(continuation):
        spelt = "".join(tokens[max(0, start - 1) : end])
        fault = "of which one spans the beginning of" if spelt.endswith(continuation) else "for a text that ends in"
    else:
        spelt, fault = "".join(tokens[start:end]), "for a text that ends in"
    if not length or spelt != continuation:
        raise UnusableError(
            f"tokens that end in {spelt!r} {fault} {continuation!r} (does the server support echo with logprobs? "
            "give --tokenizer, so that ids are sent)",
            temporary=False,
        )
    return _sum(logprobs, start, end)


def completion_text(answer: Any) -> str:
    """Return the generated text of a completion."""
    return _text(_choice(answer)["text"])


def chat_text(answer: Any) -> str:
    """Return the content of the assistant's message; it is empty if all tokens went into thought.

    Raises `UnusableError` for a refusal, or where there is no content.
    """
    choice = _choice(answer)
    message = choice["message"]
    if message.get("refusal"):
        raise UnusableError(f"a refusal ({_text(message['refusal'])})", temporary=False)
    thought = choice.get("finish_reason") == "length" or message.get("reasoning_content") or message.get("reasoning")
    if message["content"] is None and thought and not message.get("tool_calls"):
        return ""
    return _text(message["content"])


def _choice(answer: Any) -> Any:
    choices = answer["choices"]
    if len(choices) != 1:
        raise UnusableError(f"{len(choices)} choices where one was asked for")
    reason = choices[0].get("finish_reason")
    if reason not in _FINISHED:
        raise UnusableError(f"an answer that ended by {reason!r}", temporary=reason not in _LASTING)
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
    values, tops = logprobs["token_logprobs"][:end], logprobs["top_logprobs"][:end]
    if None in values[start:]:
        raise UnusableError("no log-probability of the prompt's first token (give --tokenizer)", temporary=False)
    nats, greedy = 0.0, True
    for value, top in zip(values[start:], tops[start:], strict=True):
        if not _is_nats(value) or not top or not all(map(_is_nats, top.values())):
            raise UnusableError(f"{value} and {top} where log-probabilities should be")
        best = max(top.values())
        if best < value - _ROUNDING:
            raise UnusableError(f"a best log-probability of {best} where a token has {value}", temporary=False)
        nats += value
        # Entries are by the token's text: one as improbable as this has hidden a best one of the same text.
        greedy = greedy and value >= max(best, _LOWEST_BEST)
    there = [(value, top) for value, top in zip(values, tops, strict=True) if value is not None and top]
    if not any(value for value, _ in there):
        raise UnusableError("log-probabilities that are all 0", temporary=False)
    alone = all(len(top) == 1 and max(top.values()) <= value + _ROUNDING for value, top in there)
    if alone and min(value for value, _ in there) < _LOWEST_BEST:
        raise UnusableError("each token's log-probability, but not that of the most probable one", temporary=False)
    return nats, greedy


def _is_nats(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value <= _ROUNDING
