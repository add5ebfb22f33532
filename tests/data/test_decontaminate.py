"""Planted benchmark items are found, ordinary text is not, and the rule's edges hold."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from xmodel2.data.benchmark_items import BENCHMARKS
from xmodel2.data.decontaminate import build_index, load_index, read_benchmarks
from xmodel2.errors import XmodelError
from xmodel2.recipe.preparation import DecontaminateSettings

LONG = "Janet has nineteen red marbles and gives seven of them to her younger brother before she buys four more"
SHORT = "The capital city of the smallest country is what"
SHARED = Path(__file__).parents[3] / "shared" / "data"
FILLER = "An ordinary paragraph that says nothing of the kind, over and over, about the weather in the hills. "


def test_a_planted_item_is_found_whatever_its_layout() -> None:
    index = build_index({"gsm8k": [LONG, "another " * 20], "fever": [SHORT]}, DecontaminateSettings())
    assert index.check(f"{FILLER * 5}Q: {LONG.upper()}?\n{FILLER}") == [("gsm8k", 0)]
    assert index.check(f"{FILLER}{SHORT}?") == [("fever", 0)]
    assert index.check(LONG.replace(" ", "\n- ")) == [("gsm8k", 0)]
    assert index.check(FILLER * 30) == []
    assert index.check("") == []


def test_less_than_the_share_of_an_item_is_no_contamination() -> None:
    words = [f"word{n}" for n in range(113)]  # 101 n-grams of 13 words
    index = build_index({"bbh": [" ".join(words)]}, DecontaminateSettings(min_share=0.25))
    assert index.check(" ".join(words[:38])) == [("bbh", 0)]  # 26 of 101
    assert index.check(" ".join(words[:37])) == []  # 25 of 101


def test_template_wording_and_short_items_are_not_checked() -> None:
    template = "The following paragraphs each describe a set of five objects arranged in a fixed order on a shelf"
    items = [f"{template}: case {n} {'abc' * n}" for n in range(40)]
    index = build_index({"bbh": [*items, "too short to tell"]}, DecontaminateSettings())
    assert index.check(f"{template} and then an ordinary story goes on") == []
    assert index.coverage()["bbh"]["items"] == 41
    assert index.coverage()["bbh"]["checked"] < 41
    assert index.coverage()["sciq"] == {"items": 0, "checked": 0}


def test_an_item_that_is_listed_many_times_is_one_item() -> None:
    claims = [LONG, "The tallest lighthouse on the northern coast was built by two brothers in 1871"]
    index = build_index({"fever": [claim for claim in claims for _ in range(12)]}, DecontaminateSettings())
    assert index.check(f"{FILLER}{LONG}") == [("fever", 0)]
    assert index.check(f"{FILLER}{claims[1]}") == [("fever", 12)]
    assert index.coverage()["fever"] == {"items": 2, "checked": 2}


def test_items_below_min_words_are_not_checked_where_an_n_gram_is_shorter_still() -> None:
    words = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"]
    items = [" ".join(words[:n]) for n in (7, 8)]
    index = build_index({"bbh": items}, DecontaminateSettings(ngram=5, min_words=8))
    assert index.check(" ".join(words)) == [("bbh", 1)]
    assert index.coverage()["bbh"] == {"items": 2, "checked": 1}


def test_the_index_survives_being_written(tmp_path: Path) -> None:
    index = build_index({"gsm8k": [LONG], "fever": [SHORT]}, DecontaminateSettings())
    index.save(tmp_path / "index.npz")
    again = load_index(tmp_path / "index.npz")
    assert again.check(LONG) == [("gsm8k", 0)]
    assert again.check(SHORT) == [("fever", 0)]


RECORDS: dict[str, dict[str, Any]] = {
    "boolq": {"question": LONG, "passage": FILLER, "label": 1},
    "hellaswag": {"ctx": LONG, "endings": []},
    "openbookqa": {"question_stem": LONG, "choices": {}},
    "piqa": {"goal": LONG, "sol1": "yes", "sol2": "no", "label": 0},
    "winogrande": {"sentence": LONG.replace("red", "_"), "option1": "blue", "option2": "red", "answer": "2"},
    "hendrycks_math": {"problem": LONG, "solution": ""},
    "bbh": {"input": LONG, "target": ""},
    "humaneval": {"prompt": LONG, "canonical_solution": ""},
    "mbpp": {"task_id": 11, "text": LONG},
    "fever": {"claim": LONG},
    "webshop": {"goal": LONG},
}


def write_benchmarks(root: Path) -> None:
    for name in BENCHMARKS:
        if name == "alfworld":
            game = root / name / "json_2.1.1" / "valid_unseen" / "trial" / "traj_data.json"
            game.parent.mkdir(parents=True)
            game.write_text(json.dumps({"turk_annotations": {"anns": [{"task_desc": LONG}]}}))
            continue
        (root / name).mkdir(parents=True)
        record = RECORDS.get(name, {"question": LONG})
        (root / name / "test.jsonl.gz").write_bytes(gzip.compress(json.dumps(record).encode()))
        (root / name / "train.jsonl").write_text(json.dumps({**record, "task_id": 700}).replace("Janet", "Train"))


def test_every_one_of_the_eighteen_is_read_from_its_layout(tmp_path: Path) -> None:
    write_benchmarks(tmp_path)
    assert len(BENCHMARKS) == 18
    found = read_benchmarks([tmp_path])
    assert set(found) == set(BENCHMARKS)
    index = build_index(found, DecontaminateSettings())
    assert {name for name, _ in index.check(f"Question: {LONG} yes")} == set(BENCHMARKS)
    assert all(len(items) == 1 for items in found.values())  # the training splits were left out


def test_planted_items_of_real_benchmarks_are_found(tmp_path: Path) -> None:
    """Of the real sets where they lie beside the repository, of made-up ones elsewhere."""
    folders = [folder for folder in (SHARED / "eval", SHARED / "agents") if folder.is_dir()]
    if not folders:
        write_benchmarks(tmp_path)
        folders = [tmp_path]
    found = read_benchmarks(folders)
    index = build_index(found, DecontaminateSettings())
    checked = {
        (index.names[b], int(n)) for b, n, need in zip(index.benchmark, index.number, index.need, strict=True) if need
    }
    for name, items in found.items():
        for number in range(0, len(items), max(1, len(items) // 20)):
            hits = index.check(f"{FILLER * 4}\n\n{items[number]}\n\n{FILLER * 4}")
            assert ((name, number) in hits) == ((name, number) in checked)
    assert index.check(FILLER * 50) == []


def test_wrong_folders_and_records_are_named(tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match="holds none of the benchmarks"):
        read_benchmarks([tmp_path])
    (tmp_path / "piqa").mkdir()
    (tmp_path / "piqa" / "validation.jsonl").write_text('{"goal": "x"}\n')
    with pytest.raises(XmodelError, match=r"validation\.jsonl:1: not an item of piqa"):
        read_benchmarks([tmp_path])


def test_a_folder_of_files_that_are_not_read_is_named_with_them(tmp_path: Path) -> None:
    write_benchmarks(tmp_path)
    (tmp_path / "piqa" / "test.jsonl.gz").rename(tmp_path / "piqa" / "valid.csv")
    with pytest.raises(
        XmodelError, match=r"piqa: no test item of piqa in it; there is train\.jsonl, valid\.csv\. Read are \.jsonl"
    ):
        read_benchmarks([tmp_path])
