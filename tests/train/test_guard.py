"""The guard's verdicts, its memory, and a toy run that is killed at random and goes back."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from xmodel2.data.loader import Loader
from xmodel2.data.shards import open_shards
from xmodel2.data.synthetic import write_random_shards
from xmodel2.errors import XmodelError
from xmodel2.recipe.settings import GuardSettings
from xmodel2.train.guard import (
    GUARD_FILE,
    LEAST_STEPS,
    MOST_DOCUMENTS,
    DivergedError,
    Guard,
    batch_documents,
    passed_over_record,
    read_memory,
    skip_record,
)

NAN, INF = math.nan, math.inf
SETTINGS = GuardSettings()


def curve(steps: int, seed: int = 0) -> list[tuple[float, float]]:
    """Return loss and gradient norm of a falling, noisy run."""
    noise = random.Random(seed)
    return [(3 + 4 / (1 + s / 20) + noise.gauss(0, 0.1), math.exp(noise.gauss(-1, 0.2))) for s in range(steps)]


def guard_after(steps: int, **settings: Any) -> Guard:
    guard = Guard(GuardSettings(**settings))
    for step, (loss, norm) in enumerate(curve(steps), 1):
        assert guard.judge(step, "stable", loss, norm).action == "go"
    return guard


@pytest.mark.parametrize(("loss", "norm"), [(NAN, 1.0), (INF, 1.0), (3.0, NAN), (3.0, INF), (-INF, 1.0)])
def test_what_is_not_finite_is_skipped_from_the_first_step(loss: float, norm: float) -> None:
    verdict = Guard(GuardSettings(window=0)).judge(1, "stable", loss, norm)
    assert verdict.action == "skip"
    assert f"loss {loss:g} with gradient norm {norm:g}" == verdict.reason


def test_spikes_upwards_are_skipped_with_the_figures() -> None:
    guard = guard_after(200)
    assert guard.judge(201, "stable", 40.0, 0.4).reason.startswith("loss 40 is ")
    assert "the mean of the last 128 good steps" in guard.judge(202, "stable", 3.2, 400.0).reason
    assert not guard_after(200).judge(201, "stable", 0.1, 0.001).reason
    assert guard_after(200).judge(201, "stable", 3.9, 0.9).action == "go"


def test_spikes_wait_for_enough_good_steps_and_for_the_window_of_the_stage() -> None:
    assert guard_after(LEAST_STEPS - 1).judge(99, "stable", 40.0, 0.4).action == "go"
    guard = guard_after(LEAST_STEPS)
    assert guard.judge(99, "decay", 40.0, 0.4).action == "go"
    assert guard.judge(100, "decay", 4000.0, 0.4).action == "go"
    assert guard_after(LEAST_STEPS).judge(99, "stable", 40.0, 0.4).action == "skip"
    assert guard_after(200, window=0).judge(201, "stable", 40.0, 0.4).action == "go"
    assert guard_after(4, window=4).judge(201, "stable", 400.0, 0.4).action == "skip"


def test_a_flat_curve_does_not_make_noise_a_spike() -> None:
    guard = Guard(SETTINGS)
    for step in range(1, 100):
        guard.judge(step, "stable", 2.0, 0.5)
    assert guard.judge(100, "stable", 2.15, 0.5 * 2).action == "go"
    assert guard.judge(101, "stable", 2.5, 0.5).action == "skip"


def test_a_bad_step_does_not_enter_the_window() -> None:
    guard = guard_after(200, rollback_after=100)
    before = guard.state()
    for step in range(201, 260):
        assert guard.judge(step, "stable", 40.0, 0.4).action == "skip"
    assert guard.state() == {**before, "bad": list(range(201, 260))}
    assert guard.in_trouble
    assert guard.judge(260, "stable", 3.0, 0.4).action == "go"
    assert not guard.in_trouble


def test_a_batch_without_loss_tokens_is_good_and_tells_nothing() -> None:
    guard = guard_after(200)
    before = guard.state()
    assert guard.judge(201, "stable", 0.0, 0.0).action == "go"
    assert guard.state() == before


def test_bad_steps_in_a_row_roll_back_and_a_good_one_between_starts_again() -> None:
    guard = guard_after(50, rollback_after=3)
    actions = [guard.judge(51 + i, "stable", loss, 0.4).action for i, loss in enumerate([NAN, NAN, 3, NAN, NAN, NAN])]
    assert actions == ["skip", "skip", "go", "skip", "skip", "roll back"]
    assert guard.to_pass_over() == range(51, 57)
    assert Guard(GuardSettings(rollback_after=1)).judge(1, "stable", NAN, 1.0).action == "roll back"


def test_the_state_is_json_and_a_guard_from_it_judges_alike() -> None:
    figures = curve(300)
    for step in (100, 101, 102, 200, 250, 251):
        figures[step] = (NAN, 1.0) if step % 2 else (60.0, 2.0)
    whole = Guard(SETTINGS)
    for step, (loss, norm) in enumerate(figures, 1):
        stage = "stable" if step < 180 else "decay"
        resumed = Guard(SETTINGS, json.loads(json.dumps(whole.state(), allow_nan=False)))
        assert resumed.judge(step, stage, loss, norm) == whole.judge(step, stage, loss, norm)
        assert resumed.state() == whole.state()


def test_no_progress_names_steps_and_documents_and_progress_does_not() -> None:
    guard = guard_after(50)
    for step in (51, 52, 53):
        guard.judge(step, "stable", NAN, 0.4)
    guard = guard.gone_back(40, None, lambda step: [])
    assert guard.passed_over == set(range(48, 54))
    assert guard.memory()["rollbacks"] == [{"checkpoint": 40, "from": 48, "to": 53}]
    for step in (54, 55, 56):
        guard.judge(step, "stable", NAN, 0.4)
    with pytest.raises(DivergedError) as error:
        guard.gone_back(44, None, lambda step: [("docs", 0, 10 * step + i) for i in range(5)])
    assert "step 54, 55, 56: bad again, after steps 48 to 53 were passed over from checkpoint step-40" in str(
        error.value
    )
    assert "docs 540 (epoch 0), docs 541 (epoch 0)" in str(error.value)
    assert "and 5 more; metrics.jsonl" in str(error.value)
    far = Guard(SETTINGS, memory=guard.memory())
    for step in range(100, 103):
        far.judge(step, "stable", NAN, 0.4)
    assert len(far.gone_back(40, None, lambda step: []).memory()["rollbacks"]) == 2


def test_the_line_of_a_skipped_step_is_json_with_its_documents(tmp_path: Path) -> None:
    write_random_shards(tmp_path, vocab_size=60, seed=0)
    loader = Loader(open_shards(tmp_path), [(80, {"text": 1.0})], 32, 8, seed=1)
    documents = batch_documents(loader, 3)
    assert set(documents) == {document for row in range(16, 24) for document in loader.describe_row(row)}
    assert len(set(documents)) == len(documents)
    line = skip_record(3, "stable", "why", NAN, INF, documents * 20)
    assert json.loads(json.dumps(line, allow_nan=False)) == line
    assert (line["loss"], line["grad_norm"]) == ("nan", "inf")
    assert line["documents"][0] == list(documents[0])
    assert len(line["documents"]) == MOST_DOCUMENTS
    assert line["documents_not_named"] == 20 * len(documents) - MOST_DOCUMENTS
    assert "passed over" in passed_over_record(4, "stable")["reason"]


class ToyRun:
    """A run whose weights are the list of steps applied, with the loop's order of writing: what a kill leaves is on `disk`."""

    def __init__(self, bad: set[int], settings: GuardSettings) -> None:
        self.bad, self.settings = bad, settings
        self.disk: dict[int, tuple[list[int], dict[str, Any]]] = {}
        self.memory: dict[str, Any] | None = None

    def run(self, total: int, every: int, chance: random.Random | None = None) -> list[int] | None:
        """Return the weights, or None where the process was killed."""
        start = max(self.disk, default=0)
        applied, guard = self._load(start)
        step = start
        while step < total:
            step += 1
            if step in guard.passed_over:
                action = "go over"
            else:
                loss = NAN if step in self.bad else 3.0 + step % 7 / 100
                action = guard.judge(step, "stable", loss, 1.0).action
            if action == "go":
                applied.append(step)
            if action == "roll back":
                to = max((s for s in self.disk if s < guard.to_pass_over().start), default=0)
                after = guard.gone_back(to, self.disk[to][1] if to else None, lambda step: [])
                self.disk = {s: content for s, content in self.disk.items() if s <= to}
                if chance and chance.random() < 0.3:
                    return None
                self.memory = after.memory()
                if chance and chance.random() < 0.3:
                    return None
                step = to
                applied, guard = self._load(to)
                continue
            stopped = chance is not None and chance.random() < 0.02
            if stopped or (step % every == 0 and not guard.in_trouble):
                self.disk[step] = (applied.copy(), json.loads(json.dumps(guard.state())))
            if stopped or (chance and chance.random() < 0.02):
                return None
        return applied

    def _load(self, step: int) -> tuple[list[int], Guard]:
        applied, state = self.disk[step] if step else ([], None)
        return applied.copy(), Guard(self.settings, state, self.memory)


@pytest.mark.parametrize("seed", range(30))
def test_kills_and_stops_do_not_change_what_a_run_with_rollbacks_learns(seed: int) -> None:
    chance = random.Random(seed)
    bad = {42, 77, 78, 120, 121, 122, 123, 180, 181, 182, 250}
    whole = ToyRun(bad, SETTINGS).run(300, every=20)
    assert whole == [step for step in range(1, 301) if step not in bad | {117, 118, 119, 177, 178, 179}]
    parts, result = ToyRun(bad, SETTINGS), None
    while result is None:
        result = parts.run(300, 20, chance)
    assert result == whole
    assert parts.memory is not None
    assert [(r["from"], r["to"]) for r in parts.memory["rollbacks"]] == [(117, 122), (177, 182)]


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "3",
        "{}",
        '{"passed_over": 3, "rollbacks": []}',
        '{"passed_over": ["3"], "rollbacks": []}',
        '{"passed_over": [], "rollbacks": [{"checkpoint": 1, "from": 2}]}',
        '{"passed_over": [], "rollbacks": [{"checkpoint": 1, "from": 2, "to": null}]}',
        '{"passed_over": [], "rollbacks": [5]}',
    ],
)
def test_a_memory_that_no_guard_wrote_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / GUARD_FILE).write_text(text)
    with pytest.raises(XmodelError, match=r"guard\.json: wants steps in 'passed_over'.*remove it"):
        read_memory(tmp_path)


def test_a_memory_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_memory(tmp_path) is None
    memory = {"passed_over": [3, 4], "rollbacks": [{"checkpoint": 2, "from": 3, "to": 4}]}
    (tmp_path / GUARD_FILE).write_text(json.dumps(memory))
    assert read_memory(tmp_path) == memory
