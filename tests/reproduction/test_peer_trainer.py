"""The Trainer's side: the same rows and targets in the same order, the same held-out definition, and its turns."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from xmodel2.data.shards import open_shards
from xmodel2.model.count import parameter_count
from xmodel2.recipe import Recipe, replace
from xmodel2.reproduction.peer_speed import measure_speed
from xmodel2.reproduction.peer_trainer import LoaderRows, heldout_loss, peer_model, train_peer
from xmodel2.train.run import make_loader

CPU = torch.device("cpu")


def test_a_run_sees_our_batches_in_their_order(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    whole = LoaderRows.__getitem__

    def noted(self: LoaderRows, row: int) -> dict[str, torch.Tensor]:
        found = whole(self, row)
        seen.append(torch.stack([found["input_ids"], found["shift_labels"]]).numpy())
        return found

    monkeypatch.setattr(LoaderRows, "__getitem__", noted)
    run = train_peer(small_recipe, 1e-3, tmp_path, measured_at={10, 20})
    loader = make_loader(small_recipe, open_shards(small_recipe.data.dir))
    batches = [loader.batch(step) for step in range(small_recipe.total_steps)]
    expected = np.stack([np.concatenate([b.inputs for b in batches]), np.concatenate([b.targets for b in batches])], 1)
    np.testing.assert_array_equal(np.stack(seen[: len(expected)]), expected)
    assert set(run.curve) == {10, 20}
    assert run.curve[20] == run.loss
    assert run.loss < math.log(60) + 0.1
    again = train_peer(small_recipe, 1e-3, tmp_path, measured_at={10, 20})
    assert (again.loss, again.loss_masked) == (run.loss, run.loss_masked)


def test_the_peer_has_as_many_parameters(small_recipe: Recipe) -> None:
    for tied in (True, False):
        settings = replace(small_recipe, {"model.tie_word_embeddings": tied}).model
        assert sum(p.numel() for p in peer_model(settings, 1).parameters()) == parameter_count(settings)


def test_documents_are_seen_together_unless_masked(small_recipe: Recipe) -> None:
    shards = open_shards(small_recipe.data.dir)
    model = peer_model(small_recipe.model, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)  # far from uniform, so that the context matters
    losses = [
        heldout_loss(
            model, shards, replace(small_recipe, {"data.mask_documents": masked, "train.heldout_rows": 64}), CPU
        )
        for masked in (False, True)
    ]
    assert losses[0] != pytest.approx(losses[1], abs=1e-6)


def test_sides_take_turns(small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmodel2.reproduction.peer_speed.can_compile", lambda device: False)
    monkeypatch.setattr("xmodel2.reproduction.peer_speed._SECONDS", 0.01)
    found = measure_speed(small_recipe, tmp_path, rounds=5)
    assert found["seconds_a_token"].keys() == {"ours", "eager"}
    assert found["eager"]["low"] <= found["eager"]["factor"] <= found["eager"]["high"]
    assert found["compiled"] is None
    assert not any(name.startswith("ACCELERATE_DYNAMO") for name in os.environ)
    assert not torch.are_deterministic_algorithms_enabled()
