"""An exported directory, loaded by transformers alone, and what export refuses."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from xmodel2.errors import XmodelError
from xmodel2.model import tensor_program
from xmodel2.model.generate import generate
from xmodel2.release import export
from xmodel2.release.export import export_checkpoint
from xmodel2.tokenizer import load_tokenizer
from xmodel2.train import load_model

ALONE = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
ids = tokenizer.apply_chat_template([{"role": "user", "content": "1 + 2 ="}], add_generation_prompt=True, return_tensors="pt")
ids = ids if isinstance(ids, torch.Tensor) else ids["input_ids"]
print(type(model).__name__, model.config.tie_word_embeddings, model.generate(ids, max_new_tokens=4).shape[0])
assert not any(name.startswith("xmodel2") for name in sys.modules)
"""


def test_transformers_loads_it_without_our_package(road: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-c", ALONE, str(road / "hf")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["GraniteForCausalLM", "True", "1"]


def test_greedy_generation_is_the_same_in_both(road: Path) -> None:
    model, _, _ = load_model(road / "run")
    tokenizer = load_tokenizer(road / "run" / "tokenizer")
    native = AutoModelForCausalLM.from_pretrained(road / "hf", dtype=torch.float32)
    prompt = tokenizer.encode_prompt([{"role": "user", "content": "Spell this word backward: sun"}])
    ours = generate(model, [prompt], 16, tokenizer.stop_ids)[0]
    theirs = native.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False)[0, len(prompt) :].tolist()
    assert [i for i in theirs if i not in (*tokenizer.stop_ids, tokenizer.pad_id)] == ours


def test_directory_is_complete(road: Path) -> None:
    names = {p.name for p in (road / "hf").iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    config = json.loads((road / "hf" / "config.json").read_text())
    assert config["architectures"] == ["GraniteForCausalLM"]
    assert config["tie_word_embeddings"] is True
    assert AutoTokenizer.from_pretrained(road / "hf").chat_template
    card = (road / "hf" / "README.md").read_text()
    for words in ("Reasoning, exact match", "| reasoning | 0.00% | 64.00% | Apache-2.0 (reasoning-gym) |", "[model]"):
        assert words in card


def test_the_card_of_a_stable_checkpoint_shows_its_own_results(road: Path, tmp_path: Path) -> None:
    results = json.loads((road / "run" / "results.json").read_text())
    export_checkpoint(road / "run" / "checkpoints" / "step-12", tmp_path / "hf")
    card = (tmp_path / "hf" / "README.md").read_text()
    assert f"| docs | {results['heldout']['stable']['docs']['loss']:.3f} |" in card
    assert "(decay)" not in card


def test_the_card_shows_no_results_of_another_step(road: Path, tmp_path: Path) -> None:
    shutil.copytree(road / "run", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    results["steps"]["decay"] = 19
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    export_checkpoint(tmp_path / "run", tmp_path / "hf")
    assert "Not evaluated at this step." in (tmp_path / "hf" / "README.md").read_text()
    (tmp_path / "run" / "results.json").write_text("{")
    with pytest.raises(XmodelError, match=r"results\.json: not valid JSON"):
        export_checkpoint(tmp_path / "run", tmp_path / "hf2")


def test_existing_directory_is_refused_and_replaced_on_demand(road: Path, tmp_path: Path) -> None:
    out = tmp_path / "hf"
    export_checkpoint(road / "run", out)
    (out / "old.txt").write_text("of an earlier export")
    with pytest.raises(XmodelError, match="already exists"):
        export_checkpoint(road / "run", out)
    assert (out / "old.txt").exists()
    export_checkpoint(road / "run", out, overwrite=True)
    assert not (out / "old.txt").exists()


def test_a_folder_that_is_no_export_is_never_deleted(road: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(XmodelError, match="was not made by `xmodel2 export`"):
        export_checkpoint(road / "run", tmp_path, overwrite=True)
    assert (tmp_path / "mine.txt").exists()


def test_a_wrong_export_is_not_published(road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = export.granite_config
    monkeypatch.setattr(export, "granite_config", lambda *args: {**wrong(*args), "logits_scaling": 1.0})
    with pytest.raises(XmodelError, match=r"differ from ours by .* nothing was published"):
        export_checkpoint(road / "run", tmp_path / "hf")
    assert list(tmp_path.iterdir()) == []


def test_random_weights_agree_too(road: Path, tmp_path: Path) -> None:
    model, recipe, _ = load_model(road / "run")
    tensor_program.initialise(model, 9)
    report = export.export_hf(model, recipe.model, road / "run" / "tokenizer", tmp_path / "hf", card="")
    assert report["max_abs_difference"] < 1e-4


def test_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match="neither a run directory with checkpoints nor a checkpoint"):
        export_checkpoint(tmp_path, tmp_path / "hf")
