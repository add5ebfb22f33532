"""The road at every scale: its recipes load, its sizes fit, and the command line takes its commands."""

import functools
import inspect
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tyro

from xmodel2.arguments import normalise, numbers
from xmodel2.cli import COMMANDS
from xmodel2.errors import XmodelError
from xmodel2.files import write_json_atomic
from xmodel2.recipe import recipe_to_toml, replace
from xmodel2.reproduction.benchmarks import available_tasks
from xmodel2.reproduction.corpus import open_corpus
from xmodel2.reproduction.kinds import INSTRUCTIONS, SFT_SHARE, TEXT
from xmodel2.reproduction.road import BASE, CARRY, FINAL, SEARCH, Road
from xmodel2.reproduction.run import Reproduction
from xmodel2.reproduction.scales import SCALES, scale_of
from xmodel2.reproduction.stage import Command
from xmodel2.search.direct import check_direct
from xmodel2.search.law_fit import check_enough
from xmodel2.search.law_points import points_of
from xmodel2.search.law_runs import jobs_of
from xmodel2.search.sizes import at_depth, at_width


@pytest.fixture(params=SCALES)
def road(request: pytest.FixtureRequest, sources: Path, tmp_path: Path) -> Road:
    """The road of a scale whose searches found other values than the recipe began with; as if data and corpus were made."""
    made = Road(SCALES[request.param], open_corpus(sources), tmp_path / "out")
    answer = replace(made.recipe(SEARCH), {"train.learning_rate": 0.033, "model.scale_emb": 7.0})
    carried = replace(answer, {"train.learning_rate": 0.022, "model.scale_depth": 2.5})
    for name, recipe in (("search", answer), ("carry", carried)):
        (made.out / name).mkdir(parents=True)
        (made.out / name / "best.toml").write_text(recipe_to_toml(recipe))
    (made.out / "corpus").mkdir()
    for name in (*TEXT, *INSTRUCTIONS, "reasoning-answers"):
        (made.out / "corpus" / f"{name}-heldout.jsonl").write_text("{}\n")
    return made


def test_recipes_load_with_what_the_search_found(road: Road) -> None:
    for name in (BASE, FINAL):
        recipe = road.recipe(name)
        carried = name == FINAL and road.scale.carry is not None  # the final model takes that search's answer
        assert recipe.train.learning_rate == (0.022 if carried else 0.033)
        assert recipe.model.scale_emb == 7.0
        assert recipe.model.vocab_size == road.scale.vocab_size
        assert sum(recipe.stages.stable.mixture.values()) == pytest.approx(1)
        assert recipe.stages.decay.sft_mixture == pytest.approx({n: k.share / 100 for n, k in INSTRUCTIONS.items()})
        assert recipe.decay_steps > recipe.train.decay_half_life_steps
    length = road.scale.final_length
    assert road.recipe(FINAL).total_steps == length.stable + length.decay
    assert road.recipe(FINAL).model.max_position_embeddings == max(road.scale.context, length.sequence_length)
    assert length.stable_tokens <= 2 * sum(road.scale.corpus_tokens) or road.scale.name == "small"


def test_every_size_fits(road: Road) -> None:
    scale, small, base = road.scale, road.recipe(SEARCH), road.recipe(BASE)
    for width in scale.widths:
        at_width(small, width)
    for depth in scale.depths:
        at_depth(small, depth)
    check_direct(road.recipe(CARRY) if scale.carry else small, scale.next_widths)
    assert min(scale.next_widths) > small.model.hidden_size
    jobs = [
        job for width in scale.law_widths for seed in (1, 2) for job in jobs_of(base, width, scale.law_tokens, seed)
    ]
    check_enough(points_of([job.row(loss=1.0) for job in jobs]))
    assert scale.law_then > max(scale.law_widths)
    jobs_of(base, scale.law_then, scale.law_tokens, 1)
    assert len(set(scale.shares)) >= 4
    assert min(scale.shares) == 0
    assert max(scale.shares) == 1
    assert any(abs(share - SFT_SHARE) < 0.07 for share in scale.shares)


def parsed(command: Command) -> dict[str, Any]:
    """Return the arguments that the command line makes of a command, by name; usage that is wrong ends the test."""
    name, *words = normalise(list(command.arguments), COMMANDS)
    given: list[inspect.BoundArguments] = []

    @functools.wraps(COMMANDS[name])
    def take(*positional: Any, **named: Any) -> None:
        given.append(inspect.signature(COMMANDS[name]).bind(*positional, **named))

    tyro.cli(take, args=words)
    return dict(given[0].arguments)


def test_the_command_line_takes_every_command(road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmodel2.reproduction.road.available_tasks", lambda folder: ["arc_easy", "gsm8k", "mmlu"])
    with_tasks = Road(road.scale, road.corpus, road.out, tmp_path / "eval")
    seen = {}
    for stage in with_tasks.stages:
        for command in stage.prepare():
            seen[stage.name] = parsed(command)
            assert shlex.split(str(command))[1 : 1 + len(command.arguments)] == list(command.arguments)
    assert set(seen) == {stage.name for stage in with_tasks.stages} - {"corpus"}
    assert seen["search"]["trials"] == road.scale.trials
    small = "carry" if road.scale.carry else "search"
    assert seen[small]["trials"] == seen["direct"]["direct_trials"] == road.scale.carried.trials
    assert str(seen["direct"]["recipe"]) == f"{road.out}/{small}/best.toml"
    assert numbers("widths", seen["direct"]["widths"], int) == list(road.scale.next_widths)
    assert seen["calibration"]["task"] == "mmlu"
    assert seen["decay"]["branch_from"] == f"{road.out}/stable@stable"
    assert seen["export"]["to"] == "hf,gguf-q8_0"
    halved = dict(pair.split("=") for pair in seen["transfer"]["set"])
    replace(road.recipe(SEARCH), {key: int(value) for key, value in halved.items()})


def test_a_renamed_option_would_be_noticed() -> None:
    with pytest.raises(SystemExit):
        parsed(Command(("search", "recipe.toml", "--trails", "3")))


def test_each_stage_rests_on_stages_before_it(road: Road) -> None:
    names = [stage.name for stage in road.stages]
    assert len(set(names)) == len(names)
    for number, stage in enumerate(road.stages):
        assert set(stage.after) <= set(names[:number])
    assert [stage.name for stage in road.stages if stage.alone] == ["peer"]


@pytest.mark.parametrize(
    ("curve", "share"),
    [
        ({"optimum": 0.71, "verdict": "inside"}, 0.71),
        ({"optimum": 1.0, "verdict": "edge"}, SFT_SHARE),
        (None, SFT_SHARE),
    ],
)
def test_the_decay_takes_the_share_that_was_found(
    sources: Path, tmp_path: Path, curve: dict[str, Any] | None, share: float
) -> None:
    road = Road(SCALES["pico"], open_corpus(sources), tmp_path / "out")
    assert road.share == SFT_SHARE
    write_json_atomic(road.out / "ratio" / "ratio.json", {"shares": {"accuracy": curve}})
    assert road.share == share
    [decay] = next(stage for stage in road.stages if stage.name == "decay").prepare()
    assert f"stages.decay.sft_share={share:g}" in decay.arguments


def test_the_context_is_measured_on_what_is_held_out(sources: Path, tmp_path: Path) -> None:
    road = Road(SCALES["pico"], open_corpus(sources), tmp_path / "out")
    commands: Callable[[], Any] = next(stage for stage in road.stages if stage.name == "context").prepare
    for name in ("web", "encyclopedia"):
        (road.out / "corpus").mkdir(parents=True, exist_ok=True)
        (road.out / "corpus" / f"{name}-heldout.jsonl").write_text("{}\n")
        assert f"--text {road.out}/corpus/{name}-heldout.jsonl" in str(commands()[0])
    (sources / "wikitext2-test").mkdir()
    (sources / "wikitext2-test" / "wikitext2-test-heldout.jsonl").write_text("{}\n")
    assert "wikitext2-test-heldout" in str(commands()[0])


def test_other_data_with_the_same_best_values_is_noticed(sources: Path, tmp_path: Path) -> None:
    """What rests on the search rests on the data that it was made with."""
    road = Road(SCALES["pico"], open_corpus(sources), tmp_path / "out")
    results = {stage.name: stage.results for stage in road.stages}
    assert "data/index.json" in results["search"]
    assert "corpus/files.json" in results["corpus"]
    assert "run/metrics.jsonl" in results["decay"]
    assert "stable/metrics.jsonl" in results["stable"]


def test_looking_at_the_stages_writes_nothing(road: Road) -> None:
    before = sorted(road.out.rglob("*"))
    states = {stage.name: Reproduction(road).state(stage)[0] for stage in road.stages}
    assert states["corpus"] == "to do"
    assert states["search"] == "waits"
    assert sorted(road.out.rglob("*")) == before


def test_unknown_scales_and_empty_benchmarks_are_named(tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match=r"--scale 'nanos': allowed are pico, nano, tiny, small.* 'nano'"):
        scale_of("nanos")
    with pytest.raises(XmodelError, match="holds no benchmark that is known"):
        available_tasks(tmp_path)
    assert available_tasks(None) == []
