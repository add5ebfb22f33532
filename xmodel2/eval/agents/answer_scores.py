"""How answers are scored: exact match and F1 of HotpotQA, the label of FEVER.

Equal to the functions of `hotpot_evaluate_v1.py` (hotpotqa/hotpot) and of ReAct's `wrappers.py`, which agree with each other.
ReAct's own "reward" for HotpotQA, a Levenshtein ratio above 0.633, is no metric of either paper and is not computed.
"""

import re
import string
from collections import Counter

LABELS = ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")
"""FEVER's."""
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ALL_OR_NOTHING = frozenset(("yes", "no", "noanswer"))
"""Answers that a longer text does not partly give."""


def normalize_answer(text: str) -> str:
    """Return a text in lower case without ASCII punctuation, English articles and extra spaces.

    >>> normalize_answer("The Saimaa-Gesture!")
    'saimaagesture'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(prediction: str, target: str) -> float:
    """Return 1.0 if two answers are the same once normalised, else 0.0."""
    return float(normalize_answer(prediction) == normalize_answer(target))


def answer_f1(prediction: str, target: str) -> float:
    """Return the harmonic mean of precision and recall of an answer's words, 0 to 1.

    >>> answer_f1("Richard M. Nixon", "Richard Nixon")
    0.8
    """
    given, wanted = normalize_answer(prediction), normalize_answer(target)
    if given != wanted and not _ALL_OR_NOTHING.isdisjoint((given, wanted)):
        return 0.0
    given_words, wanted_words = given.split(), wanted.split()
    shared = (Counter(given_words) & Counter(wanted_words)).total()
    if not shared:
        return 0.0
    precision, recall = shared / len(given_words), shared / len(wanted_words)
    return 2 * precision * recall / (precision + recall)


def question_scores(prediction: str, target: str) -> dict[str, float]:
    """Return HotpotQA's metrics of an answer."""
    return {"exact_match": exact_match(prediction, target), "f1": answer_f1(prediction, target)}


def label_scores(prediction: str, label: str) -> dict[str, float]:
    """Return FEVER's metric of an answer: its label must be the right one, in whatever case and punctuation."""
    return {"exact_match": exact_match(prediction, label)}
