"""Engines' languages: what each is sent, and how what it says is read."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from xmodel2.release.serving.api_error import ApiError
from xmodel2.release.serving.asking import cut
from xmodel2.release.serving.requests import Asked
from xmodel2.release.serving.ways import LlamaTextWay, LlamaWay, OpenAIWay, Piece, Prompts, TransformersWay
from xmodel2.tokenizer import Message, load_tokenizer

MESSAGES: list[Message] = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def prompts(road: Path) -> Prompts:
    return Prompts(load_tokenizer(road / "run" / "tokenizer"), 64)


def chat(**options: Any) -> Asked:
    return Asked(None, MESSAGES, "", options)


def test_llama_is_asked_in_ids_with_what_openai_says_by_default(prompts: Prompts) -> None:
    ids = prompts.tokenizer.encode_prompt(MESSAGES)
    body = LlamaWay(prompts).prepare(chat(seed=-1, repetition_penalty=1.2)).body
    assert body["prompt"] == ids
    assert body["n_predict"] == 64 - len(ids)
    assert (body["temperature"], body["top_k"], body["min_p"], body["repeat_penalty"]) == (1.0, 0, 0.0, 1.2)
    assert 0 <= body["seed"] < 2**32 - 1
    assert LlamaWay(prompts).prepare(Asked(None, None, "hello")).body["n_predict"] == 16


def test_llama_is_asked_the_same_in_text() -> None:
    body = (
        LlamaTextWay("m", None, {"stream_options": {}}).prepare(chat(seed=-1, repetition_penalty=1.2, top_p=0.9)).body
    )
    assert body["messages"] == MESSAGES
    assert (body["temperature"], body["top_k"], body["top_p"], body["repeat_penalty"]) == (1.0, 0, 0.9, 1.2)
    assert 0 <= body["seed"] < 2**32 - 1


def test_vllm_is_asked_in_ids_too(prompts: Prompts) -> None:
    question = OpenAIWay("m", prompts).prepare(chat(max_tokens=5))
    assert question.path == "/v1/completions"
    assert question.body["prompt"] == prompts.tokenizer.encode_prompt(MESSAGES)
    assert question.body["stop_token_ids"] == prompts.tokenizer.stop_ids
    assert (question.body["max_tokens"], question.prompt_tokens) == (5, len(question.body["prompt"]))


def test_a_system_message_in_the_middle_and_ids_that_are_none(prompts: Prompts) -> None:
    with pytest.raises(ApiError, match="a system message must come first"):
        prompts.ids(Asked(None, [*MESSAGES, {"role": "system", "content": "be kind"}]))
    with pytest.raises(ApiError, match="token ids are from 0 to 699"):
        prompts.ids(Asked(None, None, [1, 700]))


def test_transformers_gets_a_generation_config(prompts: Prompts) -> None:
    way = TransformersWay("/model", {"eos_token_id": 2, "top_p": 0.8, "temperature": 0.6}, prompts)
    question = way.prepare(chat(top_k=5, temperature=0.5, stop=["x"]))
    assert json.loads(question.body["generation_config"]) == {
        **{"eos_token_id": 2, "do_sample": True, "top_k": 5, "temperature": 0.5},
        **{"top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0},
    }
    assert "top_k" not in question.body
    assert (question.stops, question.read_on) == (("x",), False)
    assert TransformersWay("/model", {}).prepare(chat(stop=["x"])).read_on
    greedy = {"eos_token_id": 2, "do_sample": False, "top_p": 0.8, "temperature": 0.6, "repetition_penalty": 1.0}
    assert json.loads(way.prepare(chat(temperature=0.0)).body["generation_config"]) == greedy
    assert way.prepare(chat(presence_penalty=0, frequency_penalty=0.0)).body  # as clients send them that change nothing
    assert json.loads(way.prepare(chat(top_k=-1)).body["generation_config"])["top_k"] == 0
    biased, formed = chat(logit_bias={5: 1.0}), chat(response_format={"type": "object"})
    for wrong in (chat(presence_penalty=1.0), Asked(None, MESSAGES, logprobs=0), biased, formed):
        with pytest.raises(ApiError, match="not supported by this server's engine"):
            way.prepare(wrong)
    for wrong in (biased, formed):
        with pytest.raises(ApiError, match="not supported by this server's engine"):
            OpenAIWay("m", prompts).prepare(wrong)
    with pytest.raises(ApiError, match="context is 64"):
        way.prepare(Asked(None, None, "hello " * 100))


def test_both_forms_of_log_probabilities_are_read() -> None:
    top = {"token": "b", "logprob": -2.0, "bytes": [98]}
    entry = {"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": [top]}
    chat = {"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [entry]}}]}
    old = {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"b": -2.0}]}
    completion = {"choices": [{"text": "a", "logprobs": old}]}
    assert OpenAIWay("m").read(chat).logprobs == OpenAIWay("m").read(completion).logprobs == [entry]


def test_a_character_of_several_tokens_has_no_log_probability(prompts: Prompts) -> None:
    ids = prompts.tokenizer.encode("🙂")
    assert len(ids) == 4  # a byte each

    def entry(token: int, text: str) -> dict[str, Any]:
        alone = {"id": token, "token": text, "bytes": list(text.encode()), "logprob": -1.5}
        event = {"content": text, "stop": False, "tokens": [token], "tokens_predicted": 1}
        (found,) = (
            LlamaWay(prompts).read(event | {"completion_probabilities": [alone | {"top_logprobs": [alone]}]}).logprobs
            or []
        )
        return found

    whole = entry(ids[-1], "🙂")  # as llama.cpp tells it: of the last token
    assert (whole["token"], whole["logprob"], whole["top_logprobs"]) == ("🙂", None, [])
    (letter,) = prompts.tokenizer.encode("e")
    assert (entry(letter, "e")["logprob"], len(entry(letter, "e")["top_logprobs"])) == (-1.5, 1)


@pytest.mark.parametrize(
    ("pieces", "stops", "seen"),
    [
        (["a<", "end", ">b"], ["<end>"], ["a", "", ""]),
        (["a<", "b"], ["<end>"], ["a", "<b"]),
        (["a<en"], ["<end>"], ["a<en"]),
        (["abc", "d"], ["c", "b"], ["a"]),
        (["xx", "xy"], ["xxy"], ["", "x"]),
    ],
)
def test_stop_texts_are_cut_where_the_engine_leaves_them(pieces: list[str], stops: list[str], seen: list[str]) -> None:
    assert [piece.text for piece in heard(pieces, stops)] == seen


def test_an_engine_that_counts_by_itself_is_read_to_its_end() -> None:
    found = heard(["a<end>", "b", "c"], ["<end>"], read_on=True)
    assert [(piece.text, piece.finish) for piece in found] == [("a", "stop"), ("", None), ("", None)]
    assert found[-1].all_tokens == 3


def test_log_probabilities_are_held_back_with_their_texts() -> None:
    def tokens(*pieces: str) -> list[list[str]]:
        return [[entry["token"] for entry in piece.logprobs or []] for piece in heard(pieces, ["<end>"])]

    assert tokens("a", "<", "en", "b") == [["a"], [], [], ["<", "en", "b"]]
    assert tokens("a", "<", "end", ">") == [["a"], [], [], []]
    assert tokens("a<", "end>b", "c") == [["a<"], []]
    assert tokens("a", "<", "") == [["a"], [], ["<", ""]]


def heard(texts: Sequence[str], stops: list[str], read_on: bool = False) -> list[Piece]:
    """Return what comes of an engine's pieces, one a token."""

    async def say() -> AsyncIterator[Piece]:
        for number, text in enumerate(texts, 1):
            logprobs = [{"token": text, "logprob": -1.0}]
            yield Piece(text, 1, "length" if number == len(texts) else None, logprobs, None, number)

    async def cut_pieces() -> list[Piece]:
        return [piece async for piece in cut(say(), stops, read_on)]

    return asyncio.run(cut_pieces())
