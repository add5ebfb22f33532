"""The backend asks vLLM for what its documentation offers, and scores as the probabilities behind it do.

vLLM itself needs another torch than ours: a module of the same shape stands for it, on a model of one token's memory.
"""

import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from xmodel2.errors import XmodelError
from xmodel2.eval.backend import Prompt
from xmodel2.eval.vllm import VllmBackend

LETTERS = "abcdefgh "
BOS, EOS = len(LETTERS), len(LETTERS) + 1
CONTEXT = 32
LOG_PROBS = torch.randn((EOS + 1, EOS + 1), generator=torch.Generator().manual_seed(0)).mul(2).log_softmax(-1)
"""[before, after]"""
ASKED: list[tuple[list[int], Any]] = []
"""Ids and settings of every request of a test."""
MADE: list[Any] = []
"""Every LLM of a test."""


class Letters:
    """A tokenizer as `transformers` has them: a letter a token, BOS first."""

    bos_token_id, eos_token_id = BOS, EOS
    vocabulary = LETTERS

    def get_vocab(self) -> dict[str, int]:
        return {letter: token for token, letter in enumerate(self.vocabulary)}

    def __call__(self, texts: list[str], add_special_tokens: bool = True, **_: Any) -> dict[str, list[list[int]]]:
        begin = [BOS] if add_special_tokens else []
        return {"input_ids": [begin + [LETTERS.index(letter) for letter in text] for text in texts]}

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        special = ("", "") if skip_special_tokens else ("<s>", "</s>")
        return "".join((*LETTERS, *special)[token] for token in ids)


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class SamplingParams:
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: list[str] | None = None
    max_tokens: int = 16
    prompt_logprobs: int | None = None
    detokenize: bool = True


@dataclass
class LLM:
    """vLLM's class, as far as it is used."""

    model: str
    tokenizer: str | None = None
    revision: str | None = None
    tokenizer_revision: str | None = None
    dtype: str = "auto"
    max_model_len: int | None = None
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.92
    trust_remote_code: bool = False
    enable_prefix_caching: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        MADE.append(self)
        if "missing" in self.model:
            raise OSError(f"{self.model} is not a local folder\nand more")
        config = SimpleNamespace(
            max_model_len=self.max_model_len or CONTEXT,
            dtype=torch.bfloat16,
            hf_config=SimpleNamespace(_commit_hash="abc"),
        )
        self.llm_engine = SimpleNamespace(model_config=config)

    def get_tokenizer(self) -> Letters:
        return Letters()

    def generate(self, prompts: list[dict[str, list[int]]], params: Any, *, use_tqdm: bool = True) -> list[Any]:
        assert not use_tqdm
        params = params if isinstance(params, list) else [params] * len(prompts)
        return [self.answer(prompt["prompt_token_ids"], one) for prompt, one in zip(prompts, params, strict=True)]

    def answer(self, ids: list[int], params: SamplingParams) -> SimpleNamespace:
        ASKED.append((ids, params))
        assert params.max_tokens >= 1
        assert len(ids) + params.max_tokens <= self.llm_engine.model_config.max_model_len
        assert params.stop is None or all(params.stop)
        new = [int(LOG_PROBS[ids[-1]].argmax())]
        while len(new) < params.max_tokens and new[-1] != EOS:
            new.append(int(LOG_PROBS[new[-1]].argmax()))
        logprobs = None
        if params.prompt_logprobs:
            best = LOG_PROBS.argmax(-1)
            logprobs = [None]
            for before, after in pairwise(ids):
                tokens = (after, int(best[before]))
                logprobs.append({token: Logprob(float(LOG_PROBS[before, token])) for token in tokens})
        text = Letters().decode(new, skip_special_tokens=True) if params.detokenize else ""
        return SimpleNamespace(prompt_logprobs=logprobs, outputs=[SimpleNamespace(text=text)])


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    ASKED.clear()
    MADE.clear()
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams  # type: ignore[attr-defined]
    module.TokensPrompt = dict  # type: ignore[attr-defined]  # a TypedDict there
    monkeypatch.setitem(sys.modules, "vllm", module)
    return module


def nats(ids: list[int], scored: int) -> tuple[float, bool]:
    """Log-probability of the last tokens, and whether they are the greedy ones."""
    pairs = list(pairwise(ids))[len(ids) - 1 - scored :]
    return sum(float(LOG_PROBS[pair]) for pair in pairs), all(int(LOG_PROBS[b].argmax()) == a for b, a in pairs)


def ids_of(text: str) -> list[int]:
    return Letters()([text])["input_ids"][0]


def test_log_likelihoods_are_those_of_the_continuation_and_bos_stands_once() -> None:
    greedy = Letters().decode([int(LOG_PROBS[LETTERS.index("b")].argmax())])
    pairs = [("ab", "cd"), ("ab ", "cd"), ("ab", " cd"), ("", "cd"), ("ab" * 30, "cd"), ("ab", "cd"), ("ab", greedy)]
    backend = VllmBackend("model")
    answers = dict(backend.loglikelihood(pairs))
    expected = [
        nats(ids_of("abcd"), 2),
        nats(ids_of("ab cd"), 3),
        nats(ids_of("ab cd"), 3),
        nats(ids_of("cd"), 2),
        nats(ids_of("ab" * 30 + "cd")[-(CONTEXT - 1) :], 2),
        nats(ids_of("abcd"), 2),
        nats(ids_of("ab" + greedy), 1),
    ]
    for index, (value, is_greedy) in enumerate(expected):
        assert answers[index] == (pytest.approx(value, abs=1e-5), is_greedy)
    assert answers[6][1]
    assert len(ASKED) == len(set(pairs)) - 1  # equal tokens are computed once
    assert all(ids.count(BOS) == 1 for ids, _ in ASKED if len(ids) < CONTEXT - 1)


def test_rolling_counts_every_letter_once() -> None:
    text = "abcdefgh " * 12
    answers = dict(VllmBackend("model", max_length=20).rolling([text, "", "ab"]))
    whole, _ = nats(ids_of(text), len(text))  # the model sees one token only, so that windows change nothing
    assert answers == {0: pytest.approx(whole, abs=1e-3), 1: 0.0, 2: pytest.approx(nats(ids_of("ab"), 2)[0], abs=1e-5)}


def test_generation_is_cut_at_the_stop_and_leaves_room() -> None:
    backend = VllmBackend("model")
    whole = dict(backend.generate([Prompt("ab", (), 8)]))[0]
    until = ("", whole[1:2])
    prompts = [Prompt("ab", until, 8), Prompt("ab" * 30, (), 8), Prompt("ab", until, 8), Prompt("ab", (), 100)]
    answers = dict(backend.generate(prompts))
    assert answers[0] == answers[2] == whole.partition(whole[1:2])[0]
    assert sorted(len(ids) for ids, _ in ASKED) == [3, 3, 3, CONTEXT - 8]
    settings = [params for _, params in ASKED]
    assert all(params.temperature == 0 and params.seed is None for params in settings)


def test_sampling_settings_are_handed_on() -> None:
    backend = VllmBackend("model")
    list(backend.generate([Prompt("ab", ("c",), 4, temperature=0.7, top_p=0.9, seed=5)]))
    _, params = ASKED[0]
    assert (params.temperature, params.top_p, params.seed, params.stop) == (0.7, 0.9, 5, ["c"])


def test_description_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    backend = VllmBackend(str(tmp_path), max_length=20, tensor_parallel_size=2)
    told = backend.description
    assert (told["backend"], told["dtype"], told["name"]) == ("vllm", "bfloat16", tmp_path.name)
    assert backend.max_length == 20
    assert (MADE[0].enable_prefix_caching, MADE[0].tensor_parallel_size) == (True, 2)
    (tmp_path / "config.json").write_text('{"other": 1}')
    assert backend.description["fingerprint"] != told["fingerprint"]
    assert VllmBackend("organisation/model").description["source"] == "organisation/model"
    theirs, same = (VllmBackend("a/b", tokenizer="here").description["fingerprint"] for _ in range(2))
    monkeypatch.setattr(Letters, "vocabulary", LETTERS.upper())  # another one in the same place
    assert theirs == same != VllmBackend("a/b", tokenizer="here").description["fingerprint"]


def test_a_model_that_does_not_load_is_named() -> None:
    with pytest.raises(XmodelError, match=r"missing: vLLM does not load it \(missing is not a local folder\)"):
        VllmBackend("missing")


def test_without_vllm_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(XmodelError, match=r"vLLM is not installed .*pip install vllm.*--backend endpoint"):
        VllmBackend("model")
