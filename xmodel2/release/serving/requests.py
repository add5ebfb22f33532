"""A request's body becomes an `Asked` a choice, or a `ApiError` that names the field: checked once; only what is known goes on.

    {"messages": [{"role": "user", "content": "hi"}], "top_p": 0.9}  ->  [Asked(messages=[...], options={"top_p": 0.9})]

What would change the answer and cannot be done here (tools, images) is refused. Fields that clients send
by habit and that change nothing are left out. Values that are null count as absent, as they do at OpenAI.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from xmodel2.errors import nearest
from xmodel2.page import printable
from xmodel2.release.serving.api_error import ApiError, wrong
from xmodel2.release.serving.schemas import schema_of
from xmodel2.tokenizer import Message
from xmodel2.tokenizer.load import ROLES, is_unicode

_RANGES: dict[str, tuple[type, float, float]] = {
    "max_tokens": (int, 1, 2**31 - 1),
    "max_completion_tokens": (int, 1, 2**31 - 1),
    "temperature": (float, 0, 2),
    "top_p": (float, 0, 1),
    "top_k": (int, -1, 2**31 - 1),
    "min_p": (float, 0, 1),
    "repetition_penalty": (float, 0.01, 10),
    "presence_penalty": (float, -2, 2),
    "frequency_penalty": (float, -2, 2),
    "seed": (int, -(2**63), 2**63 - 1),
}
_IGNORED = {
    *("user", "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier", "reasoning_effort"),
    *("prompt_cache_key", "prompt_cache_retention", "verbosity", "tool_choice"),
}
_REFUSED: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "tools": ([],),
    "functions": ([],),
    "modalities": (["text"],),
    "audio": (),
}
"""Fields whose other values would change the answer, and the values that change nothing."""
_COMMON = {*_RANGES, "n", "model", "stop", "stream", "stream_options", "logprobs", "logit_bias", "response_format"}
_COMMON -= {"max_completion_tokens"}
_FIELDS = {True: {*_COMMON, "messages", "max_completion_tokens", "top_logprobs"}, False: {*_COMMON, "prompt"}}
_MAX_STOPS, _MAX_STOP = 16, 256
_MAX_LOGPROBS = 20
_MAX_BIASES = 1024
_MAX_CHOICES = 128
_SAME_ROLES = {"developer": "system"}
"""Other names of roles."""


@dataclass(frozen=True)
class Asked:
    """A request that makes sense, or one of the choices that it asks for."""

    model: str | None
    messages: list[Message] | None
    """A chat; None for a completion of `prompt`."""
    prompt: str | list[int] = ""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings that were given, by OpenAI's names: ``max_tokens`` under that name, ``logit_bias`` by token id, and as
    ``response_format`` the JSON schema that an answer keeps to."""
    logprobs: int | None = None
    """Alternatives whose log-probabilities are told of each token; None: none, not even the token's own."""
    stream: bool = False
    include_usage: bool = False
    again: bool = False
    """Whether it is another answer (``n``) to the prompt of the one before it."""


def parse(body: bytes, chat: bool) -> list[Asked]:
    """Return what a body asks for: ``n`` choices of each prompt, in order. Raises `ApiError` (400) naming the field.

    With a ``seed`` each choice of a prompt has its own, counted on from it.
    """
    try:
        value = json.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not UTF-8: byte {error.start} is wrong", code="invalid_json") from None
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply", code="invalid_json") from None
    except ValueError as error:
        raise ApiError(400, f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    given = {key: inner for key, inner in value.items() if inner is not None}
    for name in given:
        _check_known(name, given[name], chat)
    stream = _flag(given, "stream", False)
    prompts = [""] if chat else _prompts(given)
    asked = Asked(
        model=_text(given, "model"),
        messages=_messages(given) if chat else None,
        options=_options(given),
        logprobs=_logprobs(given, chat),
        stream=stream,
        include_usage=_include_usage(given, stream),
    )
    count = int(_number("n", given.get("n", 1), int, 1, _MAX_CHOICES))
    if count * len(prompts) > _MAX_CHOICES:
        raise wrong(
            "n" if count > 1 else "prompt",
            f"at most {_MAX_CHOICES} answers a request, and this asks for {count * len(prompts)}",
        )
    return [_choice(asked, prompt, number) for prompt in prompts for number in range(count)]


def _choice(asked: Asked, prompt: str | list[int], number: int) -> Asked:
    options = dict(asked.options)
    if "seed" in options:
        options["seed"] = (options["seed"] + number + 2**63) % 2**64 - 2**63  # on, round the numbers that there are
    return replace(asked, prompt=prompt, options=options, again=number > 0)


def _check_known(name: str, value: Any, chat: bool) -> None:
    if name in _REFUSED and value not in _REFUSED[name]:
        raise wrong(name, "is not supported here", "unsupported_value")
    if name not in _FIELDS[chat] and name not in _REFUSED and name not in _IGNORED:
        shown = printable(name[:60])
        hint = nearest(shown, _FIELDS[chat])
        raise ApiError(400, f"unknown field {shown!r}.{hint}", code="unknown_parameter", param=shown)


def _flag(given: dict[str, Any], name: str, otherwise: bool) -> bool:
    value = given.get(name, otherwise)
    if not isinstance(value, bool):
        raise wrong(name, f"must be true or false, not {_kind(value)}", "invalid_type")
    return value


def _text(given: dict[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise wrong(name, f"must be text, not {_kind(value)}", "invalid_type")
    return value


def _options(given: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {
        name: _number(name, given[name], *limits) for name, limits in _RANGES.items() if name in given
    }
    longest = options.pop("max_completion_tokens", None)
    if longest is not None:
        options["max_tokens"] = longest
    if bias := _logit_bias(given):
        options["logit_bias"] = bias
    if "response_format" in given and (schema := schema_of(given["response_format"])) is not None:
        options["response_format"] = schema
    stops = given.get("stop", [])
    stops = ([stops] if stops else []) if isinstance(stops, str) else stops
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise wrong("stop", "must be text or a list of texts", "invalid_type")
    if len(stops) > _MAX_STOPS or not all(0 < len(stop) <= _MAX_STOP and is_unicode(stop) for stop in stops):
        raise wrong("stop", f"takes at most {_MAX_STOPS} texts of 1 to {_MAX_STOP} letters")
    return options | ({"stop": stops} if stops else {})


def _logit_bias(given: dict[str, Any]) -> dict[int, float]:
    value = given.get("logit_bias", {})
    if not isinstance(value, dict):
        raise wrong("logit_bias", f"must be an object, not {_kind(value)}", "invalid_type")
    if len(value) > _MAX_BIASES or not all(re.fullmatch("[0-9]{1,9}", token) for token in value):
        raise wrong("logit_bias", f"takes at most {_MAX_BIASES:,} token ids as texts, each with a number")
    return {int(token): _number(f"logit_bias.{token}", bias, float, -100, 100) for token, bias in value.items()}


def _number(name: str, value: Any, kind: type, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(name, f"must be a number, not {_kind(value)}", "invalid_type")
    if kind is int and value != value // 1:  # also what is not finite
        raise wrong(name, "must be a whole number", "invalid_type")
    if not low <= value <= high or (isinstance(value, float) and not math.isfinite(value)):
        raise wrong(name, f"must be from {low:,} to {high:,}")
    return int(value) if kind is int else float(value)


def _logprobs(given: dict[str, Any], chat: bool) -> int | None:
    if not chat:
        number = given.get("logprobs")
        return None if number is None else int(_number("logprobs", number, int, 0, _MAX_LOGPROBS))
    number = int(_number("top_logprobs", given.get("top_logprobs", 0), int, 0, _MAX_LOGPROBS))
    if _flag(given, "logprobs", False):
        return number
    if number:
        raise wrong("top_logprobs", "needs logprobs to be true")
    return None


def _include_usage(given: dict[str, Any], stream: bool) -> bool:
    options = given.get("stream_options", {})
    if not isinstance(options, dict):
        raise wrong("stream_options", f"must be an object, not {_kind(options)}", "invalid_type")
    if options and not stream:
        raise wrong("stream_options", "is for requests with stream: true only")
    value = options.get("include_usage", False)
    if not isinstance(value, bool):
        raise wrong("stream_options.include_usage", "must be true or false", "invalid_type")
    return value


def _messages(given: dict[str, Any]) -> list[Message]:
    messages = given.get("messages")
    if not isinstance(messages, list):
        raise wrong("messages", "must be a list of messages", "missing" if messages is None else "invalid_type")
    if not messages:
        raise wrong("messages", "is empty; give at least one message")
    return [_message(f"messages[{number}]", message) for number, message in enumerate(messages)]


def _message(where: str, message: Any) -> Message:
    if not isinstance(message, dict):
        raise wrong(where, f"must be an object with role and content, not {_kind(message)}", "invalid_type")
    role = message.get("role")
    role = _SAME_ROLES.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        shown = printable(role[:40]) if isinstance(role, str) else _kind(role)
        raise wrong(f"{where}.role", f"{shown!r} must be user, assistant or system.{nearest(shown, ROLES)}")
    if message.get("tool_calls"):
        raise wrong(f"{where}.tool_calls", "is not supported here", "unsupported_value")
    content = message.get("content")
    if content is None and role == "assistant":
        content = ""
    if isinstance(content, list):
        content = "".join(_part(f"{where}.content[{number}]", part) for number, part in enumerate(content))
    if not isinstance(content, str):
        raise wrong(f"{where}.content", f"must be text, not {_kind(content)}", "invalid_type")
    return {"role": role, "content": _unicode(f"{where}.content", content)}


def _part(where: str, part: Any) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise wrong(where, 'only parts {"type": "text", "text": ...} are supported here', "unsupported_value")
    return str(part["text"])


def _prompts(given: dict[str, Any]) -> list[str | list[int]]:
    prompt = given.get("prompt")
    if not isinstance(prompt, list) or not prompt or not all(isinstance(one, str | list) for one in prompt):
        return [_prompt("prompt", prompt)]
    return [_prompt(f"prompt[{number}]" if len(prompt) > 1 else "prompt", one) for number, one in enumerate(prompt)]


def _prompt(where: str, prompt: Any) -> str | list[int]:
    if isinstance(prompt, str):
        return _unicode(where, prompt)
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        return prompt
    raise wrong(where, "must be text or a list of token ids", "missing" if prompt is None else "invalid_type")


def _unicode(where: str, text: str) -> str:
    if not is_unicode(text):
        raise wrong(where, "is not Unicode text: it has half of a surrogate pair")
    return text


def _kind(value: Any) -> str:
    names: Sequence[tuple[type, str]] = ((bool, "true or false"), (str, "text"), (list, "a list"), (dict, "an object"))
    return next((name for kind, name in names if isinstance(value, kind)), "null" if value is None else "a number")
