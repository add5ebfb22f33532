"""GGUF files hold our weights and our tokenizer, and llama.cpp agrees; what does not is not published."""

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.release.exporting.conftest import MakeRun
from xmodel2.errors import XmodelError
from xmodel2.model import Xmodel2

pytest.importorskip("gguf")

import gguf

from xmodel2.release.exporting import formats, gguf_check, gguf_file, gguf_quantiser, gguf_tensors
from xmodel2.release.exporting.formats import export_model
from xmodel2.release.exporting.gguf_file import write_gguf
from xmodel2.release.exporting.gguf_read import context_of, of_model, read_metadata, read_tensors
from xmodel2.release.exporting.gguf_tensors import StoredTensors, llama_rows, native_rows
from xmodel2.release.exporting.gguf_types import BLOCKS, K_QUANTS, KINDS
from xmodel2.release.exporting.gguf_vocabulary import vocabulary
from xmodel2.release.exporting.weights import native_tensors
from xmodel2.release.llama_server import LlamaServer
from xmodel2.release.trained import open_trained
from xmodel2.tokenizer import load_tokenizer

needs_llama = pytest.mark.skipif(find_spec("xllamacpp") is None, reason="xllamacpp is not installed")
HOSTILE = (
    "a  b\n\n\tc \r\n ",
    "<s></s><|user|>hi<|end|><unk>",
    "<0x41>▁ é🙂👩\u200d👧 \x01\ufffd",
    "{% raw %} [unused 3]",
    "0" * 500,
)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the proof, for tests of what is written."""
    monkeypatch.setattr(gguf_file, "check_gguf", lambda *arguments: {})


@needs_llama
@pytest.mark.parametrize("kind", ["f32", "q4_0"])
def test_llama_cpp_agrees(road: Path, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "model.gguf"
    report = write_gguf(open_trained(road / "run"), file, kind)
    assert (report["kind"], report["path"], report["bytes"]) == (kind, str(file), file.stat().st_size)
    assert report["max_abs_difference"] < (1e-4 if kind == "f32" else 0.5)
    assert report["share_of_spread"] < 0.12
    assert report["tokenizer"].startswith("ids as ours in")
    assert (tmp_path / "tokenizer.json").read_bytes() == (road / "run" / "tokenizer" / "tokenizer.json").read_bytes()


@needs_llama
def test_a_run_with_all_its_scales(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(
        num_key_value_heads=2, scale_emb=7.0, scale_depth=0.9, dim_model_base=32, attention_scale="1/head_dim"
    )
    report = write_gguf(open_trained(run), tmp_path / "model.gguf", "f32")
    assert report["max_abs_difference"] < 1e-4


@needs_llama
def test_text_and_chats_have_our_ids(road: Path, tmp_path: Path, unchecked: None) -> None:
    tokenizer = load_tokenizer(road / "run" / "tokenizer")
    write_gguf(open_trained(road / "run"), tmp_path / "model.gguf", "f16")
    _, scores, _ = vocabulary(tokenizer, tokenizer.vocab_size)
    with LlamaServer(tmp_path / "model.gguf", threads=1) as server:
        for text in HOSTILE:
            asked = {"content": text, "add_special": False, "parse_special": False}
            ours, theirs = tokenizer.encode(text), server.post("/tokenize", asked)["tokens"]
            assert tokenizer.decode(theirs) == text
            assert sum(scores[i] for i in theirs) == pytest.approx(sum(scores[i] for i in ours), abs=1e-6)
            assert server.post("/detokenize", {"tokens": ours})["content"] == text
        chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 3 plus 4?"}]
        answer = server.post("/v1/chat/completions", {"messages": chat, "max_tokens": 1})
        assert answer["usage"]["prompt_tokens"] == len(tokenizer.encode_prompt(chat))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in K_QUANTS])
def test_every_tensor_reads_back(make_run: MakeRun, tmp_path: Path, unchecked: None, kind: str) -> None:
    # Rows of 48 are no multiple of a block of 32; those of 96 are.
    trained = open_trained(make_run(hidden_size=48, num_attention_heads=2))
    write_gguf(trained, tmp_path / "model.gguf", kind)
    stored = StoredTensors(tmp_path / "model.gguf", trained.settings)
    for name, tensor in native_tensors(trained):
        assert stored(name, tensor).shape == tensor.shape
    assert (stored.worst == 0) == (kind == "f32")
    types = {
        tensor.name: tensor.tensor_type.name.lower() for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors
    }
    assert types["output_norm.weight"] == "f32"
    assert types["blk.0.ffn_down.weight"] == kind
    assert types["token_embd.weight"] == ("f16" if kind in BLOCKS else kind)


def test_the_embedding_of_a_quantised_file_is_finer(road: Path, tmp_path: Path, unchecked: None) -> None:
    write_gguf(open_trained(road / "run"), tmp_path / "model.gguf", "q4_0")
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert (types["token_embd.weight"], types["blk.0.attn_q.weight"]) == ("Q8_0", "Q4_0")


def test_rows_come_back(road: Path) -> None:
    settings = open_trained(road / "run").settings
    for name in (
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
        "model.norm.weight",
    ):
        rows = settings.hidden_size // (2 if "k_proj" in name else 1)
        tensor = torch.arange(rows * 3.0).reshape(rows, 3) if "proj" in name else torch.arange(6.0)
        there = llama_rows(name, tensor, settings)
        assert torch.equal(there, tensor) == ("proj" not in name)
        assert torch.equal(native_rows(name, there, settings), tensor)


def test_metadata_tells_the_model(road: Path, tmp_path: Path, unchecked: None) -> None:
    trained = open_trained(road / "run")
    write_gguf(trained, tmp_path / "model.gguf", "f16")
    found = read_metadata(tmp_path / "model.gguf")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    for key, value in found.items():
        field = reader.get_field(key)
        theirs = field.contents() if field else None
        ours = value.decode() if isinstance(value, bytes) else value
        if isinstance(value, np.ndarray):
            assert value.tolist() == theirs
        elif isinstance(value, list):
            assert [piece.decode() for piece in value] == theirs
        else:
            assert ours == theirs
    assert found["xmodel2.fingerprint"].decode() == trained.fingerprint
    assert b"[stages.stable" in found["xmodel2.recipe"]
    assert of_model(found, "context_length") == trained.settings.max_position_embeddings
    assert of_model(found, "attention.scale") == pytest.approx(trained.settings.head_dim**-0.5)


@needs_llama
@pytest.mark.parametrize("mistake", ["rows", "scale", "weights"])
def test_what_is_not_proved_is_not_published(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    def sharper(model: Xmodel2) -> None:
        for name, parameter in model.named_parameters():
            if "qkv_proj" in name:
                parameter.mul_(4)

    trained = open_trained(make_run(sharper))
    if mistake == "rows":
        monkeypatch.setattr(gguf_tensors, "_reordered", lambda name, tensor, settings, cut: tensor)
    elif mistake == "scale":
        config = gguf_file.granite_config
        monkeypatch.setattr(gguf_file, "granite_config", lambda s: {**config(s), "logits_scaling": 1.05})
    else:
        monkeypatch.setattr(gguf_file, "llama_rows", lambda name, tensor, settings: tensor * 1.01)
    file = tmp_path / "out" / "model.gguf"
    with pytest.raises(XmodelError, match=r"differs? from .*nothing was published"):
        write_gguf(trained, file, "f16")
    assert not file.parent.exists() or not any(file.parent.iterdir())


def test_weights_that_a_type_cannot_hold(make_run: MakeRun, tmp_path: Path) -> None:
    def large(model: Xmodel2) -> None:
        dict(model.named_parameters())["layers.0.mlp.down_proj.weight"].mul_(1e9)

    with pytest.raises(XmodelError, match=r"down_proj\.weight as F16 differs.*f32 holds all"):
        write_gguf(open_trained(make_run(large)), tmp_path / "model.gguf", "f16")


def test_without_llama_cpp_the_weights_are_checked(road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_check, "BINDING", "a_package_that_is_not_there")
    report = write_gguf(open_trained(road / "run"), tmp_path / "model.gguf", "q8_0")
    assert report["max_abs_difference"] is None
    assert "without llama.cpp" in report["checked_by"]
    assert 0 < report["weights_error"] < 0.025


def test_another_tokenizer_is_told(road: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(road / "run" / "tokenizer")
    pieces, scores, types = vocabulary(tokenizer, tokenizer.vocab_size + 2)
    assert pieces[-1] == f"[unused {tokenizer.vocab_size + 1}]".encode()
    assert types[-1] == gguf.TokenType.CONTROL
    assert (types[1], types[0], pieces[7]) == (gguf.TokenType.CONTROL, gguf.TokenType.UNKNOWN, b"<|end|>")
    units = np.array(scores) * 1e4
    assert np.abs(units - np.round(units)).max() < 1e-6
    in_llama_cpp = np.array(scores, np.float32) * np.float32(1e4)
    assert np.array_equal(np.round(in_llama_cpp), np.round(units))
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE"}, "normalizer": null, "added_tokens": []}')
    tokenizer.directory = tmp_path
    with pytest.raises(XmodelError, match="its tokenizer is BPE"):
        vocabulary(tokenizer, 10)


def test_k_quants_name_their_package(road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_quantiser, "PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(XmodelError, match="pip install llama-cpp-python"):
        write_gguf(open_trained(road / "run"), tmp_path / "model.gguf", "q4_k_m")
    monkeypatch.setattr(formats, "replaced_folder", None)  # it is told before anything is written
    with pytest.raises(XmodelError, match="pip install llama-cpp-python"):
        export_model(road / "run", ["hf", "gguf-q4_k_m"], tmp_path / "out")


def test_a_quantiser_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llama_cpp.py").write_text("raise SystemExit('no quantiser here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(XmodelError, match=r"could not make q6_k \(exit code 1\):\s+no quantiser here"):
        gguf_quantiser.quantise(tmp_path / "a", tmp_path / "b", "q6_k")


HEADER = b"".join(
    [
        b"GGUF" + np.uint32(3).tobytes() + np.array([0, 1], "<u8").tobytes(),
        np.uint64(1).tobytes() + b"k" + np.array([9, 8], "<u4").tobytes() + np.uint64(2).tobytes(),
        np.uint64(1).tobytes() + b"a" + np.uint64(1).tobytes() + b"b",
    ]
)
"""A GGUF file's beginning with one pair: an array of two strings."""


def test_damaged_metadata_is_told(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(HEADER)
    assert read_metadata(file) == {"k": [b"a", b"b"]}
    damaged: list[Any] = [HEADER[:end] for end in range(len(HEADER))]
    damaged += [HEADER[:16] + b"\xff" * 8 + HEADER[24:], HEADER[:33] + b"\x63" + HEADER[34:], HEADER[:41] + b"\xff" * 8]
    for content in damaged:
        file.write_bytes(content)
        with pytest.raises(XmodelError, match=r"x\.gguf: not a "):
            read_metadata(file)


@pytest.mark.parametrize(("kind", "value"), [(4, 0), (5, -1), (6, 1.0)])
def test_an_alignment_that_is_none_is_told(tmp_path: Path, kind: int, value: float) -> None:
    dtype = {4: "<u4", 5: "<i4", 6: "<f4"}[kind]
    key = b"general.alignment"
    pair = np.uint64(len(key)).tobytes() + key + np.uint32(kind).tobytes() + np.array(value, dtype).tobytes()
    file = tmp_path / "x.gguf"
    file.write_bytes(HEADER[:8] + np.array([0, 1], "<u8").tobytes() + pair)
    with pytest.raises(XmodelError, match="not a whole GGUF file"):
        read_tensors(file)


@pytest.mark.parametrize("context", [None, math.inf, -1, 0, b"512", [512]])
def test_a_context_that_is_none_is_told(tmp_path: Path, context: Any) -> None:
    with pytest.raises(XmodelError, match=r"x\.gguf: its metadata tells no context length"):
        context_of({"general.architecture": b"granite", "granite.context_length": context}, tmp_path / "x.gguf")
    with pytest.raises(XmodelError, match="tells no context length"):
        context_of({"general.architecture": 7}, tmp_path / "x.gguf")
