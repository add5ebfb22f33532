"""Bodies of requests: what is understood, and what is refused by which words."""

import json
from typing import Any

import pytest

from xmodel2.release.serving.api_error import ApiError
from xmodel2.release.serving.requests import parse

MESSAGES = [{"role": "user", "content": "hi"}]


def refused(body: Any, chat: bool = True) -> ApiError:
    with pytest.raises(ApiError) as error:
        parse(body if isinstance(body, bytes) else json.dumps(body).encode(), chat)
    assert error.value.status == 400
    return error.value


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[[" * 100_000, b"\xff\xfe", b"[]", b'"text"', b'{"max_tokens": ' + b"9" * 5000 + b"}"]
)
def test_what_is_no_json_object(body: bytes) -> None:
    assert refused(body).code == "invalid_json"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("temperature", "hot", "must be a number, not text"),
        ("temperature", True, "must be a number, not true or false"),
        ("temperature", 3, "from 0 to 2"),
        ("temperature", float("nan"), "from 0 to 2"),
        ("top_p", float("inf"), "from 0 to 1"),
        ("top_k", 1.5, "whole number"),
        ("max_tokens", 0, "from 1"),
        ("max_tokens", float("inf"), "whole number"),
        ("seed", 2**64, "from"),
        ("stop", 5, "text or a list"),
        ("stop", [""], "1 to 256 letters"),
        ("stop", {}, "text or a list"),
        ("stop", ["a"] * 17, "at most 16"),
        ("stream", "yes", "true or false"),
        ("stream_options", {"include_usage": True}, "stream: true only"),
        ("stream_options", [], "an object"),
        ("n", 0, "from 1"),
        ("n", 129, "from 1 to 128"),
        ("best_of", 2, "not supported"),
        ("tools", [{"type": "function"}], "not supported"),
        ("response_format", "json", "must be an object"),
        ("response_format", {"type": "json"}, "text, json_object or json_schema"),
        ("response_format", {"type": "json_schema"}, "must be an object, a JSON schema"),
        ("logit_bias", [5], "must be an object, not a list"),
        ("logit_bias", {"a": 1}, "token ids as texts"),
        ("logit_bias", {"-5": 1}, "token ids as texts"),
        ("logit_bias", {"5": 101}, "from -100 to 100"),
        ("logit_bias", {"5": "x"}, "must be a number"),
        ("logprobs", 3, "true or false"),
        ("top_logprobs", 3, "needs logprobs"),
        ("top_logprobs", 50, "from 0 to 20"),
        ("model", 5, "must be text"),
        ("messages", "hi", "list of messages"),
        ("messages", [], "is empty"),
    ],
)
def test_a_wrong_value_names_its_field(field: str, value: Any, words: str) -> None:
    error = refused({"messages": MESSAGES, field: value})
    assert error.param
    assert error.param.startswith(field)
    assert words in error.message


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("hi", "messages[0]"),
        ({"content": "hi"}, "messages[0].role"),
        ({"role": "asistant", "content": "hi"}, "messages[0].role"),
        ({"role": ["user"], "content": "hi"}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": None}, "messages[0].content"),
        ({"role": "user", "content": 5}, "messages[0].content"),
        ({"role": "user", "content": "\ud800"}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages[0].content[0]"),
        ({"role": "assistant", "content": "", "tool_calls": [{}]}, "messages[0].tool_calls"),
    ],
)
def test_a_wrong_message_is_pointed_at(message: Any, param: str) -> None:
    assert refused({"messages": [message]}).param == param


def test_unknown_fields_get_the_nearest_name() -> None:
    assert "Did you mean 'temperature'?" in refused({"messages": MESSAGES, "temprature": 1}).message
    assert refused({"messages": MESSAGES, "prompt": "x"}).code == "unknown_parameter"
    assert "\x1b" not in refused({"messages": MESSAGES, "\x1b[31m": 1}).message


@pytest.mark.parametrize("prompt", [None, 5, [], [True], [1, "a"], ["a", 1], "\udfff", ["a"] * 129])
def test_wrong_prompts(prompt: Any) -> None:
    assert refused({"prompt": prompt}, chat=False).param == "prompt"


def test_each_choice_is_asked_for_by_itself() -> None:
    body = {"prompt": ["a", [5, 6]], "n": 2, "seed": 7, "max_tokens": 3}
    asked = parse(json.dumps(body).encode(), chat=False)
    assert [(one.prompt, one.options["seed"], one.again) for one in asked] == [
        ("a", 7, False),
        ("a", 8, True),
        ([5, 6], 7, False),
        ([5, 6], 8, True),
    ]
    assert all(one.options["max_tokens"] == 3 for one in asked)
    assert refused({"prompt": ["a", "\udfff"]}, chat=False).param == "prompt[1]"
    assert "this asks for 130" in refused({"prompt": ["a"] * 65, "n": 2}, chat=False).message


def test_what_is_given_goes_on_and_nothing_else() -> None:
    body = {"messages": MESSAGES, "top_p": 1, "max_completion_tokens": 5, "stop": "x", "user": "me", "seed": None}
    [asked] = parse(json.dumps(body).encode(), chat=True)
    assert asked.options == {"top_p": 1.0, "max_tokens": 5, "stop": ["x"]}
    assert asked.messages == MESSAGES
    assert (asked.stream, asked.logprobs, asked.model) == (False, None, None)


def test_what_says_nothing_is_left_out() -> None:
    silent = {"role": "assistant", "content": None}
    body = {"messages": [*MESSAGES, silent], "stop": "", "logit_bias": {}, "response_format": {"type": "text"}}
    [asked] = parse(json.dumps(body).encode(), chat=True)
    assert asked.options == {}
    assert asked.messages == [*MESSAGES, {"role": "assistant", "content": ""}]
