"""The local backend answers as the harness's own model class does, on every native architecture, however batches are cut."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from safetensors.torch import load_file, save_file

from tests.eval.rival_models import NATIVE, tiny_model, tiny_rival
from xmodel2.errors import XmodelError
from xmodel2.eval.backend import Prompt
from xmodel2.eval.engine import Engine
from xmodel2.eval.model_options import ModelOptions
from xmodel2.eval.open_model import open_backend
from xmodel2.eval.rivals import Rival

QUESTION = "Question: Which of these floats on water, as everyone knows who has been at sea?\nAnswer:"
PAIRS = [
    *[(QUESTION, f" {option}") for option in ("iron", "a piece of cork", "lead", "a piece of lead")],
    ("Ann thanked Eve because Ann", " had helped her."),
    ("Ann thanked Eve because Eve", " had helped her."),
    ("def f(x):\n    return ", "x + 1"),
    ("", "nothing before it"),
    ("import os\n", " \n\n"),
    ("", " begins with a space"),
    ("word " * 150, "word"),
]
PROMPTS = ["The sky is", "Once upon a time there was a small model that", "x = 1\n", "Q: 2 + 2\nA:", "So " * 90]


def engine(folder: Path, **options: Any) -> Engine:
    opened = open_backend(str(folder), ModelOptions(device="cpu", **options))
    assert isinstance(opened, Engine)
    return opened


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rival = next(rival for rival in NATIVE if rival.name.startswith("Tiny"))
    return tiny_rival(rival, tmp_path_factory.mktemp("llama"), context=128)


def check_equal(folder: Path) -> None:
    """Fail unless log-probabilities, greedy flags and texts are the harness's."""
    plain, ours = HFLM(str(folder), dtype="float32", device="cpu", batch_size=1), engine(folder, batch_tokens=200)
    wanted = plain.loglikelihood([Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(PAIRS)], True)
    found = dict(ours.loglikelihood(PAIRS))
    assert [found[n][0] for n in range(len(PAIRS))] == pytest.approx([nats for nats, _ in wanted], abs=1e-3)
    assert [found[n][1] for n in range(len(PAIRS))] == [greedy for _, greedy in wanted]

    settings = {"until": ["\n\n", "e"], "max_gen_toks": 24, "do_sample": False}
    asked = [Instance("generate_until", {}, (text, settings), n) for n, text in enumerate(PROMPTS)]
    texts = dict(ours.generate([Prompt(text, ("\n\n", "e"), 24) for text in PROMPTS]))
    assert [texts[n] for n in range(len(PROMPTS))] == plain.generate_until(asked, True)


@pytest.mark.parametrize("rival", NATIVE, ids=lambda rival: rival.name)
def test_answers_equal_plain_lm_eval(rival: Rival, tmp_path: Path) -> None:
    folder = tiny_rival(rival, tmp_path, context=128)
    check_equal(folder)
    assert engine(folder).shares_prefixes


OTHERS: dict[str, dict[str, Any]] = {
    "a sliding window": {"model_type": "mistral", "sliding_window": 24},
    "local layers": {
        "model_type": "gpt_neo",
        "attention_types": [[["global", "local"], 1]],
        "window_size": 16,
        "num_layers": 2,
        "num_heads": 4,
    },
    "convolutions": {"model_type": "lfm2", "layer_types": ["conv", "full_attention"]},
    "learned positions": {"model_type": "opt", "word_embed_proj_dim": 32, "ffn_dim": 64},
    "a repetition penalty": {"model_type": "llama"},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_of_models_answer_as_plain_lm_eval(kind: str, tmp_path: Path) -> None:
    tiny_model(OTHERS[kind], tmp_path)
    if kind == "a repetition penalty":
        settings = json.loads((tmp_path / "generation_config.json").read_text())
        (tmp_path / "generation_config.json").write_text(json.dumps({**settings, "repetition_penalty": 1.3}))
    check_equal(tmp_path)
    assert engine(tmp_path).shares_prefixes == (kind in ("learned positions", "a repetition penalty"))


def test_a_model_that_sees_what_comes_is_refused(tmp_path: Path) -> None:
    tiny_model({"model_type": "bert"}, tmp_path)
    with pytest.raises(XmodelError, match="no causal language model"):
        engine(tmp_path)


def test_missing_tensors_are_named(llama: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path / "part")
    tensors = load_file(tmp_path / "part" / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "part" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(XmodelError, match=r"1 tensors are missing, such as model\.layers\.1\.mlp\.up_proj\.weight"):
        engine(tmp_path / "part")
    (tmp_path / "part" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(XmodelError, match="cannot be loaded"):
        engine(tmp_path / "part")


def test_a_context_is_two_tokens_at_least(llama: Path) -> None:
    with pytest.raises(XmodelError, match="--max-length 1: must be 2 tokens or more"):
        engine(llama, max_length=1)


def test_a_run_answers_as_its_export(road: Path) -> None:
    run, exported = engine(road / "run"), engine(road / "hf")
    a, b = dict(run.loglikelihood(PAIRS)), dict(exported.loglikelihood(PAIRS))
    assert [a[n][0] for n in a] == pytest.approx([b[n][0] for n in a], abs=1e-3)
    prompts = [Prompt("The function returns", ("\n",), 20)]
    assert list(run.generate(prompts)) == list(exported.generate(prompts))
    assert run.description["parameters"] == exported.description["parameters"]


@pytest.mark.parametrize("options", [{"batch_tokens": 1}, {"batch_tokens": 10**6}])
def test_scores_do_not_depend_on_the_batch(llama: Path, options: dict[str, int]) -> None:
    usual, other = dict(engine(llama).loglikelihood(PAIRS)), dict(engine(llama, **options).loglikelihood(PAIRS))
    for index, (nats, greedy) in usual.items():
        assert other[index] == (pytest.approx(nats, abs=1e-4), greedy)


def test_shared_beginnings_change_nothing_but_the_work(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, fed = engine(llama), list[int]()
    forward = opened.network.logit_parts

    def counted(ids: torch.Tensor, *rest: Any, **named: Any) -> Any:
        fed.append(ids.numel())
        return forward(ids, *rest, **named)

    monkeypatch.setattr(opened.network, "logit_parts", counted)
    shared = dict(opened.loglikelihood(PAIRS[:4]))
    work, fed[:] = sum(fed), []
    opened._share = False
    alone = dict(opened.loglikelihood(PAIRS[:4]))
    assert work < sum(fed) / 2
    assert [shared[n][0] for n in range(4)] == pytest.approx([alone[n][0] for n in range(4)], abs=1e-4)


def test_logits_of_a_large_vocabulary_are_made_in_parts(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = dict(engine(llama).loglikelihood(PAIRS))
    monkeypatch.setattr("xmodel2.eval.network._LOGITS", 1)
    in_parts = dict(engine(llama).loglikelihood(PAIRS))
    assert all(in_parts[n] == (pytest.approx(nats, abs=1e-4), greedy) for n, (nats, greedy) in usual.items())


def test_nothing_after_a_context_has_no_nats(llama: Path) -> None:
    assert dict(engine(llama).loglikelihood([("The sky", ""), ("", "")])) == {0: (0.0, True), 1: (0.0, True)}


def test_losses_by_token_are_those_of_the_log_softmax(llama: Path) -> None:
    opened = engine(llama)
    rows = [opened.encode("The sky is blue and the sea is deep."), opened.encode("No.")]
    assert rows[0][0] == opened.prefix_token_id
    losses = dict(opened.token_losses(rows))
    for index, row in enumerate(rows):
        logits = opened.network.model(torch.tensor([row])).logits[0, :-1]
        wanted = torch.nn.functional.cross_entropy(logits, torch.tensor(row[1:]), reduction="none").detach().numpy()
        assert losses[index] == pytest.approx(wanted, abs=1e-4)
        assert isinstance(losses[index], np.ndarray)


def test_a_long_text_is_scored_in_windows_with_the_prefix_once(llama: Path) -> None:
    text = "The function returns a list. " * 40
    opened = engine(llama)
    plain = HFLM(str(llama), dtype="float32", device="cpu", batch_size=2, add_bos_token=False)
    (wanted,) = plain.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)], True)
    assert dict(opened.rolling([text]))[0] == pytest.approx(wanted, rel=1e-5)


REMOTE = """
from transformers import LlamaConfig, LlamaForCausalLM


class StrangeConfig(LlamaConfig):
    model_type = "strange"


class StrangeModel(LlamaForCausalLM):
    config_class = StrangeConfig
"""


def test_a_repositorys_own_class_needs_a_word_and_answers_alike(llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "strange"
    shutil.copytree(llama, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "strange", "architectures": ["StrangeModel"]}
    config |= {"auto_map": {"AutoConfig": "code.StrangeConfig", "AutoModelForCausalLM": "code.StrangeModel"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(REMOTE)
    with pytest.raises(XmodelError, match="--trust-remote-code"):
        engine(folder)
    native, remote = engine(llama), engine(folder, trust_remote_code=True)
    prompts = [Prompt(text, ("\n\n", "e"), 24) for text in PROMPTS]
    assert dict(remote.generate(prompts)) == dict(native.generate(prompts))
    ours, theirs = dict(native.loglikelihood(PAIRS)), dict(remote.loglikelihood(PAIRS))
    assert [theirs[n][0] for n in ours] == pytest.approx([ours[n][0] for n in ours], abs=1e-3)


@pytest.fixture
def answers(llama: Path) -> Callable[..., list[str]]:
    """Return what generates, with at most so many slots."""

    def ask(prompts: list[Prompt], slots: int) -> list[str]:
        opened = engine(llama)
        opened._slots = slots
        found = dict(opened.generate(prompts))
        return [found[n] for n in range(len(prompts))]

    return ask


def test_answers_do_not_depend_on_their_neighbours(answers: Callable[..., list[str]]) -> None:
    examples = "Q: 1 + 1\nA: 2\n\nQ: 2 + 2\nA: 4\n\nQ: 3 + 3\nA: 6\n\n"
    prompts = [Prompt(examples + f"Q: {n} + {n}\nA:", ("\n",), 3 + 5 * (n % 4)) for n in range(9)]
    alone = [answers([prompt], 1)[0] for prompt in prompts]
    assert answers(prompts, 3) == answers(prompts, 16) == alone
    assert answers([], 4) == []


def test_stop_strings_cut_and_samples_repeat_by_seed(answers: Callable[..., list[str]]) -> None:
    (whole,) = answers([Prompt("The sky", (), 30)], 1)
    stop = whole[len(whole) // 2 :][:2]
    assert answers([Prompt("The sky", (stop, "never"), 30)], 1) == [whole[: whole.index(stop)]]
    drawn = [Prompt("The sky", (), 12, temperature=1.0, top_p=0.9, seed=seed) for seed in (1, 1, 2)]
    first, second, third = answers(drawn, 2)
    assert first == second != third


def test_an_answer_has_room_even_where_more_is_asked_than_the_context(answers: Callable[..., list[str]]) -> None:
    (text,) = answers([Prompt("word " * 200, (), 1000)], 1)
    assert text
