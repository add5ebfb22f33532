"""The loop under fire: a poisoned batch is skipped with its documents named, several in a row roll the run back, exactly."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from xmodel2.data.shards import open_shards
from xmodel2.errors import XmodelError
from xmodel2.files import read_json
from xmodel2.recipe import Recipe, replace
from xmodel2.train import load_model, read_metrics, train
from xmodel2.train.checkpoint import checkpoint_steps
from xmodel2.train.guard import GUARD_FILE, batch_documents
from xmodel2.train.run import make_loader
from xmodel2.train.step import LossModule, MicroBatch

Poison = Callable[[set[int]], None]


@pytest.fixture
def recipe(small_recipe: Recipe) -> Recipe:
    return replace(small_recipe, {"stages.stable.tokens": 20 * 64})


@pytest.fixture
def poison(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> Poison:
    """Return what makes the loss of a step's batch NaN, as a bad document would: it comes again whenever the batch does."""
    loader = make_loader(recipe, open_shards(recipe.data.dir))
    forward = LossModule.forward

    def plant(steps: set[int]) -> None:
        rows = [torch.from_numpy(loader.batch(step - 1).inputs) for step in steps]

        def poisoned(self: LossModule, batch: MicroBatch) -> torch.Tensor:
            bad = any((batch.inputs_BS[:, None] == known).all(-1).any() for known in rows)
            return forward(self, batch) * (float("nan") if bad else 1.0)

        monkeypatch.setattr(LossModule, "forward", poisoned)

    return plant


def lines(run: Path, kind: str | None) -> list[dict[str, Any]]:
    return [line for line in read_metrics(run) if line.get("kind") == kind]


def same_weights(a: Path, b: Path) -> bool:
    mine, other = (dict(load_model(run)[0].named_parameters()) for run in (a, b))
    return all(torch.equal(mine[name], other[name]) for name in mine)


def test_a_step_faster_than_what_was_measured_has_the_device_measured_again(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmodel2.train.run.pick_precision", lambda *arguments: ("fp32", 1e3))  # as on a busy machine
    train(recipe, tmp_path / "run", stop_after=3)
    assert all(0 < line["mfu"] < 10 for line in lines(tmp_path / "run", None))  # of 1e3 they would be above 1,000


def test_damaged_held_out_documents_are_told(recipe: Recipe, tmp_path: Path) -> None:
    shutil.copytree(recipe.data.dir, tmp_path / "data")
    for path in (tmp_path / "data" / "text").glob("heldout*.tokens"):
        path.write_bytes(b"\xff" * path.stat().st_size)
    damaged = replace(
        recipe, {"data.dir": str(tmp_path / "data"), "data.verify_checksums": False, "train.heldout_every": 1}
    )
    with pytest.raises(
        XmodelError, match=r"text: its held-out documents have piece .* data\.verify_checksums = true names"
    ):
        train(damaged, tmp_path / "run", stop_after=2)


def test_a_poisoned_batch_is_skipped_and_its_documents_are_named(
    recipe: Recipe, poison: Poison, tmp_path: Path
) -> None:
    poison({7})
    result = train(recipe, tmp_path / "run")
    assert result.finished
    [skipped] = lines(tmp_path / "run", "skipped")
    documents = batch_documents(make_loader(recipe, open_shards(recipe.data.dir)), 7)
    assert skipped["step"] == 7
    assert skipped["loss"] == "nan"
    assert skipped["documents"] == [list(document) for document in documents]
    assert len(lines(tmp_path / "run", None)) == 27
    assert all(torch.isfinite(p).all() for p in load_model(tmp_path / "run")[0].parameters())


def test_several_in_a_row_roll_back_and_a_stop_anywhere_changes_nothing(
    recipe: Recipe, poison: Poison, tmp_path: Path
) -> None:
    poison({10, 11, 12})
    assert train(recipe, tmp_path / "whole").finished
    assert read_json(tmp_path / "whole" / GUARD_FILE)["passed_over"] == [7, 8, 9, 10, 11, 12]
    assert [line["step"] for line in lines(tmp_path / "whole", "skipped")] == [7, 8, 9, 10, 11, 12]
    for stop in (8, 11):
        parts = tmp_path / f"stopped-{stop}"
        train(recipe, parts, stop_after=stop)
        assert train(recipe, parts, resume=True).finished
        assert same_weights(tmp_path / "whole", parts)


@pytest.mark.parametrize(
    ("every", "stops"), [(5, (11,)), (5, (15,)), (5, (11, 13, 15)), (2, ()), (2, (15,)), (1, (13,))]
)
def test_what_it_goes_back_to_is_there_however_few_checkpoints_are_kept(
    recipe: Recipe, poison: Poison, tmp_path: Path, every: int, stops: tuple[int, ...]
) -> None:
    recipe = replace(recipe, {"train.keep_checkpoints": 1, "train.checkpoint_every": every})
    poison({14, 15, 16})
    assert train(recipe, tmp_path / "whole").finished
    assert read_json(tmp_path / "whole" / GUARD_FILE)["passed_over"] == [11, 12, 13, 14, 15, 16]
    assert read_json(tmp_path / "whole" / GUARD_FILE)["rollbacks"][0]["checkpoint"] == 10
    for number, stop in enumerate(stops):
        train(recipe, tmp_path / "parts", stop_after=stop, resume=number > 0)
    assert train(recipe, tmp_path / "parts", resume=bool(stops)).finished
    assert same_weights(tmp_path / "whole", tmp_path / "parts")


def test_a_stop_before_the_first_checkpoint_changes_nothing(recipe: Recipe, poison: Poison, tmp_path: Path) -> None:
    recipe = replace(recipe, {"train.checkpoint_every": 100})
    poison({5, 6, 7})
    assert train(recipe, tmp_path / "whole").finished
    train(recipe, tmp_path / "parts", stop_after=6)
    assert train(recipe, tmp_path / "parts", resume=True).finished
    assert same_weights(tmp_path / "whole", tmp_path / "parts")


def test_checkpoints_that_were_deleted_by_hand_are_no_beginning(recipe: Recipe, poison: Poison, tmp_path: Path) -> None:
    poison({14, 15, 16})
    train(replace(recipe, {"train.checkpoint_every": 5}), tmp_path / "run", stop_after=15)
    for step in (5, 10, 12):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-{step}", ignore_errors=True)
    assert train(replace(recipe, {"train.checkpoint_every": 5}), tmp_path / "run", resume=True).finished
    memory = read_json(tmp_path / "run" / GUARD_FILE)
    assert [rollback["checkpoint"] for rollback in memory["rollbacks"]] == [
        15
    ]  # once: the steps passed over are bad no more


def test_no_way_back(recipe: Recipe, poison: Poison, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    poison({14, 15, 16})
    watched = replace(recipe, {"train.heldout_every": 13})

    def damage(run_dir: Path, steps: set[int]) -> Callable[..., bool]:
        def watch(step: int, _: object) -> bool:
            for other in checkpoint_steps(run_dir) if step == 13 else []:
                if other in steps:
                    (run_dir / "checkpoints" / f"step-{other}" / "model.safetensors").write_bytes(b"")
            return False

        return watch

    some, none = tmp_path / "some", tmp_path / "none"
    few = replace(watched, {"train.async_checkpoint": False})
    assert train(few, some, watch=damage(some, {8})).finished
    assert "step-8/model.safetensors: 0 bytes" in capsys.readouterr().err
    with pytest.raises(XmodelError, match="no checkpoint to go back to is usable"):
        train(few, none, watch=damage(none, set(range(20))))


def test_trouble_that_comes_back_ends_the_run_with_the_documents(
    recipe: Recipe, poison: Poison, tmp_path: Path
) -> None:
    poison(set(range(10, 21)))
    with pytest.raises(XmodelError, match=r"step 13, 14, 15: bad again.*documents of these steps: text"):
        train(recipe, tmp_path / "run")


def test_memory_that_runs_out_names_the_setting(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(self: LossModule, batch: MicroBatch) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(LossModule, "forward", full)
    with pytest.raises(XmodelError, match=r"train\.micro_batch_size"):
        train(replace(recipe, {"data.sequence_length": 16}), tmp_path / "run")
