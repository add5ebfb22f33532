"""An evaluation's folder: results, items and pages; it goes on where it was stopped and is one model's."""

import json
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from transformers import AutoTokenizer

from tests.eval.benchmark_rows import GSM8K, ROWS
from tests.eval.rival_models import NATIVE, tiny_rival
from xmodel2.errors import XmodelError
from xmodel2.eval.endpoint import EndpointBackend
from xmodel2.eval.engine import Engine
from xmodel2.eval.evaluation import discard, evaluate
from xmodel2.eval.mirror import Mirror
from xmodel2.eval.model_options import ModelOptions
from xmodel2.eval.open_model import open_backend
from xmodel2.eval.rivals import Rival
from xmodel2.eval.tasks import SUITES, TASKS
from xmodel2.eval.text import model_files

RIVAL = NATIVE[0]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Mirror:
    folder = tmp_path_factory.mktemp("mirror")
    for name, rows in ROWS.items():
        (folder / TASKS[name].directory).mkdir()
        content = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / TASKS[name].directory / f"{TASKS[name].split}.jsonl").write_text(content)
    (folder / "gsm8k" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in GSM8K))
    return Mirror(folder)


def opened(rival: Rival, folder: Path) -> Engine:
    backend = open_backend(str(tiny_rival(rival, folder, context=64)), ModelOptions(device="cpu"))
    assert isinstance(backend, Engine)
    return backend


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return opened(RIVAL, tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("rival", NATIVE, ids=lambda rival: rival.name)
def test_both_suites_on_every_native_rival(
    rival: Rival, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmodel2.eval.evaluation.write_pages", lambda out: None)
    names = [*SUITES["commonsense"], *SUITES["reasoning"]]
    results = evaluate(opened(rival, tmp_path / "model"), names, tmp_path / "out", mirror)
    assert list(results["tasks"]) == names
    for name, task in results["tasks"].items():
        low, high = task["interval"]
        assert 0 <= low <= task["score"] <= high <= 1
        assert (task["items"], task["of"]) == (len(ROWS[name]), TASKS[name].rows)
    assert [results["suites"][suite]["missing"] for suite in ("commonsense", "reasoning")] == [[], []]


def test_the_folder_holds_results_items_and_pages(model: Engine, mirror: Mirror, tmp_path: Path) -> None:
    out = tmp_path / "out"
    results = evaluate(model, ["arc_easy", "wikitext", "mmlu"], out, mirror, extra={"steps": {"stable": 3}})
    assert json.loads((out / "results.json").read_text()) == results
    assert results["steps"] == {"stable": 3}
    assert set(results["tasks"]["mmlu"]["parts"]) == {"anatomy", "international_law"}
    perplexity = results["tasks"]["wikitext"]
    assert perplexity["interval"][0] <= perplexity["score"] <= perplexity["interval"][1]
    assert perplexity["score"] > 1
    items = [json.loads(line) for line in (out / "items" / "arc_easy.jsonl").read_text().splitlines()]
    assert [item["id"] for item in items] == [0, 1]
    assert items[0]["options"] == [" iron", " cork ", " lead"]
    assert items[0]["correct"] == int(items[0]["answer"] == items[0]["target"])
    assert "ARC-e" in (out / "results.html").read_text()
    assert (out / "items.html").exists()


def test_what_is_answered_is_not_asked_again(model: Engine, mirror: Mirror, tmp_path: Path) -> None:
    asked: list[int] = []

    class Counting:
        description, max_length = model.description, model.max_length
        rolling, generate, token_counts = model.rolling, model.generate, model.token_counts

        def loglikelihood(self, pairs: Any) -> Any:
            asked.append(len(pairs))
            return model.loglikelihood(pairs)

    first = evaluate(Counting(), ["arc_easy"], tmp_path, mirror)
    again = evaluate(Counting(), ["arc_easy", "piqa"], tmp_path, mirror)
    assert asked == [5, 2]
    assert again["tasks"]["arc_easy"]["score"] == first["tasks"]["arc_easy"]["score"]
    with pytest.raises(XmodelError, match="holds results with limit None"):  # a table is of one limit
        evaluate(Counting(), ["arc_easy"], tmp_path, mirror, limit=1)
    assert json.loads((tmp_path / "results.json").read_text()) == again


def test_another_model_and_another_process_are_kept_out(model: Engine, mirror: Mirror, tmp_path: Path) -> None:
    evaluate(model, ["piqa"], tmp_path / "out", mirror)
    other = opened(NATIVE[1], tmp_path / "other")
    with pytest.raises(XmodelError, match=r"holds the evaluation of .* choose another --out"):
        evaluate(other, ["piqa"], tmp_path / "out", mirror)
    with (
        FileLock(tmp_path / "out" / ".lock"),
        pytest.raises(XmodelError, match="another `xmodel2` works in it"),
    ):
        evaluate(model, ["piqa"], tmp_path / "out", mirror)
    discard(tmp_path / "out")
    evaluate(other, ["piqa"], tmp_path / "out", mirror)


def test_overwriting_waits_for_the_model_to_answer(
    model: Engine, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    evaluate(model, ["piqa"], tmp_path, mirror)
    before = (tmp_path / "results.json").read_text()
    nobody = EndpointBackend("http://127.0.0.1:9", "tiny", max_length=64, retries=0)
    with pytest.raises(XmodelError, match="no whole answer"):
        evaluate(nobody, ["piqa"], tmp_path, mirror, overwrite=True)
    assert (tmp_path / "results.json").read_text() == before
    evaluate(model, ["arc_easy"], tmp_path, mirror, overwrite=True)
    assert set(json.loads((tmp_path / "results.json").read_text())["tasks"]) == {"arc_easy"}


def test_another_tokenizer_in_the_same_place_is_another_model(tmp_path: Path) -> None:
    folder = tiny_rival(RIVAL, tmp_path / "model", context=64)
    theirs, copied = tmp_path / "theirs", tmp_path / "copied"
    for place in (theirs, copied):
        AutoTokenizer.from_pretrained(str(folder)).save_pretrained(place)

    def fingerprint(tokenizer: Path) -> str:
        options = ModelOptions(device="cpu", tokenizer=str(tokenizer))
        return str(open_backend(str(folder), options).description["fingerprint"])

    before = fingerprint(theirs)
    assert before == fingerprint(copied)
    other = AutoTokenizer.from_pretrained(str(theirs))
    other.add_tokens(["hello"])
    other.save_pretrained(theirs)
    assert before != fingerprint(theirs)


def test_a_directorys_files_that_count(tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.json", "vocab.txt", "spiece.model", "LICENSE.txt"):
        (tmp_path / name).write_text(name)
    assert [path.name for path in model_files(tmp_path)] == [
        "config.json",
        "model.safetensors",
        "spiece.model",
        "vocab.txt",
    ]
    (tmp_path / "tokenizer.json").write_text("{}")  # then it is the vocabulary, and others are not read
    assert [path.name for path in model_files(tmp_path)] == ["config.json", "model.safetensors", "tokenizer.json"]


def test_only_an_evaluations_folder_is_discarded(tmp_path: Path) -> None:
    discard(tmp_path / "nothing")
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(XmodelError, match="was not made by `xmodel2 eval`"):
        discard(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_nothing_is_written_into_a_folder_of_other_things(model: Engine, mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(XmodelError, match=r"holds thesis\.tex, and was not made by"):
        evaluate(model, ["piqa"], tmp_path, mirror)


def test_damaged_results_are_named(model: Engine, mirror: Mirror, tmp_path: Path) -> None:
    evaluate(model, ["piqa"], tmp_path, mirror)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(XmodelError, match=r"results\.json: not valid JSON"):
        evaluate(model, ["piqa"], tmp_path, mirror)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(XmodelError, match=r"results\.json: has no 'model'; evaluate the model again, with --overwrite"):
        evaluate(model, ["piqa"], tmp_path, mirror)
    evaluate(model, ["piqa"], tmp_path, mirror, overwrite=True)


def test_requests_that_do_not_fit_are_counted(model: Engine, mirror: Mirror, tmp_path: Path) -> None:
    results = evaluate(model, ["piqa", "gsm8k"], tmp_path / "out", mirror)
    assert {name: task["cut"] for name, task in results["tasks"].items()} == {"piqa": 0, "gsm8k": 3}
    assert "3 requests cut to the model's context" in (tmp_path / "out" / "results.md").read_text()
