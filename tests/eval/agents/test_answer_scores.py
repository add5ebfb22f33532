"""Answers are scored as HotpotQA's and ReAct's authors score them."""

import random
from pathlib import Path

import pytest

from xmodel2.eval.agents.answer_scores import answer_f1, exact_match, label_scores, normalize_answer, question_scores
from xmodel2.eval.mirror import read_rows

# 400 answers to questions and 200 to claims, made by a seeded generator from words, case, punctuation and space of many kinds.
# Their scores are what the authors' functions gave: `exact_match_score` and `f1_score` of hotpot_evaluate_v1.py (hotpotqa/hotpot,
# commit 4c0fa5e), equal on all of them to `get_metrics` of ReAct's wrappers.py, and `get_reward` of FeverWrapper there
# (ysymyth/ReAct, commit 19c6bae).
RECORDED = read_rows(Path(__file__).with_name("answer_scores.jsonl.gz"))


def test_scores_are_those_of_the_authors_functions() -> None:
    for row in RECORDED:
        given, target = row["answer"], row["target"]
        if row["kind"] == "question":
            assert question_scores(given, target) == {"exact_match": row["exact_match"], "f1": row["f1"]}, row
        else:
            assert label_scores(given, target) == {"exact_match": row["exact_match"]}, row
    questions = [row for row in RECORDED if row["kind"] == "question"]
    assert len(questions) == 400
    assert len(RECORDED) == 600
    assert sum(0 < row["f1"] < 1 for row in questions) > 90
    assert sum(row["exact_match"] for row in RECORDED) > 200


def test_scores_are_symmetric_and_bounded_and_do_not_see_case_articles_or_punctuation() -> None:
    rng = random.Random(5)
    words = ["the", "Ostby", "a", "bridge", "yes", "1,702", "no", "U.S.", "an", "River"]
    for _ in range(300):
        one, other = (" ".join(rng.choices(words, k=rng.randint(0, 5))) for _ in range(2))
        assert answer_f1(one, other) == answer_f1(other, one)
        assert exact_match(one, other) == exact_match(other, one)
        assert exact_match(one, other) <= answer_f1(one, other) <= 1 or not normalize_answer(one)
        assert question_scores(f" The {one.upper()} !", other) == question_scores(one, other)
        assert normalize_answer(normalize_answer(one)) == normalize_answer(one)


@pytest.mark.parametrize(("given", "f1"), [("yes", 1.0), ("yes, it is", 0.0), ("no", 0.0), ("", 0.0)])
def test_a_yes_is_right_alone_only(given: str, f1: float) -> None:
    assert answer_f1(given, "Yes") == f1


def test_a_label_is_right_in_any_case_but_not_in_part() -> None:
    assert label_scores("not enough info.", "NOT ENOUGH INFO") == {"exact_match": 1.0}
    assert label_scores("NOT ENOUGH INFORMATION", "NOT ENOUGH INFO") == {"exact_match": 0.0}
    assert label_scores("", "REFUTES") == {"exact_match": 0.0}
