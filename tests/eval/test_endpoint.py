"""A server's answers score as the model behind it does; what a server can do wrong is retried, or named."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import tokenizers
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.eval.completions_server import CONTEXT, Server, Write, drop, hang, send, trickle
from xmodel2.errors import XmodelError
from xmodel2.eval.backend import Prompt
from xmodel2.eval.endpoint import EndpointBackend

KEY = "sk-very-secret-1234"
PAIRS = [
    ("The sky over the sea is", " blue"),
    ("The sky over the sea is ", "blue"),
    ("The sky over the sea is", " blue"),
    ("The sky over the sea is", " grey and cold"),
    ("", "nothing before it"),
    ("the sea " * 60, "is wide"),
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    """Byte-level BPE that puts ``<s>`` first."""
    fast = tokenizers.Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    text = ["The sky over the sea is blue, grey and cold.", *(pair[0] for pair in PAIRS)]
    fast.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=330, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    )
    fast.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made = PreTrainedTokenizerFast(tokenizer_object=fast, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    folder = tmp_path_factory.mktemp("tokenizer")
    made.save_pretrained(folder)
    made.name_or_path = str(folder)
    return made


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def server(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TEST_KEY", KEY)
    made = Server(model, tokenizer)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def backend(server: Server, **options: Any) -> EndpointBackend:
    settings = {
        "api_key_env": "TEST_KEY",
        "tokenizer": Path(server.tokenizer.name_or_path),
        "retries": 2,
        "backoff_s": 0.001,
        "concurrency": 3,
    }
    return EndpointBackend(server.url, "tiny", **{**settings, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plain(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> HFLM:
    """The same model as the harness itself runs it."""
    return HFLM(model, tokenizer=tokenizer, max_length=CONTEXT, batch_size=1)


def test_log_likelihoods_equal_those_of_the_model(server: Server, plain: HFLM) -> None:
    theirs = plain.loglikelihood([Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(PAIRS)], True)
    ours = dict(backend(server).loglikelihood(PAIRS))
    for index, (nats, greedy) in enumerate(theirs):
        assert ours[index][0] == pytest.approx(nats, abs=1e-4)
        assert ours[index][1] == greedy
    prompts = [request["prompt"] for request in server.requests]
    assert len(prompts) == len(PAIRS) - 2  # the first three are the same tokens
    assert all(prompt.count(0) == 1 for prompt in prompts if len(prompt) <= CONTEXT)
    assert server.keys == {f"Bearer {KEY}"}


def test_the_greedy_continuation_is_known_as_such(server: Server, plain: HFLM) -> None:
    contexts = ["The sky", "The sea is", "grey", "blue and cold", "over", "wide."]
    asked = backend(server)
    greedy = dict(asked.generate([Prompt(context, (), 1) for context in contexts]))
    pairs = [(context, greedy[n]) for n, context in enumerate(contexts) if greedy[n].isascii()]
    theirs = plain.loglikelihood([Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)], True)
    ours = dict(asked.loglikelihood(pairs))
    assert [ours[n][1] for n in range(len(pairs))] == [is_greedy for _, is_greedy in theirs]
    assert any(is_greedy for _, is_greedy in theirs)


def test_without_a_tokenizer_text_is_scored_by_the_tokens_that_spell_it(server: Server, plain: HFLM) -> None:
    pairs = PAIRS[:5]
    theirs = plain.loglikelihood([Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)], True)
    ours = dict(backend(server, tokenizer=None).loglikelihood(pairs))
    assert [ours[n] for n in range(5)] == [(pytest.approx(nats, abs=1e-4), greedy) for nats, greedy in theirs]


def test_texts_longer_than_the_context_are_scored_in_the_harness_s_windows(server: Server, plain: HFLM) -> None:
    texts = ["The sky over the sea.", "the sea is wide " * 40, ""]
    plain.add_bos_token = False  # so that the prefix stands before a text only once
    try:
        theirs = plain.loglikelihood_rolling(
            [Instance("loglikelihood_rolling", {}, (t,), n) for n, t in enumerate(texts[:2])]
        )
    finally:
        plain.add_bos_token = None
    ours = dict(backend(server).rolling(texts))
    assert [ours[n] for n in range(3)] == pytest.approx([*theirs, 0.0], abs=1e-3)


@pytest.mark.parametrize("options", [{}, {"tokenizer": None}, {"chat": True}])
def test_generation_equals_greedy_decoding_cut_at_the_stop(
    server: Server, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, options: dict[str, Any]
) -> None:
    ids = tokenizer("The sea", return_tensors="pt")["input_ids"]
    new = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    whole = tokenizer.decode(new, skip_special_tokens=True)
    until = ("never 1", "never 2", "never 3", "never 4", whole[4:6])
    answers = dict(backend(server, **options).generate([Prompt("The sea", (), 12), Prompt("The sea", until, 12)]))
    assert answers == {0: whole, 1: whole.partition(until[-1])[0]}
    assert len(server.requests[-1].get("stop", ())) <= 4


def test_a_prompt_longer_than_the_context_loses_its_beginning(server: Server) -> None:
    list(backend(server, max_length=20).generate([Prompt("the sea " * 60, (), 4)]))
    assert len(server.requests[0]["prompt"]) == 16
    list(backend(server, max_length=20).generate([Prompt("the sea " * 60, (), 30)]))
    assert (len(server.requests[1]["prompt"]), server.requests[1]["max_tokens"]) == (10, 10)


def test_chat_endpoints_refuse_log_likelihoods_and_say_why(server: Server) -> None:
    chat = backend(server, chat=True)
    for answers in (chat.loglikelihood(PAIRS), chat.rolling(["text"])):
        with pytest.raises(XmodelError, match="chat completions, which give no log-probabilities"):
            list(answers)
    with pytest.raises(XmodelError, match="needs the tokenizer"):
        list(backend(server, tokenizer=None).rolling(["text"]))


def test_the_context_is_the_server_s_and_a_wrong_model_is_named(server: Server) -> None:
    assert backend(server).max_length == CONTEXT + 2
    assert EndpointBackend(server.url, "other").max_length == 2048
    server.script = [send(404, "no such path"), send(200, {"data": [{"id": "/models/tiny.gguf", "max_model_len": 7}]})]
    assert [EndpointBackend(server.url, "tiny").max_length for _ in range(2)] == [2048, 7]
    with pytest.raises(XmodelError, match=r"no model 'tinny'; there are tiny, other. Did you mean 'tiny'\?"):
        _ = EndpointBackend(server.url, "tinny").max_length


def test_description_tells_models_apart_and_holds_no_key(server: Server) -> None:
    one, other = backend(server).description, backend(server, tokenizer=None).description
    assert one["fingerprint"] != other["fingerprint"]
    assert one["fingerprint"] == backend(server).description["fingerprint"]
    assert one["source"] == server.url
    assert KEY not in json.dumps(one)
    shorter = [
        backend(server, max_length=20, tokenizer=t).description for t in (Path(server.tokenizer.name_or_path), None)
    ]
    assert shorter[0]["fingerprint"] != one["fingerprint"]  # prompts are cut to another length
    assert shorter[1]["fingerprint"] == other["fingerprint"]  # none are


GOOD = {"choices": [{"text": "x"}]}
FAULTS: dict[str, tuple[Write, str]] = {
    "hangs": (hang, "nothing within 0.2 s"),
    "trickles": (trickle, "only a part within 0.2 s"),
    "drops the connection": (drop, r"no whole answer \(RemoteDisconnected"),
    "is busy": (send(429, "slow down", Retry_After="0"), "HTTP 429"),
    "is broken": (send(503, "<html>upstream is down</html>"), "HTTP 503.*upstream is down"),
    "sends no JSON": (send(200, "<html>hello</html>"), "no JSON.*<html>hello"),
    "sends JSON without an end": (send(200, "[" * 100_000), "no JSON"),
    "sends nothing": (send(200, ""), "an empty answer"),
    "sends half": (send(200, json.dumps(GOOD), length=100), r"no whole answer \(IncompleteRead"),
    "sends other JSON": (send(200, {"error": "overloaded"}), "lacks a field.*choices.*overloaded"),
    "sends a list": (send(200, [1]), "lacks a field"),
    "sends no text": (send(200, {"choices": [{"text": None}]}), "a NoneType where text should be"),
    "fails": (send(200, {"choices": [{"text": "", "finish_reason": "error"}]}), "an answer that ended by 'error'"),
    "sends too many choices": (send(200, {"choices": [{}, {}]}), "2 choices where one was asked for"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_may_pass_is_tried_again_and_named_when_it_does_not(server: Server, fault: str) -> None:
    write, message = FAULTS[fault]
    asked = backend(server, tokenizer=None, timeout_s=0.2, retries=1, concurrency=1)
    server.script = [write]
    assert len(list(asked.generate([Prompt("The sea", (), 2)]))) == 1
    server.script = [write, write]
    with pytest.raises(XmodelError, match=message) as error:
        list(asked.generate([Prompt("The sea", (), 2)]))
    assert f"{server.url}/completions: expected a completion, but in 2 tries came" in str(error.value)


def edited(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    """Change the log-probabilities of an answer."""

    def edit(answer: dict[str, Any]) -> dict[str, Any]:
        logprobs = answer["choices"][0]["logprobs"]
        for name, change in fields.items():
            logprobs[name] = change(logprobs[name])
        return answer

    return edit


def without_echo(answer: dict[str, Any]) -> dict[str, Any]:
    """Only what was generated, as llama.cpp's server answers."""
    return edited(**{name: lambda row: row[-1:] for name in ("tokens", "token_logprobs", "top_logprobs")})(answer)


def with_another_bos(answer: dict[str, Any]) -> dict[str, Any]:
    answer["usage"]["prompt_tokens"] += 1
    return edited(**{name: lambda row: [row[0], *row] for name in ("tokens", "token_logprobs", "top_logprobs")})(answer)


def own(row: list[Any], nats: float) -> list[Any]:
    """Each token as the only candidate."""
    return [None, *[{"x": nats}] * (len(row) - 1)]


def zeros(row: list[Any]) -> list[Any]:
    return own(row, 0.0)


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no log-probabilities": (lambda answer: {**answer, "choices": [{"text": ""}]}, "no log-probabilities"),
    "no echo": (without_echo, "of 0 tokens of a prompt of"),
    "a BOS of the server's": (with_another_bos, r"of \d+ tokens where \d+ were sent"),
    "lists that differ": (edited(top_logprobs=lambda row: row[1:]), "differ in length"),
    "NaN": (
        edited(token_logprobs=lambda row: [None, *[float("nan")] * (len(row) - 1)]),
        "nan and .* log-probabilities should",
    ),
    "probabilities": (edited(token_logprobs=lambda row: [None, *[0.5] * (len(row) - 1)]), "0.5 and .* should be"),
    "only 0": (edited(token_logprobs=lambda row: [None] + [0.0] * (len(row) - 1), top_logprobs=zeros), "all 0"),
    "a best one below": (edited(top_logprobs=lambda row: [None] + [{"x": -30.0}] * (len(row) - 1)), "a best log-prob"),
    "no best one": (
        edited(token_logprobs=lambda row: [None] + [-9.0] * (len(row) - 1), top_logprobs=lambda row: own(row, -9.0)),
        "not that of the most probable one",
    ),
    "truth values": (edited(token_logprobs=lambda row: [None] + [False] * (len(row) - 1)), "False and .* where"),
    "no candidates": (edited(top_logprobs=lambda row: [{}] * len(row)), r"and \{\} where"),
    "numbers as text": (edited(token_logprobs=lambda row: ["-1.0"] * len(row)), "-1.0 and .* where"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_log_probabilities_are_never_a_score(server: Server, wrong: str) -> None:
    server.edit, message = WRONG[wrong]
    with pytest.raises(XmodelError, match=message):
        list(backend(server).loglikelihood(PAIRS[:1]))


@pytest.mark.parametrize("edit", [edited(tokens=lambda row: ["?"] * len(row)), without_echo])
def test_tokens_that_do_not_spell_the_text_are_never_a_score(
    server: Server, edit: Callable[[dict[str, Any]], Any]
) -> None:
    server.edit = edit
    with pytest.raises(XmodelError, match=r"tokens that end in|of 0 tokens of a prompt of"):
        list(backend(server, tokenizer=None).loglikelihood(PAIRS[:1]))


def test_a_token_that_spans_the_beginning_of_the_continuation_is_never_a_score(server: Server) -> None:
    server.edit = edited(tokens=lambda row: ["<s>", *[""] * (len(row) - 3), "The sky is", "."])
    with pytest.raises(XmodelError, match=r"one spans the beginning of ' is'.* give --tokenizer"):
        list(backend(server, tokenizer=None).loglikelihood([("The sky", " is")]))


def test_a_first_token_without_context_needs_a_tokenizer(server: Server) -> None:
    server.edit = edited(**{name: lambda row: [None, *row[2:]] for name in ("token_logprobs", "top_logprobs")})
    cut = server.edit

    def no_bos(answer: dict[str, Any]) -> Any:
        answer["choices"][0]["logprobs"]["tokens"].pop(0)
        answer["usage"]["prompt_tokens"] -= 1
        return cut(answer)

    server.edit = no_bos
    with pytest.raises(XmodelError, match="no log-probability of the prompt's first token"):
        list(backend(server, tokenizer=None).loglikelihood([("", "The sky")]))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (send(400, {"error": "max_tokens is too large"}), "HTTP 400 .*max_tokens is too large"),
        (
            send(401, f"Incorrect API key provided: {KEY}"),
            r"HTTP 401 Unauthorized \(is the key in TEST_KEY right\?\)$",
        ),
        (send(307, "", Location="http://elsewhere/v1"), "HTTP 307 .* to http://elsewhere/v1"),
        (send(429, "quota", Retry_After="86400"), "asks for a pause of 86400 s"),
        (send(200, {"choices": [{"text": "", "finish_reason": "content_filter"}]}), "ended by 'content_filter'"),
    ],
)
def test_what_will_not_pass_is_not_tried_again(server: Server, write: Write, message: str) -> None:
    server.script = [write]
    with pytest.raises(XmodelError, match=message) as error:
        list(backend(server, tokenizer=None).generate([Prompt("The sea", (), 2)]))
    assert len(server.requests) == 1
    assert KEY[:4] not in str(error.value)


CHATS = {
    "a refusal": ({"message": {"content": None, "refusal": "I cannot"}}, r"a refusal \(I cannot\)"),
    "a call of a tool": ({"message": {"content": None, "tool_calls": [1]}}, "a NoneType where text should be"),
    "nothing": ({"message": {"content": None}, "finish_reason": "stop"}, "a NoneType where text should be"),
}


@pytest.mark.parametrize("what", CHATS)
def test_what_is_no_answer_of_a_chat_is_never_an_empty_one(server: Server, what: str) -> None:
    choice, message = CHATS[what]
    server.script = [send(200, {"choices": [choice]})]
    with pytest.raises(XmodelError, match=message):
        list(backend(server, chat=True, retries=0).generate([Prompt("The sea", (), 2)]))


def test_a_chat_that_only_thought_answers_nothing(server: Server) -> None:
    server.script = [send(200, {"choices": [{"message": {"content": None}, "finish_reason": "length"}]})]
    assert list(backend(server, chat=True).generate([Prompt("The sea", (), 2)])) == [(0, "")]


def test_the_key_is_hidden_however_it_is_written(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    key = 'sk-a/b"c+secret'
    monkeypatch.setenv("TEST_KEY", key)
    written = (key, quote(key, safe=""), quote(key, safe="").lower(), json.dumps(key)[1:-1], key.replace("/", r"\/"))
    server.script = [send(400, " ".join(written))]
    with pytest.raises(XmodelError) as error:
        list(backend(server, tokenizer=None).generate([Prompt("The sea", (), 2)]))
    assert str(error.value).endswith("'*** *** *** *** ***'")
    server.script = [send(200, {"data": [{"id": key}, {"id": "b"}]})]
    with pytest.raises(XmodelError, match=r"there are \*\*\*, b\."):
        _ = backend(server).max_length


def test_a_missing_key_is_named_by_its_variable(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY")
    server.script = [send(401, "who are you")]
    with pytest.raises(XmodelError, match="TEST_KEY holds no key"):
        list(backend(server, tokenizer=None).generate([Prompt("The sea", (), 2)]))
    server.script = [send(401, "who are you")]
    with pytest.raises(XmodelError, match="no key was given"):
        list(backend(server, tokenizer=None, api_key_env=None).generate([Prompt("The sea", (), 2)]))
    assert server.keys == {None}
    monkeypatch.setenv("TEST_KEY", "sk\u2013dash")
    with pytest.raises(XmodelError, match="TEST_KEY: holds characters that no key has"):
        backend(server)


def test_a_pause_that_the_server_asks_for_is_kept(server: Server) -> None:
    server.script = [send(429, "", Retry_After="1")]
    start = time.monotonic()
    list(backend(server, tokenizer=None).generate([Prompt("The sea", (), 2)]))
    assert time.monotonic() - start >= 1


def test_answers_before_a_failure_are_yielded_before_it_is_raised(server: Server) -> None:
    prompts = [Prompt(f"The sea {n}", (), 2) for n in range(6)]
    answers = backend(server, tokenizer=None, concurrency=1).generate(prompts)
    found = [next(answers), next(answers)]
    server.script = [send(400, "enough")] * 6
    with pytest.raises(XmodelError, match="enough"):
        found.extend(answers)  # type: ignore[arg-type]
    assert len({index for index, _ in found}) >= 2
    assert len(server.requests) <= len(found) + 1


def test_nobody_there_is_an_error_that_names_the_url() -> None:
    nobody = EndpointBackend("http://127.0.0.1:9", "tiny", retries=1, backoff_s=0.001)
    with pytest.raises(
        XmodelError,
        match=r"http://127.0.0.1:9/completions: expected a completion, but in 2 tries came no whole answer \(Conn",
    ):
        list(nobody.generate([Prompt("The sea", (), 2)]))


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"retries": -1}, {"timeout_s": 0.0}, {"timeout_s": math.nan}])
def test_settings_that_ask_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(XmodelError, match=r"--concurrency .* must be 1 or more, --timeout .* above 0"):
        EndpointBackend("http://x/v1", "tiny", **options)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://x/v1",
        "ftp://me:secret@x",
        "http://me:secret@x/v1",
        "http://x/v1?key=secret",
        "http://[::1/v1",
        "http://me:secret@[::1/v1",
        "http://x:99999/v1",
        "http://x:port/v1",
    ],
)
def test_addresses_that_are_none_or_hold_secrets_are_refused(url: str) -> None:
    with pytest.raises(XmodelError, match=r"give") as error:
        EndpointBackend(url, "tiny")
    assert "secret" not in str(error.value)


def test_a_tokenizer_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match="cannot be loaded"):
        EndpointBackend("http://x/v1", "tiny", tokenizer=tmp_path)
