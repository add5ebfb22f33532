"""Two evaluations item by item: pairs, exact tests against tables, and what is left out by name."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xmodel2.commands.eval_compare import eval_compare
from xmodel2.errors import XmodelError
from xmodel2.eval.compare import compare
from xmodel2.eval.paired import holm, mcnemar

Evaluation = Callable[..., Path]
Items = Callable[..., list[dict[str, Any]]]


def generated(scores: list[float]) -> list[dict[str, Any]]:
    shared = {"part": None, "options": None, "target": "t", "output": "o", "correct": None}
    return [
        {"id": i, "prompt": f"p{i}", "answer": "a", "scores": {"f1": score}, **shared} for i, score in enumerate(scores)
    ]


def test_pairs_are_counted_and_tested(evaluation: Evaluation, option_items: Items) -> None:
    rights = "A" * 40
    a = evaluation("a", {"arc_easy": option_items("A" * 20 + "B" * 20, rights)})
    b = evaluation("b", {"arc_easy": option_items("B" * 2 + "A" * 28 + "B" * 10, rights)})
    result = compare(a, b)
    row = result["tasks"]["arc_easy"]
    assert (row["items"], row["won"], row["lost"], row["both"], row["neither"]) == (40, 10, 2, 18, 10)
    assert row["difference"] == pytest.approx(row["b"] - row["a"]) == pytest.approx(0.2)
    assert row["test"] == "McNemar exact"
    assert row["p"] == pytest.approx(2 * sum(math.comb(12, k) for k in range(3)) / 2**12)
    deviation = math.sqrt((12 / 40 - 0.2**2) / 40)
    assert row["interval"] == pytest.approx([0.2 - 1.96 * deviation, 0.2 + 1.96 * deviation], abs=0.02)
    assert [entry["id"] for entry in row["differ"]] == [0, 1, *range(20, 30)]
    assert row["differ"][0] == {
        **{"part": None, "id": 0, "target": 0},
        **{"a": {"score": 1.0, "answer": 0}, "b": {"score": 0.0, "answer": 1}},
    }
    # One task: sign flips of the mean are McNemar's test by simulation.
    assert result["overall"]["p"] == pytest.approx(row["p"], abs=0.01)
    assert compare(a, b) == result


def test_the_mean_counts_every_task_the_same(evaluation: Evaluation, option_items: Items) -> None:
    many, few = "A" * 100, "A" * 4
    a = evaluation("a", {"arc_easy": option_items(many, many), "piqa": option_items("BBBB", few)})
    b = evaluation("b", {"arc_easy": option_items(many, many), "piqa": option_items("AAAA", few)})
    result = compare(a, b)
    assert result["overall"]["difference"] == 0.5
    assert result["overall"]["interval"] == [0.5, 0.5]
    assert result["suites"].keys() == {"commonsense"}
    assert result["tasks"]["arc_easy"]["p"] == 1.0
    assert result["tasks"]["piqa"]["p"] == 0.125
    assert result["tasks"]["piqa"]["p_holm"] == 0.25


def test_scores_between_right_and_wrong_are_tested_by_sign_flips(evaluation: Evaluation) -> None:
    a = evaluation("a", {"qa": generated([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])})
    b = evaluation("b", {"qa": generated([0.2, 0.4, 0.6, 0.8, 0.9, 0.8])})
    row = compare(a, b)["tasks"]["qa"]
    assert row["test"] == "sign flips"
    assert "both" not in row
    assert row["p"] == pytest.approx(2 / 2**6, abs=0.005)  # all six up: one of 64, on either side


def test_a_perplexity_is_compared_by_word_and_is_no_part_of_a_mean(evaluation: Evaluation) -> None:
    texts = [(-30.0, 10), (-50.0, 20), (-12.0, 6)]
    rows = [{**row, "scores": {"word_perplexity": pair}} for row, pair in zip(generated([0] * 3), texts, strict=True)]
    better = [{**row, "scores": {"word_perplexity": (p + 3, n)}} for row, (p, n) in zip(rows, texts, strict=True)]
    changes = {"tasks": {"wikitext": {"metric": "word_perplexity"}}}
    a, b = evaluation("a", {"wikitext": rows}, **changes), evaluation("b", {"wikitext": better}, **changes)
    result = compare(a, b)
    row = result["tasks"]["wikitext"]
    assert row["unit"] == "nats a word"
    assert row["a"] == pytest.approx(-92 / 36)
    assert row["difference"] == pytest.approx(9 / 36)
    assert (row["won"], row["lost"], result["overall"]) == (3, 0, None)


def test_other_questions_and_missing_items_are_left_out_by_name(evaluation: Evaluation, option_items: Items) -> None:
    items = option_items("AAAA", "ABAB", part="algebra")
    changed = [dict(item) for item in items[:3]]
    changed[1]["prompt"] = "An example\n\nQuestion 1\nAnswer:"
    changed[2] |= {"options": [" A", " B"], "output": [-1.0, -3.0]}
    a, b = evaluation("a", {"mmlu": items, "piqa": items}), evaluation("b", {"mmlu": changed, "boolq": items})
    result = compare(a, b)
    row = result["tasks"]["mmlu"]
    assert (row["items"], row["only_in_a"], row["only_in_b"]) == (1, 1, 0)
    assert row["other_question"] == [{"part": "algebra", "id": 1}, {"part": "algebra", "id": 2}]
    assert (result["only_a"], result["only_b"]) == (["piqa"], ["boolq"])


def test_the_command_prints_a_table_and_the_items_that_differ(
    evaluation: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = generated([0.0, 1.0, 1.0])
    hostile[0]["answer"] = "[red]\x1b[2J" + "long " * 50
    a, b = evaluation("a", {"qa": hostile}), evaluation("b", {"qa": generated([1.0, 1.0])})
    eval_compare(a, b, items=True)
    said = capsys.readouterr().out
    assert "qa: left out 1 items that only A has" in said
    assert "[red]\\x1b[2J" in said
    assert "\x1b[2J" not in said
    assert "+50.00" in said
    eval_compare(a, b, json=True)
    assert "differ" not in json.loads(capsys.readouterr().out)["tasks"]["qa"]


def test_what_cannot_be_compared_is_said(evaluation: Evaluation, option_items: Items) -> None:
    items = option_items("AB", "AA")
    a = evaluation("a", {"piqa": items})
    with pytest.raises(XmodelError, match=r"no task in common"):
        compare(a, evaluation("other", {"boolq": items}))
    with pytest.raises(XmodelError, match=r"no item in common \(piqa: 2 items with other prompts"):
        compare(a, evaluation("few-shot", {"piqa": [{**item, "prompt": "x"} for item in items]}))
    with pytest.raises(XmodelError, match=r"nothing: no results\.json"):
        compare(a, a.parent / "nothing")
    with pytest.raises(XmodelError, match=r"empty/items: no items"):
        compare(a, evaluation("empty", {}))
    (a / "items" / "piqa.jsonl").write_text('{"id": 0, "prompt": "p"}\n')
    with pytest.raises(XmodelError, match=r"piqa\.jsonl, line 1: has no 'output'"):
        compare(a, a)


def test_episodes_pair_only_in_one_world_after_the_same_examples(
    evaluation: Evaluation, episodes: Items, option_items: Items
) -> None:
    a = evaluation("a", {"fever": episodes(["solved", "wrong", "wrong"])})
    b = evaluation("b", {"fever": episodes(["solved", "solved", "out of steps"]), "piqa": option_items("A", "A")})
    row = compare(a, b)["tasks"]["fever"]
    assert (row["items"], row["won"], row["lost"], row["test"]) == (3, 1, 0, "McNemar exact")
    assert row["differ"][0]["id"] == "case-1"
    for changed in ({"world": "FEVER, 9,999 claims"}, {"examples": "ReAct"}, {"data_fingerprint": "f"}):
        results = json.loads((b / "results.json").read_text())
        results["tasks"]["fever"] |= changed
        other = evaluation(f"other {changed}", {"fever": episodes(["solved", "wrong"])}, tasks=results["tasks"])
        with pytest.raises(
            XmodelError, match=r"fever: played (in other worlds, A in made-up .*, B in|with other data)"
        ):
            compare(a, other)
    piqa = evaluation("c", {"fever": episodes(["solved"]), "piqa": option_items("B", "A")}, tasks=results["tasks"])
    row = compare(piqa, evaluation("d", {"fever": episodes(["wrong"]), "piqa": option_items("A", "A")}))
    assert row["tasks"]["fever"]["items"] == 0
    assert row["tasks"]["fever"]["worlds"].keys() == {"a", "b"}
    assert row["tasks"]["fever"]["other_question"] == [{"part": "bridge", "id": "case-0"}]
    assert row["overall"]["items"] == 1


def test_statistics_match_published_ones() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == mcnemar(0, 5) == 0.0625
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # as R's p.adjust
    assert holm([0.5, 0.9]) == [1.0, 1.0]
