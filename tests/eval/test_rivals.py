"""Every rival has an entry with its scores; those that load without foreign code are tried as tiny random models."""

import json
import socket
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.eval.rival_models import NATIVE, PUBLISHED, published_parameters, tiny_rival
from xmodel2.commands.rivals import rivals
from xmodel2.errors import XmodelError
from xmodel2.eval.paper import PAPER, XMODEL2
from xmodel2.eval.rivals import RIVALS, Rival, find_rival, known_rival, load_options


def by_name(rivals: list[Rival]) -> dict:
    return {"argnames": "rival", "argvalues": rivals, "ids": [rival.name for rival in rivals]}


def test_they_are_the_fourteen_of_the_tables() -> None:
    assert len(RIVALS) == 14
    assert [rival.name for rival in RIVALS] == [row.model for row in PAPER if row.table == 2 and row.model != XMODEL2]
    assert len({rival.hub for rival in RIVALS}) == 14


@pytest.mark.parametrize(**by_name(list(RIVALS)))
def test_native_is_what_the_installed_transformers_has(rival: Rival) -> None:
    classes = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    assert (rival.architecture in classes.values()) is rival.native
    if rival.native:
        assert classes[rival.model_type] == rival.architecture
    elif rival.name != "MobiLlama-1B":  # which calls itself llama, and is not
        assert rival.model_type not in CONFIG_MAPPING_NAMES


@pytest.mark.parametrize(**by_name(NATIVE))
def test_parameters_follow_from_the_published_configuration(rival: Rival) -> None:
    assert published_parameters(rival.name) == rival.parameters


@pytest.mark.parametrize(**by_name(list(RIVALS)))
def test_sizes_agree_with_the_name(rival: Rival) -> None:
    named = float(rival.name.rpartition("-")[2].removesuffix("B"))
    assert abs(rival.parameters / 1e9 - named) < 0.5  # OLMo, DCLM and others name a rounded 1B


@pytest.mark.parametrize(**by_name(NATIVE))
def test_a_tiny_one_loads_offline_and_answers(rival: Rival, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    path = tiny_rival(rival, tmp_path)
    assert {file.suffix for file in path.iterdir()} == {".json", ".safetensors"}
    model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    assert type(model).__name__ == rival.architecture
    assert all(parameter.std() > 0.05 for parameter in model.parameters())  # biases and norms too
    text = "Question: what is 12 + 30?\n    Answer: 42, naïvely…"
    ids = tokenizer(text)["input_ids"]
    assert (ids[0] == tokenizer.bos_token_id) is rival.add_bos
    assert ids.count(tokenizer.bos_token_id) == rival.add_bos
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    assert logits.shape == (len(ids), model.config.vocab_size)
    assert torch.isfinite(logits).all()
    assert logits[-1].std() > 0.05  # far from a tie, so that a mistake shows


def test_peculiarities_survive_the_shrinking(tmp_path: Path) -> None:
    def read(name: str) -> dict:
        return json.loads((tiny_rival(find_rival(name), tmp_path) / "config.json").read_text(encoding="utf-8"))

    olmo, stable, llama, phi = map(read, ("OLMo-1B", "StableLM-2-zephyr-1.6B", "Llama-3.2-1B", "Phi-1.5-1.3B"))
    assert olmo["clip_qkv"] == 0.5
    assert stable["use_qkv_bias"]
    assert stable["rope_parameters"]["partial_rotary_factor"] == 0.25
    assert phi["rope_parameters"]["partial_rotary_factor"] == 0.5
    rope = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "original_max_position_embeddings": 128}
    assert rope.items() <= llama["rope_parameters"].items()
    assert [olmo["tie_word_embeddings"], llama["tie_word_embeddings"], phi["tie_word_embeddings"]] == [
        True,
        True,
        False,
    ]
    assert llama["num_key_value_heads"] < llama["num_attention_heads"]
    assert set(PUBLISHED) == {rival.name for rival in NATIVE}


@pytest.mark.parametrize(
    "name", ["Phi-1.5-1.3B", "PHI-1.5-1.3b", "microsoft/phi-1_5", "Microsoft/Phi-1_5", "Phi-1.5 1.3B"]
)
def test_a_rival_is_found_by_name_and_hub_id(name: str) -> None:
    assert find_rival(name) is RIVALS[-1]


def test_an_unknown_name_gets_the_nearest() -> None:
    assert known_rival("Xmodel-2-1.2B") is None
    with pytest.raises(XmodelError, match=r"Did you mean 'SmolLM-1\.7B'\?"):
        find_rival("smollm1.7b")
    with pytest.raises(XmodelError, match=r"Did you mean 'Qwen/Qwen2\.5-1\.5B'\?"):
        find_rival("Qwen/Qwen2.5-1.5")


@pytest.mark.parametrize(**by_name([rival for rival in RIVALS if not rival.native]))
def test_foreign_code_needs_the_flag_and_its_modules(rival: Rival) -> None:
    with pytest.raises(XmodelError) as refused:
        load_options(rival, allow_remote_code=False)
    for part in (rival.hub, rival.architecture, "--trust-remote-code", *rival.modules, rival.install):
        assert part in str(refused.value)
    missing = Rival(**{**vars(rival), "modules": ("json", "no_such_module")})
    with pytest.raises(XmodelError, match="no no_such_module"):
        load_options(missing, allow_remote_code=True)
    allowed = load_options(Rival(**{**vars(rival), "modules": ("json",)}), allow_remote_code=True)
    assert allowed.trust_remote_code
    assert allowed.model == rival.hub
    assert allowed.add_bos is rival.add_bos


def test_openelm_borrows_its_tokenizer() -> None:
    assert load_options(find_rival("OpenELM-1.1B"), True).tokenizer == "meta-llama/Llama-2-7b-hf"


@pytest.mark.parametrize("allow", [False, True])
def test_native_rivals_never_run_repository_code(allow: bool) -> None:
    options = [load_options(rival, allow_remote_code=allow) for rival in NATIVE]
    assert not any(option.trust_remote_code for option in options)
    assert all(option.add_bos is None and option.tokenizer == option.model for option in options)


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    rivals(json=True)
    listed = json.loads(capsys.readouterr().out)["rivals"]
    assert listed[0]["paper"]["commonsense"]["average"] == 55.23
    assert "agents" not in next(rival for rival in listed if rival["name"] == "Qwen2-1.5B")["paper"]
    rivals()
    lines = capsys.readouterr().out.splitlines()
    assert any("TRI-ML/DCLM-1B" in line and "the package open_lm" in line for line in lines)
    rivals("phi-1.5-1.3b")
    assert "PhiForCausalLM" in capsys.readouterr().out
    with pytest.raises(XmodelError, match=r"Did you mean 'Fox-1-1\.6B'"):
        rivals("Fox-1-1.6")
