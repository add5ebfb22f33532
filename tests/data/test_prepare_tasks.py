"""A whole preparation: duplicates, benchmark items, executors, faults at any moment, and the same command again."""

import argparse
import errno
import inspect
import json
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from upath import UPath

from xmodel2.data import step_clean
from xmodel2.data.executors import Cluster
from xmodel2.data.prepare import Options, prepare
from xmodel2.data.shards import verify_shards
from xmodel2.errors import XmodelError
from xmodel2.files import mark_folder
from xmodel2.recipe import load_recipe

VOCABULARY = sorted(set(re.findall(r"[a-z]{3,}", inspect.getsource(argparse))))
ITEM = "Janet has nineteen red marbles and gives seven of them to her younger brother before she buys four more"


def write(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def rich(tmp_path: Path) -> Path:
    """Two text sources that share near-duplicates, chats, a planted benchmark item, and held-out copies."""
    choose = random.Random(5)

    def text(words: int = 120) -> str:
        return " ".join(choose.choice(VOCABULARY) for _ in range(words))

    one, two = [text() for _ in range(60)], [text() for _ in range(60)]
    two[3] = one[5].replace(one[5].split()[10], "edited", 1)  # a near-duplicate across sources
    two[4] = two[9]  # an exact one within
    two[7] = one[8]  # and across
    two[20] = f"{two[20]} {ITEM} {two[21]}"
    heldout = [one[11].replace(one[11].split()[3], "changed", 1), text(), text()]
    chats = [[{"role": "user", "content": text(40)}, {"role": "assistant", "content": text(60)}] for _ in range(40)]
    chats[1] = [chats[0][0], {"role": "assistant", "content": chats[0][1]["content"] + " indeed"}]
    write(tmp_path / "one.jsonl", [{"text": t} for t in one])
    write(tmp_path / "two.jsonl", [{"text": t} for t in two])
    write(tmp_path / "held.jsonl", [{"text": t} for t in heldout])
    write(tmp_path / "chat.jsonl", [{"messages": turns} for turns in chats])
    (tmp_path / "eval" / "gsm8k").mkdir(parents=True)
    write(tmp_path / "eval" / "gsm8k" / "test.jsonl", [{"question": ITEM}])
    (tmp_path / "rich.toml").write_text(
        "sft_share = 0.6\n[tokenizer]\nvocab_size = 700\n"
        '[deduplicate]\ntext = ["exact", "minhash"]\nsft = ["exact", "simhash"]\nmax_hamming = 5\n'
        '[decontaminate]\ndirs = ["eval"]\n[clean.scrub]\npii = {}\n'
        '[sources.one]\nfiles = ["one.jsonl"]\nheldout = ["held.jsonl"]\nweight = 3\nclean = "scrub"\nlicence = "CC0"\n'
        '[sources.two]\nfiles = ["two.jsonl"]\nheldout_fraction = 0\nweight = 1\n'
        '[sources.chat]\nfiles = ["chat.jsonl"]\nkind = "sft"\nheldout_fraction = 0\nweight = 1\n'
    )
    return tmp_path


def test_duplicates_and_benchmark_items_go_and_what_is_held_out_stays(rich: Path) -> None:
    report = prepare(rich / "rich.toml", rich / "out")
    one, two, chat = (report["sources"][name] for name in ("one", "two", "chat"))
    assert one["heldout"]["documents"] == 3
    assert (one["duplicates"]["near"], one["duplicates"]["exact"]) == (1, 0)  # the copy of a held-out document
    assert (two["duplicates"]["near"], two["duplicates"]["exact"]) == (1, 2)
    assert two["duplicates"]["kept_in"] == {"one": 2, "two": 1}
    assert "edited" in two["duplicates"]["samples"][0]["removed"]
    assert two["contaminated"] == {"gsm8k": 1, "documents": 1}
    assert two["contaminated_documents"][0]["items"] == {"gsm8k": [0]}
    [line] = (rich / "out" / "contaminated.jsonl").read_text().splitlines()
    assert json.loads(line)["at"].endswith("two.jsonl:21")
    assert chat["duplicates"]["near"] == 1
    assert two["train"]["documents"] == 60 - 3 - 1
    assert report["benchmarks"]["gsm8k"] == {"items": 1, "checked": 1}


def test_within_sources_only(rich: Path) -> None:
    text = (rich / "rich.toml").read_text().replace("max_hamming = 5", 'scope = "within"')
    (rich / "within.toml").write_text(text)
    two = prepare(rich / "within.toml", rich / "out")["sources"]["two"]["duplicates"]
    assert (two["near"], two["exact"]) == (0, 1)


def test_the_mixture_file_is_a_base_for_recipes(rich: Path) -> None:
    prepare(rich / "rich.toml", rich / "out")
    (rich / "run.toml").write_text('base = ["out/mixture.toml"]\n[stages.decay]\ntokens = 4_000_000\n')
    recipe = load_recipe(rich / "run.toml")
    assert recipe.stages.stable.mixture == {"one": 0.75, "two": 0.25}
    assert recipe.decay_mixture == pytest.approx({"one": 0.3, "two": 0.1, "chat": 0.6})
    assert recipe.model.vocab_size == 700
    assert recipe.data.sources["one"].licence == "CC0"
    assert Path(recipe.data.dir) == rich / "out"


def test_the_mixture_file_of_chats_alone(rich: Path) -> None:
    text = (rich / "rich.toml").read_text()
    (rich / "chats.toml").write_text(text[: text.index("[sources.one]")] + text[text.index("[sources.chat]") :])
    prepare(rich / "chats.toml", rich / "out")
    recipe = load_recipe(rich / "out" / "mixture.toml")
    assert recipe.stages.stable.mixture == {}
    assert recipe.decay_mixture == {"chat": 1.0}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that takes no files, whoever asks")
def test_a_folder_that_takes_no_files_is_told_from_another_preparation(rich: Path) -> None:
    with pytest.raises(XmodelError, match="/proc takes no files, or another"):
        prepare(rich / "rich.toml", Path("/proc/x"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_processes_write_the_same_bytes(rich: Path) -> None:
    prepare(rich / "rich.toml", rich / "here" / "out")
    prepare(rich / "rich.toml", rich / "there" / "out", Options(cluster=Cluster(workers=2)))
    here, there = files_of(rich / "here" / "out"), files_of(rich / "there" / "out")
    assert set(here) == set(there)
    # Only what names the folder, and what has that one's checksum, differs.
    assert {name for name in here if here[name] != there[name]} == {"mixture.toml", "index.json"}


@pytest.mark.parametrize(("failing", "files_read_again"), [(1, 4), (24, 2), (60, 0)])
def test_a_full_disk_at_any_moment_loses_nothing_and_the_same_command_goes_on(
    rich: Path, monkeypatch: pytest.MonkeyPatch, failing: int, files_read_again: int
) -> None:
    prepare(rich / "rich.toml", rich / "out")
    before, sync, calls = files_of(rich / "out"), os.fsync, 0

    def fsync(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        prepare(rich / "rich.toml", rich / "out", Options(overwrite=True))
    assert files_of(rich / "out") == before
    monkeypatch.setattr(os, "fsync", sync)
    read: list[str] = []
    read_documents = step_clean.locate_documents
    monkeypatch.setattr(
        step_clean, "locate_documents", lambda files, *rest: read.extend(files) or read_documents(files, *rest)
    )
    prepare(rich / "rich.toml", rich / "out", Options(overwrite=True))
    assert len(read) == files_read_again
    assert files_of(rich / "out") == before
    assert not (rich / ".out.work").exists()


def test_other_sources_or_settings_start_again(rich: Path) -> None:
    (rich / "eval" / "gsm8k" / "test.jsonl").write_text("damaged\n")
    with pytest.raises(XmodelError, match=r"test\.jsonl:1: not valid JSON"):
        prepare(rich / "rich.toml", rich / "out")
    assert (rich / ".out.work" / "plan.json").exists()
    text = (rich / "rich.toml").read_text().replace('dirs = ["eval"]', "dirs = []")
    (rich / "rich.toml").write_text(text)
    report = prepare(rich / "rich.toml", rich / "out")
    assert report["benchmarks"] == {}


def test_methods_for_a_kind_that_is_not_there_do_nothing(rich: Path) -> None:
    text = (rich / "rich.toml").read_text()
    (rich / "text.toml").write_text(text[: text.index("[sources.chat]")])
    assert prepare(rich / "text.toml", rich / "out")["sources"]["two"]["duplicates"]["near"] == 1


def test_a_folder_that_is_not_ours_is_never_taken_for_work(rich: Path) -> None:
    (rich / "precious").mkdir()
    (rich / "precious" / "thesis.txt").write_text("x")
    with pytest.raises(XmodelError, match="is no work folder"):
        prepare(rich / "rich.toml", rich / "out", Options(work=rich / "precious"))
    assert (rich / "precious" / "thesis.txt").exists()


def test_object_stores_for_inputs_and_output(rich: Path) -> None:
    UPath("memory://in/one.jsonl").write_text((rich / "one.jsonl").read_text())
    text = (rich / "rich.toml").read_text().replace('files = ["one.jsonl"]', 'files = ["memory://in/o*.jsonl"]')
    (rich / "remote.toml").write_text(text)
    with pytest.raises(XmodelError, match="give a --work folder"):
        prepare(rich / "remote.toml", UPath("memory://out/data"))
    prepare(rich / "remote.toml", UPath("memory://out/data"), Options(work=rich / "work"))
    prepare(rich / "rich.toml", rich / "out")
    remote = {
        str(p).removeprefix("memory://out/data/"): p.read_bytes()
        for p in UPath("memory://out/data").rglob("*")
        if p.is_file()
    }
    local = files_of(rich / "out")
    assert set(local) - {".xmodel2"} == set(remote) - {".xmodel2"}
    assert {name for name in local if local[name] != remote.get(name)} <= {".xmodel2", "mixture.toml", "index.json"}
    extra = UPath("memory://out/data/two/train-99999-000.tokens")
    extra.write_bytes(b"of an earlier preparation")
    (rich / "remote.toml").write_text(text.replace("weight = 3", "weight = 2"))
    prepare(rich / "remote.toml", UPath("memory://out/data"), Options(work=rich / "work", overwrite=True))
    assert not extra.exists()


def test_sources_for_evaluation_and_bad_stages(rich: Path) -> None:
    extra = '[sources.test]\nstage = "evaluation"\nheldout = ["held.jsonl"]\n'
    (rich / "rich.toml").write_text((rich / "rich.toml").read_text().replace('heldout = ["held.jsonl"]\n', "") + extra)
    report = prepare(rich / "rich.toml", rich / "out")
    assert report["sources"]["test"]["train"]["documents"] == 0
    assert report["sources"]["one"]["duplicates"]["kept_in"] == {"test": 1}
    assert "[data.sources.test]" not in (rich / "out" / "mixture.toml").read_text()
    (rich / "rich.toml").write_text((rich / "rich.toml").read_text().replace("weight = 3\n", ""))
    with pytest.raises(XmodelError, match="sources of stage stable: give all of them a weight, or none"):
        prepare(rich / "rich.toml", rich / "out2")


def test_a_source_named_twice_is_an_error_with_its_line(rich: Path) -> None:
    (rich / "rich.toml").write_text((rich / "rich.toml").read_text() + '[sources.one]\nfiles = ["two.jsonl"]\n')
    with pytest.raises(XmodelError, match=r"rich\.toml: not valid TOML: .*line"):
        prepare(rich / "rich.toml", rich / "out")


def test_text_in_a_chat_source_names_file_and_remedy(rich: Path) -> None:
    write(rich / "chat.jsonl", [{"text": "no chat"}])
    with pytest.raises(XmodelError, match=r"chat\.jsonl:1: source chat is of kind sft.*set sources\.chat\.fields"):
        prepare(rich / "rich.toml", rich / "out")


def test_chats_without_an_answer_are_skipped(rich: Path) -> None:
    chats = (rich / "chat.jsonl").read_text()
    turns = [{"role": "user", "content": "Is anyone there?"}, {"role": "assistant", "content": " "}]
    write(rich / "chat.jsonl", [{"messages": turns}, {"messages": turns[:1]}])
    with pytest.raises(
        XmodelError, match=r"source chat has no training document left \(2 .*jsonl:1: no turn in which the assis"
    ):
        prepare(rich / "rich.toml", rich / "out")
    with pytest.raises(XmodelError, match=r"chat\.jsonl:1: no turn in which the assistant says something"):
        prepare(rich / "rich.toml", rich / "out", Options(strict=True))
    with open(rich / "chat.jsonl", "a") as handle:
        handle.write(chats)
        for role in ("Socrates", 'Plato: the "elder"'):
            handle.write(json.dumps({"messages": [{"role": role, "content": "?"}]}) + "\n")
    chat = prepare(rich / "rich.toml", rich / "out")["sources"]["chat"]
    assert chat["skipped"] == {
        "no turn in which the assistant says something": 2,
        "messages[..].role is not one of user, assistant, system": 2,  # whatever they are
    }
    assert chat["read"]["documents"] == 40


def test_held_out_documents_all_stay_and_chains_do_not_join_them(tmp_path: Path) -> None:
    choose = random.Random(3)
    words = [choose.choice(VOCABULARY) for _ in range(400)]
    first, second = " ".join(words[:300]), " ".join(words[60:360])
    between = " ".join(words[30:330])  # near both, which are not near each other
    write(tmp_path / "held.jsonl", [{"text": first}, {"text": second}, {"text": second}])
    rest = [" ".join(choose.choice(VOCABULARY) for _ in range(80)) for _ in range(30)]
    write(tmp_path / "train.jsonl", [{"text": text} for text in [between, *rest]])
    (tmp_path / "s.toml").write_text(
        '[tokenizer]\nvocab_size = 600\n[deduplicate]\ntext = ["exact", "minhash"]\n'
        '[sources.a]\nfiles = ["train.jsonl"]\nheldout = ["held.jsonl"]\n'
    )
    a = prepare(tmp_path / "s.toml", tmp_path / "out")["sources"]["a"]
    assert a["heldout"]["documents"] == 3
    assert a["train"]["documents"] == 30


def test_equal_documents_with_addresses_are_still_equal_and_files_are_read_once(tmp_path: Path) -> None:
    choose = random.Random(4)
    texts = [f"Write to me{n}@there.org: " + " ".join(choose.choice(VOCABULARY) for _ in range(30)) for n in range(40)]
    write(tmp_path / "one.jsonl", [{"text": text} for text in [*texts, *texts]])
    (tmp_path / "s.toml").write_text(
        "[tokenizer]\nvocab_size = 600\n[clean.scrub]\npii = {}\n"
        '[sources.a]\nfiles = ["one.jsonl", "*one.jsonl"]\nheldout_fraction = 0.2\nclean = "scrub"\n'
    )
    a = prepare(tmp_path / "s.toml", tmp_path / "out")["sources"]["a"]
    assert a["read"]["documents"] == 80
    assert a["duplicates"]["exact"] == 40  # of documents held out by hash too
    assert a["heldout"]["documents"] > 0
    assert a["train"]["documents"] + a["heldout"]["documents"] + a["duplicates"]["exact"] == 80


def test_changed_benchmarks_and_another_spelling_of_the_path(rich: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmodel2.data.prepare.settle", lambda *_: (_ for _ in ()).throw(XmodelError("stopped")))
    with pytest.raises(XmodelError, match="stopped"):
        prepare(rich / "rich.toml", rich / "out")
    done = {path: path.stat().st_mtime_ns for path in (rich / ".out.work" / "clean").iterdir()}
    monkeypatch.chdir(rich / "eval")
    with pytest.raises(XmodelError, match="stopped"):
        prepare(Path("../rich.toml"), rich / "out")
    assert done == {path: path.stat().st_mtime_ns for path in (rich / ".out.work" / "clean").iterdir()}
    monkeypatch.undo()
    with open(rich / "eval" / "gsm8k" / "test.jsonl", "a") as handle:
        handle.write(json.dumps({"question": ITEM.replace("marbles", "apples")}) + "\n")
    assert prepare(rich / "rich.toml", rich / "out")["benchmarks"]["gsm8k"]["items"] == 2


def test_a_kill_after_publishing_costs_nothing(rich: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(rich / "rich.toml", rich / "out")
    before = files_of(rich / "out")
    monkeypatch.setattr(
        "xmodel2.data.prepare.shutil.rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt())
    )
    with pytest.raises(KeyboardInterrupt):
        prepare(rich / "rich.toml", rich / "out", Options(overwrite=True))
    monkeypatch.undo()
    assert files_of(rich / "out") == before
    prepare(rich / "rich.toml", rich / "out", Options(overwrite=True))
    assert files_of(rich / "out") == before
    verify_shards(rich / "out")


def test_work_and_out_apart_and_leftovers_never_published(rich: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for out, work in ((rich / "w" / "data", rich / "w"), (rich / "o", rich / "o" / "work")):
        with pytest.raises(XmodelError, match="neither may lie in the other"):
            prepare(rich / "rich.toml", out, Options(work=work))
    (rich / "terraform").mkdir()
    (rich / "terraform" / "plan.json").write_text("{}")
    with pytest.raises(XmodelError, match="is no work folder"):
        prepare(rich / "rich.toml", rich / "out", Options(work=rich / "terraform"))
    mark_folder(rich, "data prepare")
    with pytest.raises(XmodelError, match="lies inside --out"):
        prepare(rich / "rich.toml", rich, Options(overwrite=True))
    leave = step_clean.BENCHMARKS_FILE
    monkeypatch.setattr("xmodel2.data.prepare.settle", lambda *_: (_ for _ in ()).throw(XmodelError(leave)))
    with pytest.raises(XmodelError):
        prepare(rich / "rich.toml", rich / "out")
    monkeypatch.undo()
    (rich / ".out.work" / "out" / "one").mkdir(parents=True)
    (rich / ".out.work" / "out" / "one" / ".train-00000-000.tokens.4242.tmp").write_bytes(b"half")
    prepare(rich / "rich.toml", rich / "out")
    assert not list((rich / "out").rglob("*.tmp"))


def test_two_preparations_of_one_folder_do_not_meet(rich: Path) -> None:
    with (
        FileLock(rich / ".out.work.lock"),
        pytest.raises(XmodelError, match="another `xmodel2 data prepare` works there"),
    ):
        prepare(rich / "rich.toml", rich / "out")


def test_any_flipped_byte_is_found(rich: Path) -> None:
    prepare(rich / "rich.toml", rich / "out")
    for name, content in files_of(rich / "out").items():
        if name == ".xmodel2":
            continue
        at = len(content) // 2
        (rich / "out" / name).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(XmodelError):
            verify_shards(rich / "out")
        (rich / "out" / name).write_bytes(content)
    assert len(verify_shards(rich / "out")) > 15


def test_brackets_in_the_names_of_folders_and_files(rich: Path) -> None:
    folder = rich / "data [old]"
    folder.mkdir()
    for name in ("one.jsonl", "two.jsonl", "held.jsonl", "chat.jsonl", "rich.toml"):
        shutil.copy(rich / name, folder / name)
    shutil.copytree(rich / "eval", folder / "eval")
    (folder / "two.jsonl").rename(folder / "two[1].jsonl")
    text = (
        (folder / "rich.toml")
        .read_text()
        .replace('"two.jsonl"', '"two[1].jsonl"')
        .replace('"one.jsonl"', '"on*.jsonl"')
    )
    (folder / "rich.toml").write_text(text)
    assert prepare(folder / "rich.toml", rich / "out")["sources"]["two"]["read"]["documents"] == 60
