"""Harness tasks on local files score as plain lm_eval scores the exported model; damaged or missing input is named."""

import gzip
import json
from pathlib import Path

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from xmodel2.errors import XmodelError
from xmodel2.eval.harness import HarnessLM, run_task
from xmodel2.tokenizer import load_tokenizer
from xmodel2.train import load_model

TOPICS = ("module", "list of numbers", "class", "licence", "for loop", "decorator", "generator", "file handle")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight questions in the fields of ARC, compressed, as a local mirror has them."""
    folder = tmp_path_factory.mktemp("eval") / "arc_easy"
    folder.mkdir()
    rows = [
        {
            "id": str(number),
            "question": f"Which of these is a {topic}, as the documentation of Python describes it?",
            "choices": {"text": [f"the {t} itself" for t in TOPICS[:4]], "label": ["A", "B", "C", "D"]},
            "answerKey": "ABCD"[number % 4],
        }
        for number, topic in enumerate(TOPICS)
    ]
    with gzip.open(folder / "test.jsonl.gz", "wt") as handle:
        handle.writelines(json.dumps(row) + "\n" for row in rows)
    return folder.parent


@pytest.fixture(scope="module")
def ours(road: Path) -> HarnessLM:
    """The run's last checkpoint."""
    return HarnessLM(load_model(road / "run")[0], load_tokenizer(road / "run" / "tokenizer"), batch_tokens=300)


@pytest.fixture(scope="module")
def plain(road: Path) -> HFLM:
    """The same model as the harness itself loads it."""
    return HFLM(str(road / "hf"), dtype="float32", device="cpu", batch_size=3, add_bos_token=True)


PAIRS = [
    ("Question: What is a list?\nAnswer:", " a sequence of values"),
    ("def f(x):\n    return ", "x + 1"),
    ("", "nothing before it"),
    ("import os\n", " \n\n"),
    ("word " * 500, "word"),
]


def test_log_likelihoods_equal_plain_lm_eval(ours: HarnessLM, plain: HFLM) -> None:
    requests = [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(PAIRS)]
    for a, b in zip(ours.loglikelihood(requests, True), plain.loglikelihood(requests, True), strict=True):
        assert a[0] == pytest.approx(b[0], abs=1e-3)
        assert a[1] == b[1]


def test_rolling_log_likelihood_covers_texts_longer_than_the_context(ours: HarnessLM, plain: HFLM) -> None:
    texts = ["A short text.", "The function returns a list. " * 120]
    requests = [Instance("loglikelihood_rolling", {}, (text,), n) for n, text in enumerate(texts)]
    plain.add_bos_token = False  # so that the harness, too, puts the prefix before the text only once
    try:
        theirs = plain.loglikelihood_rolling(requests, True)
    finally:
        plain.add_bos_token = True
    assert ours.loglikelihood_rolling(requests, True) == pytest.approx(theirs, rel=1e-4)


def test_generation_stops_before_the_stop_string(ours: HarnessLM) -> None:
    requests = [Instance("generate_until", {}, ("def f(", {"until": [], "max_gen_toks": 20}), 0)]
    whole = ours.generate_until(requests)[0]
    stop = whole[len(whole) // 2 : len(whole) // 2 + 2]
    requests = [Instance("generate_until", {}, ("def f(", {"until": [stop], "max_gen_toks": 20}), 0)]
    assert ours.generate_until(requests)[0] == whole[: whole.index(stop)]


def test_one_task_from_a_local_file(road: Path, data: Path) -> None:
    model, _, _ = load_model(road / "run")
    tokenizer = load_tokenizer(road / "run" / "tokenizer")
    scores = run_task(model, tokenizer, "arc_easy", data)
    assert scores["examples"] == 8
    assert 0 <= scores["acc"] <= 1
    assert scores["acc"] * 8 == int(scores["acc"] * 8)
    assert run_task(model, tokenizer, "arc_easy", data, limit=3)["examples"] == 3


def test_unknown_task_and_missing_data(road: Path, data: Path) -> None:
    model, _, _ = load_model(road / "run")
    tokenizer = load_tokenizer(road / "run" / "tokenizer")
    with pytest.raises(XmodelError, match="Did you mean 'arc_easy'"):
        run_task(model, tokenizer, "arc_eazy", data)
    with pytest.raises(XmodelError, match=r"piqa/validation\.jsonl\.gz: no such file"):
        run_task(model, tokenizer, "piqa", data)
    with pytest.raises(XmodelError, match="give --data-dir"):
        run_task(model, tokenizer, "piqa", None)
