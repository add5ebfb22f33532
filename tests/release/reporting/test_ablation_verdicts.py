"""Verdicts on architecture and method: the sign of a difference, several rivals at once, and what leaves a claim open.

Files are written by what writes them for a user (`summarise`, `format_table`, `table`, both `compare`), of rows made up here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from xmodel2.files import write_json_atomic
from xmodel2.recipe import Recipe
from xmodel2.release.reporting import ablation_verdicts as verdicts
from xmodel2.release.reporting.evidence import Evidence
from xmodel2.release.reporting.verdicts import Finding
from xmodel2.reproduction.peer_compare import BOTH_TUNED, Tuned
from xmodel2.reproduction.peer_compare import compare as compare_peer
from xmodel2.search import direct
from xmodel2.search.ablation_summary import summarise
from xmodel2.search.ratio_summary import format_table, table

Losses = Sequence[float | None]
"""Of seeds 1, 2, ...; None for a run that diverged."""
OWN = (5.0, 5.02, 5.04)
LUCK = (0.0, 0.002, -0.002)


def worse_by(percent: float, seeds: int = 3) -> list[float]:
    """Return losses that are ``percent`` above those of OWN, but for some luck."""
    return [own * (1 + percent / 100) + luck for own, luck in zip(OWN[:seeds], LUCK, strict=False)]


def arm(name: str, comparison: str, losses: Losses, best: float = 1.0, layers: int = 4, head: int = 0) -> list[Any]:
    """Return an arm's rows: its losses at its best rate, and 1 more with the first seed at the others of 0.5, 1 and 2."""
    tried = {(best, seed): loss for seed, loss in enumerate(losses, 1)}
    if losses[0] is not None:
        tried |= {(rate, 1): losses[0] + 1 for rate in (0.5, 1.0, 2.0) if rate != best}
    else:
        tried |= {(rate, 1): None for rate in (0.5, 1.0, 2.0)}
    return [
        {
            "name": f"{name}_rate{rate:g}_seed{seed}",
            **{"arm": name, "comparison": comparison, "changes": {}, "seed": seed, "rate": rate},
            **{"loss": loss, "bits_per_byte": loss and loss / 3, "ended": "" if loss else "diverged: step 3"},
            **{"layers": layers, "parameters": 600_000, "parameters_total": 1_000_000 + head, "tokens": 200_000},
        }
        for (rate, seed), loss in tried.items()
    ]


def ablation(recipe: Recipe, folder: Path, arms: Sequence[Any], own: Losses = OWN, best: float = 1.0) -> Evidence:
    rows = [*arm("own", "own", own, best), *(row for rows in arms for row in rows)]
    write_json_atomic(folder / "ablation.json", summarise(recipe, rows))
    return Evidence([folder])


def found(finding: Finding | None) -> Finding:
    assert finding is not None
    return finding


@pytest.mark.parametrize(
    ("percent", "verdict"),
    [(0.4, "held"), (-0.4, "held"), (-1.0, "not told"), (-2.0, "not held")],  # sharing gains, costs little, ?, costs 2%
)
def test_sharing_costs_what_a_head_of_its_own_gains(
    percent: float, verdict: str, small_recipe: Recipe, tmp_path: Path
) -> None:
    untied = arm("untied", "embedding", worse_by(percent), head=500_000)
    assert found(verdicts.embedding(ablation(small_recipe, tmp_path, [untied]))).verdict == verdict


def test_what_is_said_of_sharing(small_recipe: Recipe, tmp_path: Path) -> None:
    untied = arm("untied", "embedding", worse_by(0.4), head=500_000)
    said = found(verdicts.embedding(ablation(small_recipe, tmp_path, [untied])))
    assert said.measured == (
        "against the recipe's 5.020 nats a token (more is worse): untied +0.40% (+0.30 to +0.50), 1.5M parameters in all;"
        " down to -1% is little"
    )
    assert said.scale == "600k parameters in blocks, 1M in all, 200k tokens, 3 seeds"
    tied = arm(
        "tied", "embedding", worse_by(0.4)
    )  # the recipe shares nothing, so what sharing costs is another question
    assert verdicts.embedding(ablation(small_recipe, tmp_path, [tied])) is None


def test_one_seed_and_other_comparisons_tell_nothing(small_recipe: Recipe, tmp_path: Path) -> None:
    evidence = ablation(small_recipe, tmp_path, [arm("untied", "embedding", worse_by(0.4, 1))], OWN[:1])
    assert found(verdicts.embedding(evidence)).verdict == "not told"
    assert "untied +0.40%; down" in found(verdicts.embedding(evidence)).measured
    assert found(verdicts.embedding(evidence)).scale.endswith("1 seed")
    for judge in (verdicts.depth, verdicts.attention, verdicts.tokenizer):
        assert judge(evidence) is None
        assert judge(Evidence([tmp_path / "nowhere"])) is None


@pytest.mark.parametrize(
    ("percent", "own_best", "arm_best", "verdict"),
    [
        (0.5, 1.0, 2.0, "not told"),  # the rival might win at 4
        (0.5, 2.0, 1.0, "held"),  # a better rate for the winner changes nothing
        (-2.0, 2.0, 1.0, "not told"),
        (-2.0, 1.0, 2.0, "not held"),
    ],
)
def test_the_losers_best_rate_must_not_be_at_the_edge(
    percent: float, own_best: float, arm_best: float, verdict: str, small_recipe: Recipe, tmp_path: Path
) -> None:
    rival = arm("multi-head-equal", "attention", worse_by(percent), arm_best)
    said = found(verdicts.attention(ablation(small_recipe, tmp_path, [rival], best=own_best)))
    assert said.verdict == verdict
    assert said.measured.count("best rate at the edge") == 1


def test_runs_that_diverged_leave_it_open(small_recipe: Recipe, tmp_path: Path) -> None:
    losses = worse_by(0.5)
    some = found(
        verdicts.embedding(ablation(small_recipe, tmp_path, [arm("untied", "embedding", [*losses[:2], None])]))
    )
    assert some.verdict == "not told"
    assert "diverged with seed 3" in some.measured
    every = found(verdicts.embedding(ablation(small_recipe, tmp_path, [arm("untied", "embedding", [None])])))
    assert (every.verdict, "untied diverged at every rate" in every.measured) == ("not told", True)
    own = found(verdicts.embedding(ablation(small_recipe, tmp_path, [arm("untied", "embedding", losses)], [None])))
    assert (own.verdict, own.measured) == ("not told", "the recipe diverged at every rate")


def test_wider_models_are_judged_together_and_a_deeper_one_is_not(small_recipe: Recipe, tmp_path: Path) -> None:
    def judged(*percents: float, head: int = 0) -> Finding:
        arms = [
            arm(f"wide{n}", "depth", worse_by(percent), layers=n, head=head) for n, percent in enumerate(percents, 1)
        ]
        deeper = arm("deeper", "depth", worse_by(-5), layers=8)
        return found(verdicts.depth(ablation(small_recipe, tmp_path, [*arms, deeper])))

    assert judged(0.5, 0.6).verdict == "held"
    assert "not judged: deeper -5.00%" in judged(0.5, 0.6).measured
    assert judged(0.5, -0.5).verdict == "not held"
    assert judged(0.5, 0.0).verdict == "not told"
    assert judged(0.11).verdict == "held"
    assert judged(0.11, 0.5).verdict == "not told"  # 95% for both together is a wider interval each
    assert judged(0.5, -0.5, head=200_000).verdict == "not told"  # did width win, or the larger embedding?
    assert "wide2 -0.50% (-0.65 to -0.35), 1.2M parameters in all" in judged(0.5, -0.5, head=200_000).measured
    assert judged(0.5, 0.5, head=200_000).verdict == "held"


@pytest.mark.parametrize(
    ("own", "other", "judged"),
    [("Unigram", "BPE", True), ("Unigram", "Unigram", False), ("BPE", "BPE", False), ("BPE", "Unigram", False)],
)
def test_a_tokenizer_is_what_its_data_say(
    small_recipe: Recipe, tmp_path: Path, own: str, other: str, judged: bool
) -> None:
    rows = [*arm("own", "own", OWN), *arm("bpe", "tokenizer", worse_by(1))]
    rows = [{**row, "tokenizer": own if row["arm"] == "own" else other} for row in rows]
    write_json_atomic(tmp_path / "ablation.json", summarise(small_recipe, rows))
    assert (verdicts.tokenizer(Evidence([tmp_path])) is not None) == judged


def test_without_that_a_tokenizer_is_judged_by_the_names_of_arms(small_recipe: Recipe, tmp_path: Path) -> None:
    arms = [arm("bpe", "tokenizer", worse_by(1)), arm("larger", "tokenizer", worse_by(-3))]
    said = found(verdicts.tokenizer(ablation(small_recipe, tmp_path, arms)))
    assert said.verdict == "held"
    assert "against the recipe's 1.673 bits a byte" in said.measured
    assert verdicts.tokenizer(ablation(small_recipe, tmp_path, arms[1:])) is None


def ratio(folder: Path, **parts: Any) -> Evidence:
    write_json_atomic(folder / "ratio.json", {"recipe": "r", "seeds": [1, 2, 3], **parts})
    return Evidence([folder])


def of_formats(chat: Sequence[float], text: Sequence[float]) -> dict[str, Any]:
    rows = []
    for mixture, losses in (("own", chat), ("as text", text)):
        for seed, loss in enumerate(losses, 1):
            scores: dict[str, Any] = {
                "documents": loss,
                "later_tokens": loss - 1,
                "questions": None,
                "accuracy": None,
                "counts": {},
            }
            rows.append({"seed": seed, "mixture": mixture, "formats": {"chat": scores, "text": scores}})
    return format_table(rows)


@pytest.mark.parametrize(
    ("chat", "text", "verdict"),
    [
        ((2.0, 2.1, 2.2), (2.5, 2.61, 2.69), "held"),
        ((2.5, 2.61, 2.69), (2.0, 2.1, 2.2), "not held"),
        ((2.0, 2.1, 2.2), (2.1, 2.0, 2.2), "not told"),
        ((2.0,), (2.5,), "not told"),
    ],
)
def test_formats(chat: Sequence[float], text: Sequence[float], verdict: str, tmp_path: Path) -> None:
    assert found(verdicts.formats(ratio(tmp_path, format=of_formats(chat, text)))).verdict == verdict


def test_formats_and_steps_are_not_judged_by_what_survives(tmp_path: Path) -> None:
    chats = of_formats((2.0, 2.1, 2.2), (2.5, 2.61, 2.69)) | {"diverged": [4]}
    swap = of_swap((0.3, 0.31, 0.32), (0.1, 0.12, 0.11))
    swap[1]["diverged"] = [4]
    evidence = ratio(tmp_path, format=chats, mixtures=swap)
    for judge in (verdicts.formats, verdicts.steps_to_answers):
        assert found(judge(evidence)).verdict == "not told"
        assert found(judge(evidence)).measured.endswith("; a run diverged with seed 4")


def test_what_is_said_of_formats(tmp_path: Path) -> None:
    said = found(verdicts.formats(ratio(tmp_path, format=of_formats((2.0, 2.1, 2.2), (2.5, 2.61, 2.69)))))
    assert said.measured.startswith(
        "answers of all held-out instruction documents: trained on chats 2.100 nats a token, on texts 2.600; chats less texts"
        " -0.500 (-0.525 to -0.475), without each answer's first token -0.500"
    )
    assert said.scale == "recipe r, 3 seeds"
    assert verdicts.formats(ratio(tmp_path, format={})) is None


def of_swap(own: Sequence[float], other: Sequence[float], value: str = "r-answers for r") -> list[dict[str, Any]]:
    rows = [
        {"name": mixture, "mixture": mixture, "seed": seed, "accuracy": accuracy}
        for mixture, found in (("own", own), (value, other))
        for seed, accuracy in enumerate(found, 1)
    ]
    return table(rows, lambda row: row["mixture"], "own")


@pytest.mark.parametrize(
    ("own", "other", "verdict"),
    [
        ((0.3, 0.31, 0.32), (0.1, 0.12, 0.11), "held"),
        ((0.1, 0.12, 0.11), (0.3, 0.31, 0.32), "not held"),
        ((0.1, 0.2, 0.1), (0.2, 0.1, 0.1), "not told"),
        ((0.0, 0.01, 0.0), (0.01, 0.0, 0.0), "not testable at this scale"),
        ((0.3,), (0.1,), "not told"),
    ],
)
def test_steps_to_answers(own: Sequence[float], other: Sequence[float], verdict: str, tmp_path: Path) -> None:
    assert found(verdicts.steps_to_answers(ratio(tmp_path, mixtures=of_swap(own, other)))).verdict == verdict


def test_only_a_source_s_own_answers_are_its_answers_alone(tmp_path: Path) -> None:
    said = found(
        verdicts.steps_to_answers(ratio(tmp_path, mixtures=of_swap((0.3, 0.31, 0.32, 0.9), (0.1, 0.12, 0.11))))
    )
    assert said.measured == (
        "questions answered exactly: 31.0% with the steps, 11.0% without; without less with -20.0% (-22.5% to -17.5%)"
    )
    for value in ("other for r", "without r", "only r"):
        mixtures = of_swap((0.3, 0.31, 0.32), (0.1, 0.12, 0.11), value)
        assert verdicts.steps_to_answers(ratio(tmp_path, mixtures=mixtures)) is None
    assert verdicts.steps_to_answers(ratio(tmp_path)) is None


def of_direct(carried: Mapping[int, float | None], other: Mapping[int, float | None], small: int = 9) -> dict[str, Any]:
    size = {"width": 96, "direct": {"trials": 9}, **direct.compare(carried, other)}
    return {"sizes": [size], "trials": 9, "seeds": list(carried), "verdict": direct.overall([size], small)}


def test_direct_searches(tmp_path: Path) -> None:
    def judged(result: dict[str, Any]) -> Finding:
        write_json_atomic(tmp_path / "direct.json", result)
        return found(verdicts.direct(Evidence([tmp_path])))

    base = {1: 4.0, 2: 4.0, 3: 4.01}
    held = judged(of_direct({1: 4.0, 2: 4.01, 3: 4.01}, base))
    assert held.verdict == "held"
    assert held.measured.endswith("at width 96 +0.08% (-0.27 to +0.44)")
    assert held.scale == "widths 96; 9 trials each, 3 seeds that chose nothing"
    assert judged(of_direct({1: 4.1, 2: 4.1, 3: 4.11}, base)).verdict == "not held"
    few = judged(of_direct({1: 4.0, 2: 4.01, 3: 4.01}, base, small=100))
    assert few.verdict == "not told"
    assert few.measured.endswith("; held, but against 9 trials, and 100 found the carried values")
    assert judged(of_direct({1: 4.0}, {1: 4.0})).measured.endswith(
        "at width 96 +0.00%, fewer than two seeds have both losses"
    )
    lost = judged(of_direct({1: None, 2: None}, {1: 4.0, 2: 4.0}))
    assert (lost.verdict, lost.measured.partition(": ")[2]) == (
        "not held",
        "at width 96, the carried-over values diverge with seed 1, 2",
    )
    assert verdicts.direct(Evidence([tmp_path / "nowhere"])) is None


EAGER = {"factor": 0.5, "low": 0.45, "high": 0.55}


def of_peer(
    ours: Sequence[Mapping[int, float]], theirs: Losses, compiled: Any = None, tuned: Tuned = BOTH_TUNED
) -> dict[str, Any]:
    """Return peer.json as `run_peer` puts it together of a comparison."""
    found = compare_peer(
        dict(enumerate(ours, 1)), dict(enumerate(theirs, 1)), 1000, {"eager": EAGER, "compiled": compiled}, tuned
    )
    sides = {"ours": {"at_edge": not tuned.ours}, "peer": {"at_edge": not tuned.peer}}
    return {"recipe": "r", "tokens": 1000, "seeds": list(range(1, len(ours) + 1)), **sides, **found}


def test_the_peer(tmp_path: Path) -> None:
    def judged(*arguments: Any, **others: Any) -> Finding:
        write_json_atomic(tmp_path / "peer.json", of_peer(*arguments, **others))
        return found(verdicts.peer(Evidence([tmp_path])))

    ours = [{500: 4.5, 1000: 4.0}, {500: 4.5, 1000: 4.0}]
    held = judged(ours, (4.25, 4.25))
    assert held.verdict == "held"
    assert held.measured == (
        "ours less the Trainer's at equal tokens -0.250 nats a token (-0.250 to -0.250); eager Trainer: tokens-time 0.354"
        " (0.318 to 0.389) = tokens 0.707 x time 0.500; at equal time -0.250 nats a token (-0.250 to -0.250)"
    )
    assert held.scale == "recipe r, 1k tokens, 2 seeds"
    slow = judged(ours, (4.25, 4.25), {"factor": 1.0, "low": 0.95, "high": 1.05})
    assert "compiled Trainer: tokens-time 0.707 (0.672 to 0.742) = tokens 0.707 x time 1.000: not held" in slow.measured
    assert "tokens at most 0.500" in judged(ours, (4.6, 4.6)).measured
    missed = judged(ours, (3.9, 4.25))
    assert missed.verdict == "not told"
    assert "eager Trainer: its loss is not reached at 1x of its tokens with seed 1; at equal time" in missed.measured
    gone = judged(ours, (None, None))
    assert (gone.verdict, gone.measured) == (
        "not told",
        "ours less the Trainer's at equal tokens not known; eager Trainer: no seed has both losses; at equal time not known;"
        " a run diverged with seed 1, 2",
    )
    open_ = judged(ours, (4.25, 4.25), tuned=Tuned(peer=False))
    assert (
        open_.verdict,
        open_.measured.endswith("; the Trainer's best rate is at the edge of its grid, or beside one that diverged"),
    ) == (
        "not told",
        True,
    )
    assert judged(ours[:1], (4.25,)).verdict == "not told"
    assert verdicts.peer(Evidence([tmp_path / "nowhere"])) is None
