"""Checkpoints of one process: written in the background, whole or absent, kept as the recipe asks."""

import json
import shutil
import threading
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from xmodel2.errors import XmodelError
from xmodel2.files import sha256_file
from xmodel2.model import Xmodel2, tensor_program
from xmodel2.recipe import Recipe, recipe_from_dict, replace
from xmodel2.train import checkpoint_writer as writing
from xmodel2.train.checkpoint import check_files, checkpoint_steps, load_training_state, newest_valid, set_aside
from xmodel2.train.checkpoint_writer import CheckpointWriter
from xmodel2.train.optimizer import build_optimizer

MODEL = {
    "hidden_size": 32,
    "intermediate_size": 36,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 60,
}


@pytest.fixture
def recipe() -> Recipe:
    return recipe_from_dict(
        {
            "model": MODEL,
            "data": {"sequence_length": 16},
            "stages": {"stable": {"tokens": 12 * 64}, "decay": {"tokens": 0}},
            "train": {"batch_tokens": 64, "warmup_steps": 1, "checkpoint_every": 2},
        }
    )


def build(recipe: Recipe) -> tuple[Xmodel2, torch.optim.Optimizer]:
    model = Xmodel2(recipe.model)
    tensor_program.initialise(model, 1)
    return model, build_optimizer(model.named_parameters(), recipe.model, recipe.train)


def update(model: Xmodel2, optimizer: torch.optim.Optimizer, seed: int, without: str = "") -> None:
    random = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        grad = torch.randn(parameter.shape, generator=random)
        parameter.grad = None if name == without else grad
    optimizer.step()


def everything(model: Xmodel2, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    found = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters():
        found |= {f"{name}/{key}": value.clone() for key, value in optimizer.state.get(parameter, {}).items()}
    return found


def saved(recipe: Recipe, run_dir: Path, *steps: int) -> tuple[Xmodel2, torch.optim.Optimizer, Path]:
    """Save at ``steps``, or at 1; return what was saved, and the last checkpoint."""
    model, optimizer = build(recipe)
    writer = CheckpointWriter(run_dir, recipe, model, optimizer)
    for step in steps or (1,):
        writer.save(step, {})
    writer.close()
    return model, optimizer, run_dir / "checkpoints" / f"step-{steps[-1] if steps else 1}"


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("background", [True, False])
def test_what_was_saved_is_what_was_there(recipe: Recipe, tmp_path: Path, optimizer: str, background: bool) -> None:
    recipe = replace(recipe, {"train.async_checkpoint": background, "train.optimizer": optimizer})
    model, moments = build(recipe)
    writer = CheckpointWriter(tmp_path, recipe, model, moments)
    wanted = []
    for step in (1, 2):  # the second save goes through the first one's buffers
        update(model, moments, step, without="norm.weight" if step == 1 else "")
        wanted.append(everything(model, moments))
        writer.save(step, {"tokens": step * 64})
        update(model, moments, step + 10)
    writer.close()
    for step in (1, 2):
        folder = tmp_path / "checkpoints" / f"step-{step}"
        assert same(
            load_file(folder / "model.safetensors") | load_file(folder / "optimizer.safetensors"), wanted[step - 1]
        )
        assert load_training_state(folder, recipe, model, moments) == {"step": step, "tokens": step * 64}
        assert same(everything(model, moments), wanted[step - 1])
        update(model, moments, 5)


def test_the_optimizer_of_another_checkpoint_leaves_nothing_behind(recipe: Recipe, tmp_path: Path) -> None:
    model, optimizer = build(recipe)
    writer = CheckpointWriter(tmp_path, recipe, model, optimizer)
    writer.save(1, {})
    writer.close()
    update(model, optimizer, 1)
    load_training_state(tmp_path / "checkpoints" / "step-1", recipe, model, optimizer)
    assert not any(optimizer.state.values())


def test_the_files_are_plain_safetensors(recipe: Recipe, tmp_path: Path) -> None:
    model, optimizer = build(recipe)
    update(model, optimizer, 1)
    optimizer.state[model.norm.weight]["extra"] = torch.arange(3, dtype=torch.uint8)
    optimizer.state[model.norm.weight]["half"] = torch.ones(5, dtype=torch.bfloat16)
    writer = CheckpointWriter(tmp_path, recipe, model, optimizer)
    writer.save(1, {})
    writer.close()
    path = tmp_path / "checkpoints" / "step-1" / "optimizer.safetensors"
    assert load_file(path)["norm.weight/half"].dtype == torch.bfloat16
    with safe_open(path, "pt") as file:
        assert file.get_tensor("norm.weight/extra").tolist() == [0, 1, 2]
        assert file.metadata()["format"] == "pt"
    assert path.stat().st_size % 2 == 1  # 3 bytes at the end, behind all that must be aligned
    load_training_state(path.parent, recipe, model, optimizer)
    assert optimizer.state[model.norm.weight]["extra"].tolist() == [0, 1, 2]


def test_training_goes_on_while_it_is_written(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, write = threading.Event(), writing.write_tensors
    monkeypatch.setattr(writing, "write_tensors", lambda *args: (go_on.wait(10), write(*args))[1])
    model, optimizer = build(recipe)
    writer = CheckpointWriter(tmp_path, recipe, model, optimizer)
    writer.save(1, {})
    assert checkpoint_steps(tmp_path) == []
    go_on.set()
    writer.save(2, {})
    assert checkpoint_steps(tmp_path)[:1] == [1]
    writer.close()
    assert checkpoint_steps(tmp_path) == [1, 2]


def test_an_error_in_the_background_is_raised_by_the_next_call(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = build(recipe)
    writer = CheckpointWriter(tmp_path, recipe, model, optimizer)
    writer.save(1, {})
    writer.wait()

    def full(*args: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writing, "publish_folder", full)
        writer.save(2, {})
        with pytest.raises(XmodelError, match=r"step-2: .*No space left on device.*previous one is untouched"):
            writer.save(3, {})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-1"]
    writer.save(4, {})
    writer.close()
    assert checkpoint_steps(tmp_path) == [1, 4]


def test_no_room_is_said_before_anything_is_written(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = build(recipe)
    update(model, optimizer, 1)
    writer = CheckpointWriter(tmp_path, recipe, model, optimizer)
    writer.save(1, {})
    writer.wait()
    folder = tmp_path / "checkpoints" / "step-1"
    needed = sum(
        t.nbytes for name in ("model", "optimizer") for t in load_file(folder / f"{name}.safetensors").values()
    )
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(needed - 1))
    with pytest.raises(XmodelError, match=r"needs 0\.\d MB, and 0\.\d MB are free.*Free some space.*--resume"):
        writer.save(2, {})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(needed))
    writer.save(3, {})
    writer.close()
    assert checkpoint_steps(tmp_path) == [1, 3]


def test_which_are_kept(recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(recipe, {"train.keep_checkpoints": 2, "train.keep_checkpoint_every": 8})
    model, optimizer = build(recipe)
    writer = CheckpointWriter(tmp_path, recipe, model, optimizer, always={12})
    for step in range(2, 23, 2):
        writer.save(step, {})
        writer.wait()
    writer.close()
    assert checkpoint_steps(tmp_path) == [8, 12, 16, 18, 20, 22]
    for step in checkpoint_steps(tmp_path):
        check_files(tmp_path / "checkpoints" / f"step-{step}")


def test_one_to_which_the_guard_may_go_back_is_kept(recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(recipe, {"train.keep_checkpoints": 1, "guard.rollback_after": 3})
    model, optimizer = build(recipe)
    writer = CheckpointWriter(tmp_path, recipe, model, optimizer)
    for step in (2, 5, 10, 14, 15):  # 14 and 15 bad, 16 may be: then 11 to 16 are passed over
        writer.save(step, {})
    writer.close()
    assert checkpoint_steps(tmp_path) == [10, 14, 15]


def test_folders_that_are_no_checkpoints_names_are_left_alone(recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(recipe, {"train.keep_checkpoints": 1, "guard.rollback_after": 1, "guard.window": 0})
    names = {"step-02", "step-4.bak", "step-x", "unused-step-2.bak", "unused-step-old"}
    for name in (*names, "unused-step-3"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    model, optimizer = build(recipe)
    writer = CheckpointWriter(tmp_path, recipe, model, optimizer)
    for step in (5, 50, 100):
        writer.save(step, {})
    writer.close()
    set_aside(tmp_path, 60)
    assert names | {"step-50", "unused-step-100"} == {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert checkpoint_steps(tmp_path) == [50]


def test_a_file_that_cannot_be_read_is_damage(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(recipe, tmp_path, 1, 2)

    def read(path: Path) -> str:
        if path.parent.name == "step-2":
            raise OSError(5, "Input/output error")
        return sha256_file(path)

    monkeypatch.setattr("xmodel2.train.checkpoint.sha256_file", read)
    found, complaints = newest_valid(tmp_path)
    assert found == tmp_path / "checkpoints" / "step-1"
    assert "cannot be read (Input/output error); the checkpoint is damaged" in complaints[0]


@pytest.mark.parametrize("several", [True, False])
def test_one_without_moments_is_read_if_several_ranks_wrote_it(recipe: Recipe, tmp_path: Path, several: bool) -> None:
    model, optimizer, folder = saved(recipe, tmp_path)
    (folder / "optimizer.safetensors").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["optimizer.safetensors"]
    if several:
        name = "model-00001-of-00002.safetensors"
        (folder / "model.safetensors").rename(folder / name)
        manifest["files"][name] = manifest["files"].pop("model.safetensors")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    check_files(folder)
    if several:
        load_training_state(folder, recipe, model, optimizer)
        assert not any(optimizer.state.values())
    else:
        with pytest.raises(XmodelError, match=r"no optimizer\.safetensors"):
            load_training_state(folder, recipe, model, optimizer)


def test_what_cannot_be_deleted_stops_nothing(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(writing, "prune_checkpoints", refused)
    recipe = replace(recipe, {"train.keep_checkpoints": 1, "train.async_checkpoint": False})
    model, optimizer = build(recipe)
    writer = CheckpointWriter(tmp_path, recipe, model, optimizer)
    writer.save(1, {})
    writer.save(9, {})
    writer.close()
    assert checkpoint_steps(tmp_path)[-1] == 9
    assert "older checkpoints could not be deleted" in capsys.readouterr().err


@pytest.mark.parametrize(
    "manifest", ["[" * 100_000, "[]", "null", '{"format": 2, "files": []}', '{"format": 2, "files": {"a": {}}}']
)
def test_a_manifest_that_is_none(recipe: Recipe, tmp_path: Path, manifest: str) -> None:
    *_, folder = saved(recipe, tmp_path, 1, 2)
    (folder / "manifest.json").write_text(manifest)
    found, complaints = newest_valid(tmp_path)
    assert found == tmp_path / "checkpoints" / "step-1"
    assert "manifest.json: cannot be read" in complaints[0]


def test_a_manifest_that_lists_too_little(recipe: Recipe, tmp_path: Path) -> None:
    *_, folder = saved(recipe, tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, message in (("model.safetensors", "lists no weights"), ("state.json", r"does not list state\.json")):
        del manifest["files"][name]
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(XmodelError, match=message):
            check_files(folder)


def test_what_a_kill_left_is_removed(recipe: Recipe, tmp_path: Path) -> None:
    for name in (".step-8.tmp", ".step-2.old"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "model.safetensors").write_bytes(b"half")
    model, optimizer = build(recipe)
    CheckpointWriter(tmp_path, recipe, model, optimizer).close()
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_damage_is_named(recipe: Recipe, tmp_path: Path) -> None:
    model, optimizer, folder = saved(recipe, tmp_path)
    (folder / "optimizer.safetensors").unlink()
    with pytest.raises(XmodelError, match=r"optimizer\.safetensors: missing, \d+ bytes expected"):
        check_files(folder)
    (folder / "optimizer.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(XmodelError, match=r"optimizer\.safetensors: 16 bytes, \d+ bytes expected"):
        check_files(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "model.safetensors").write_bytes(b"no safetensors")
    with pytest.raises(XmodelError, match=r"model\.safetensors: cannot be read"):
        load_training_state(folder, recipe, model, optimizer)
