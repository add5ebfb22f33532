"""A model in fewer bits: what is written, what transformers makes of it, what is measured, and going on."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from xmodel2.cli import main
from xmodel2.errors import XmodelError
from xmodel2.files import mark_folder
from xmodel2.release.quantising import llama_difference, speed
from xmodel2.release.quantising.documents import documents_of
from xmodel2.release.quantising.quantise import quantise
from xmodel2.release.quantising.speed import Work, measure
from xmodel2.release.quantising.table import HEAD, markdown, quantising_section, rows
from xmodel2.release.quantising.torchao_directory import load_quantised
from xmodel2.release.trained import open_trained
from xmodel2.tokenizer import load_tokenizer

KINDS = ["int8", "int4", "gguf-q8_0", "gguf-q4_0"]


def run(model: Path, out: Path, kinds: list[str], limit: int = 300, **options: Any) -> dict[str, Any]:
    trained = open_trained(model)
    return quantise(trained, kinds, out, documents_of(trained, "", None, limit), rounds=0, **options)


@pytest.fixture(scope="module")
def quantised(road: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("quantised") / "out"
    return out, run(road / "run", out, KINDS)


def test_fewer_bits_are_smaller_files_with_nearly_the_same_loss(quantised: tuple[Path, dict[str, Any]]) -> None:
    out, record = quantised
    types = record["types"]
    assert list(types) == ["fp32", "bf16", "gguf-f16", *KINDS]
    weights = {name: (out / types[name]["path"] / "model.safetensors").stat().st_size for name in ("int8", "int4")}
    assert weights == {name: types[name]["bytes"] for name in weights}
    assert types["gguf-q4_0"]["weights_bytes"] < types["gguf-q8_0"]["weights_bytes"]
    for name in KINDS:
        assert abs(types[name]["losses"]["all"]["difference"]) < 0.02
    assert types["int8"]["max_abs_difference"] < 1e-3
    assert types["int4"]["max_abs_difference"] < 1e-3
    assert types["gguf-q8_0"]["llama_difference"] < 0.05
    assert not (out / ".unquantised").exists()


def test_transformers_alone_loads_what_is_written_and_continues_a_chat(quantised: tuple[Path, dict[str, Any]]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = quantised[0] / "int8"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert type(model.model.layers[0].mlp.up_proj.weight).__name__ == "Int8Tensor"
    assert model.lm_head.weight is model.model.embed_tokens.weight
    text = AutoTokenizer.from_pretrained(folder)
    chat: Any = text.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    ids = torch.tensor([chat["input_ids"]])
    assert model.generate(ids, max_new_tokens=3, min_new_tokens=3).shape == (1, ids.shape[1] + 3)
    assert "## Weights" in (folder / "README.md").read_text()


def test_int4_is_packed_in_the_file_and_runs_on_a_cpu(quantised: tuple[Path, dict[str, Any]]) -> None:
    folder = quantised[0] / "int4"
    with safe_open(folder / "model.safetensors", "pt") as file:
        packed = file.get_slice("model.layers.0.mlp.up_proj._weight_qdata")
        assert packed.get_shape() == [96, 32]
        assert packed.get_dtype() == "I8"
    model = load_quantised(folder)
    assert type(model.model.layers[0].mlp.up_proj.weight).__name__ == "Int4OpaqueTensor"
    assert model(torch.tensor([[1, 5, 6]])).logits.isfinite().all()


def test_what_is_there_stays_and_what_is_new_is_added(
    road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_difference, "llama_difference", lambda *args: 0.0)
    out = tmp_path / "out"
    first = run(road / "run", out, ["gguf-q8_0"], limit=100)
    file = out / "demo-q8_0.gguf"
    made = file.stat().st_mtime_ns
    (out / ".demo-q4_0.gguf.999.tmp").write_bytes(b"of a process that was killed")
    again = run(road / "run", out, ["int8"], limit=100)
    assert file.stat().st_mtime_ns == made
    assert list(again["types"])[-2:] == ["int8", "gguf-q8_0"]
    assert again["types"]["gguf-q8_0"] == first["types"]["gguf-q8_0"]
    assert again["types"]["int8"]["losses"]["all"]["difference"] != 0.0
    assert json.loads((out / "quantize.json").read_text()) == again
    assert not list(out.glob(".*.tmp"))
    run(road / "run", out, ["int8"], limit=100, overwrite=True)
    assert file.stat().st_mtime_ns != made


def test_other_documents_are_measured_anew(road: Path, tmp_path: Path) -> None:
    first = run(road / "run", tmp_path, ["int8"], limit=100)
    other = run(road / "run", tmp_path, ["int8"], limit=200)
    assert other["heldout"]["tokens"] > first["heldout"]["tokens"]
    assert other["types"]["fp32"]["losses"] != first["types"]["fp32"]["losses"]


def test_a_folder_of_something_else_is_left_alone(road: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(XmodelError, match="already exists"):
        run(road / "run", tmp_path, ["int8"])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_holds_one_model(road: Path, tmp_path: Path) -> None:
    mark_folder(tmp_path / "out", "quantize")
    record = {"model": {"name": "demo"}, "types": {"gguf-q8_0": {"path": "demo-q8_0.gguf"}}}
    (tmp_path / "out" / "quantize.json").write_text(json.dumps(record))
    (tmp_path / "out" / "demo-q8_0.gguf").write_bytes(b"")
    native = tmp_path / "other"
    shutil.copytree(road / "hf", native, ignore=shutil.ignore_patterns("recipe.toml"))
    with pytest.raises(XmodelError, match="holds the model demo; choose another --out"):
        run(native, tmp_path / "out", ["int8"])
    assert list(run(native, tmp_path / "out", ["int8"], overwrite=True)["types"]) == ["fp32", "bf16", "int8"]
    assert not list((tmp_path / "out").glob("demo*"))


def test_other_weights_of_the_model_are_quantised_anew(road: Path, tmp_path: Path) -> None:
    steps = sorted((road / "run" / "checkpoints").glob("step-*"), key=lambda path: int(path.name.partition("-")[2]))
    first = run(steps[0], tmp_path, ["int8"])
    last = run(steps[-1], tmp_path, ["int8"])
    assert first["model"]["step"] < last["model"]["step"]
    for name in ("fp32", "int8"):
        assert first["types"][name]["losses"] != last["types"][name]["losses"]


def test_a_damaged_record_is_told(road: Path, tmp_path: Path) -> None:
    mark_folder(tmp_path, "quantize")
    for record in (
        "[1]",
        '{"types": {}, "model": []}',
        '{"types": {"int9": {}}, "model": {}}',
        '{"types": {"int8": 1}, "model": {}}',
    ):
        (tmp_path / "quantize.json").write_text(record)
        with pytest.raises(XmodelError, match=r"quantize\.json: was not written by"):
            run(road / "run", tmp_path, ["int8"])


def test_a_terminal_of_80_letters_has_room_for_the_table(
    road: Path,
    quantised: tuple[Path, dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = json.loads(json.dumps(quantised[1]))
    for row in record["types"].values():
        row |= {"peak_bytes": 987_654_321, "prompt_tokens_s": {"median": 12_345}, "generate_tokens_s": {"median": 1234}}
    monkeypatch.setattr("xmodel2.release.quantising.quantise.quantise", lambda *args, **options: record)
    with pytest.raises(SystemExit):
        main(["quantize", str(road / "run"), "--limit-tokens", "100"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert any(line.startswith("gguf-q4_0 ") for line in lines)
    assert lines[-1].endswith("quantize.md: more columns, and perplexity by source")


def test_a_native_directory_is_quantised_without_losses(road: Path, tmp_path: Path) -> None:
    record = run(road / "hf", tmp_path / "out", ["int8"])
    assert "losses" not in record["types"]["int8"]
    assert "give --data DIR" in markdown(record)
    assert load_tokenizer(tmp_path / "out" / "int8").vocab_size == 700


def test_the_table_holds_every_type_and_nothing_that_markdown_or_html_reads(
    quantised: tuple[Path, dict[str, Any]],
) -> None:
    out, record = quantised
    assert all(len(row) == len(HEAD) for row in rows(record))
    text = (out / "quantize.md").read_text()
    assert text == markdown(record)
    assert "| int4 | transformers, torchao |" in text
    section = quantising_section(out)
    assert section
    assert section.body.count("<table>") == 2
    record["model"]["name"] = "<script>|"
    (out / "quantize.json").write_text(json.dumps(record))
    section = quantising_section(out)
    assert section
    assert "<script>" not in section.body
    assert quantising_section(out / "nothing") is None


def test_speeds_are_measured_in_turns_with_the_memory_of_each_process(quantised: tuple[Path, dict[str, Any]]) -> None:
    out, record = quantised
    places = {"int4": out / "int4", "gguf-q8_0": out / record["types"]["gguf-q8_0"]["path"]}
    found = measure(places, Work(list(range(16)), new=4, threads=1), rounds=1)
    for figures in found.values():
        assert figures["generate_tokens_s"]["median"] > 0
        assert figures["prompt_tokens_s"]["low"] <= figures["prompt_tokens_s"]["high"]
        assert figures["peak_bytes"] > 1e6
        assert figures["in_turns"]
    assert found["int4"]["weights_bytes"] < record["types"]["int4"]["bytes"]


def test_a_directory_that_does_not_load_is_told_with_what_transformers_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").mkdir()
    monkeypatch.setattr(speed, "CHILD", ("-c", "raise OSError('no such weights')"))
    with pytest.raises(XmodelError, match=r"broken: transformers ended while it was timed:\n(.|\n)*no such weights"):
        measure({"broken": tmp_path / "broken"}, Work([1], 2, 1), rounds=1)
