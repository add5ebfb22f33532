"""Several formats at once, and what is in the way of an export."""

import errno
import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from xmodel2.cli import main
from xmodel2.errors import XmodelError
from xmodel2.files import file_record, write_json_atomic
from xmodel2.release.exporting import directory, formats, gguf_file
from xmodel2.release.exporting.formats import check_formats, export_model, parse_size
from xmodel2.release.trained import Trained, open_trained
from xmodel2.train.tensor_files import Piece, write_tensors


@pytest.fixture
def run(road: Path, tmp_path: Path) -> Path:
    """A copy of the run's last checkpoint and tokenizer, to be damaged."""
    shutil.copytree(road / "run" / "tokenizer", tmp_path / "run" / "tokenizer")
    shutil.copytree(road / "run" / "checkpoints" / "step-20", tmp_path / "run" / "checkpoints" / "step-20")
    return tmp_path / "run"


def rewrite(run: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Put other tensors into the checkpoint, with a manifest that is true of them."""
    checkpoint = run / "checkpoints" / "step-20"
    save_file(tensors, checkpoint / "model.safetensors")
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"]["model.safetensors"] = file_record(checkpoint / "model.safetensors")
    write_json_atomic(checkpoint / "manifest.json", manifest)


def test_one_command_for_several(road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "all"
    with pytest.raises(SystemExit) as end:
        main(["export", str(road / "run"), "--to", "llama,hf", "--dtype", "bfloat16", "--out", str(out), "--json"])
    assert end.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["format"] for row in said["formats"]] == ["llama", "hf"]
    assert [row["path"] for row in said["formats"]] == [str(out / "llama"), str(out / "hf")]
    assert all(0 < row["max_abs_difference"] < 1e-4 and row["bytes"] > 0 for row in said["formats"])
    for name in ("llama", "hf"):
        assert (out / name / "model.safetensors").exists()


def test_one_format_is_the_folder_itself(road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["export", str(road / "run"), "--to", "hf", "--out", str(tmp_path / "hf")])
    assert f"{tmp_path / 'hf'}: 0.4 MB, largest logit difference" in capsys.readouterr().out
    assert (tmp_path / "hf" / "config.json").exists()
    for name in ("torchao", "torch.utils._pytree"):  # what they say when transformers is imported is no news of ours
        assert not logging.getLogger(name).isEnabledFor(logging.WARNING)


def test_the_difference_is_called_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"path": "x", "bytes": 10**6, "checked_by": "llama.cpp"}
    reports = [
        {**row, "format": "gguf-f16", "max_abs_difference": 0.5},
        {**row, "format": "gguf-f16", "max_abs_difference": None},
    ]
    monkeypatch.setattr(formats, "export_model", lambda *args, **options: reports)
    with pytest.raises(SystemExit):
        main(["export", "run", "--to", "gguf", "--out", str(tmp_path)])
    first, second = capsys.readouterr().out.splitlines()
    assert first == "x: 1.0 MB, largest difference of log-probabilities 5.00e-01 against llama.cpp"
    assert second == "x: 1.0 MB, proved by llama.cpp"


def test_gguf_files_lie_where_it_is_said(
    road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unproved: None
) -> None:
    def write(trained: Trained, file: Path, kind: str) -> dict[str, Any]:
        file.write_bytes(kind.encode())
        return {"kind": kind, "bytes": len(kind), "max_abs_difference": 0.0}

    monkeypatch.setattr(gguf_file, "write_gguf", write)
    monkeypatch.setattr(gguf_file, "gguf_installed", lambda kinds: None)
    monkeypatch.setattr(formats, "open_trained", lambda path: replace(open_trained(path), name="../a model"))
    alone = export_model(road / "run", ["gguf", "gguf-q8_0"], tmp_path / "alone")
    beside = export_model(road / "run", ["gguf-q8_0", "hf"], tmp_path / "both")
    assert [row["path"] for row in alone] == [
        str(tmp_path / "alone" / f"a-model-{kind}.gguf") for kind in ("f16", "q8_0")
    ]
    assert beside[0]["path"] == str(tmp_path / "both" / "gguf" / "a-model-q8_0.gguf")
    assert (tmp_path / "both" / "gguf" / "a-model-q8_0.gguf").read_bytes() == b"q8_0"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["lama"], r"--to lama: must be of hf, llama, gguf, .*Did you mean 'llama'\?"),
        (["hf", "gguf-q8"], "Did you mean 'gguf-q8_0'"),
        (["onnx"], "--to onnx: must be of"),
        (["", " "], "--to: names no format"),
    ],
)
def test_unknown_formats(road: Path, tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(XmodelError, match=message):
        export_model(road / "run", names, tmp_path / "out")


def test_formats_are_taken_once() -> None:
    assert check_formats(["hf", " GGUF", "gguf-f16", "hf"]) == ["hf", "gguf-f16"]


def test_sizes() -> None:
    assert [parse_size(text) for text in ("5GB", "1 MiB", "12", "0.5kb")] == [5 * 10**9, 1 << 20, 12, 500]
    for text in ("", "GB", "5TB", "-1GB", "0"):
        with pytest.raises(XmodelError, match="write it as 5GB"):
            parse_size(text)


def test_existing_directory_is_refused_and_replaced_on_demand(road: Path, tmp_path: Path, unproved: None) -> None:
    out = tmp_path / "hf"
    export_model(road / "run", ["hf"], out)
    (out / "old.txt").write_text("of an earlier export")
    with pytest.raises(XmodelError, match="already exists"):
        export_model(road / "run", ["hf"], out)
    assert (out / "old.txt").exists()
    link = tmp_path / "link"
    link.symlink_to(out)
    export_model(road / "run", ["hf"], link, overwrite=True)
    assert link.is_symlink()
    assert not (out / "old.txt").exists()


def test_a_folder_that_is_no_export_is_never_deleted(road: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(XmodelError, match="was not made by `xmodel2 export`"):
        export_model(road / "run", ["hf"], tmp_path, overwrite=True)
    assert (tmp_path / "mine.txt").exists()


def test_the_model_itself_is_never_replaced(road: Path, tmp_path: Path) -> None:
    shutil.copytree(road / "hf", tmp_path / "all" / "hf")
    (tmp_path / "all" / ".xmodel2").write_text("export")
    for out in (tmp_path / "all" / "hf", tmp_path / "all"):
        with pytest.raises(XmodelError, match="the model itself is there"):
            export_model(tmp_path / "all" / "hf", ["llama"], out, overwrite=True)
    with pytest.raises(XmodelError, match="the model itself is there"):
        export_model(road / "run", ["hf"], road / "run", overwrite=True)
    for place in ("checkpoints/step-99", "checkpoints/step-20/hf"):
        with pytest.raises(XmodelError, match="among the checkpoints"):
            export_model(road / "run", ["hf"], road / "run" / place)


def test_an_export_may_lie_beside_the_checkpoints(run: Path, unproved: None) -> None:
    export_model(run, ["hf"], run / "hf")
    export_model(run, ["llama"], run / "llama")
    assert (run / "hf" / "config.json").exists()


def test_a_full_disk_leaves_what_was_there(
    road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unproved: None
) -> None:
    out = tmp_path / "hf"
    export_model(road / "run", ["hf"], out)
    before = (out / "config.json").read_bytes()

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(directory, "write_shards", full)
    with pytest.raises(XmodelError, match=r"could not be written .*No space left.*what was there before stays"):
        export_model(road / "run", ["hf"], out, overwrite=True)
    assert (out / "config.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_missing_and_extra_tensors_are_named(run: Path, tmp_path: Path) -> None:
    whole = load_file(run / "checkpoints" / "step-20" / "model.safetensors")
    name = "layers.1.mlp.down_proj.weight"
    for tensors, message in (
        ({key: tensor for key, tensor in whole.items() if key != name}, rf"tensor {name} is absent there"),
        ({**whole, "more.weight": torch.ones(2)}, r"tensor more\.weight is \(2,\) there and absent by its settings"),
        ({**whole, name: whole[name][:-1].contiguous()}, rf"tensor {name} is \(63, 96\) there and \(64, 96\)"),
    ):
        rewrite(run, tensors)
        with pytest.raises(XmodelError, match=message):
            export_model(run, ["hf"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_directory_that_lacks_tensors(road: Path, tmp_path: Path) -> None:
    shutil.copytree(road / "hf", tmp_path / "hf")
    whole = load_file(road / "hf" / "model.safetensors")
    whole.pop("model.norm.weight")
    save_file(whole, tmp_path / "hf" / "model.safetensors")
    with pytest.raises(XmodelError, match=r"tensor model\.norm\.weight is absent there"):
        export_model(tmp_path / "hf", ["hf"], tmp_path / "out")


def test_quantised_weights_are_not_taken_for_the_models_own(road: Path, tmp_path: Path) -> None:
    shutil.copytree(road / "hf", tmp_path / "hf")
    config = json.loads((road / "hf" / "config.json").read_text())
    write_json_atomic(tmp_path / "hf" / "config.json", {**config, "quantization_config": {"quant_method": "torchao"}})
    with pytest.raises(XmodelError, match="its weights are quantised"):
        export_model(tmp_path / "hf", ["hf"], tmp_path / "out")


def test_a_checkpoint_of_several_ranks(road: Path, run: Path, tmp_path: Path, unproved: None) -> None:
    checkpoint = run / "checkpoints" / "step-20"
    whole = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    del manifest["files"]["model.safetensors"]
    halves = {name: tensor.split(len(tensor) // 2) for name, tensor in whole.items()}
    for rank in (0, 1):
        file = f"model-0000{rank + 1}-of-00002.safetensors"
        pieces = [
            Piece(name, half[rank], (rank * len(half[0]), *(0,) * (half[0].dim() - 1))) for name, half in halves.items()
        ]
        manifest["files"][file] = write_tensors(checkpoint / file, pieces)
    write_json_atomic(checkpoint / "manifest.json", manifest)
    export_model(run, ["hf"], tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (road / "hf" / "model.safetensors").read_bytes()


def test_a_tokenizer_with_ids_that_the_model_lacks(road: Path, run: Path, tmp_path: Path) -> None:
    path = run / "tokenizer" / "tokenizer.json"
    tree = json.loads(path.read_text())
    tree["model"]["vocab"] += [[f"more{number}", -20.0] for number in range(3)]
    path.write_text(json.dumps(tree))
    with pytest.raises(XmodelError, match=r"has 703 pieces, and the model's vocab_size is 700"):
        export_model(run, ["hf"], tmp_path / "out")


def test_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match="neither a run directory with checkpoints nor a checkpoint"):
        export_model(tmp_path, ["hf"], tmp_path / "hf")
