"""The agents' data comes whole, in the layout that the benchmarks read, and over nobody's file."""

import gzip
import hashlib
import io
import json
import stat
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.eval.stand_in_web import Published, StandInWeb, stand_in_web
from xmodel2.commands.eval_fetch import eval_fetch
from xmodel2.errors import XmodelError
from xmodel2.eval.agents import fetch_files
from xmodel2.eval.agents.agent_files import AGENT_FILES, AgentFile
from xmodel2.eval.agents.benchmarks import open_benchmark, with_folder
from xmodel2.eval.agents.fetch_files import fetch_agents
from xmodel2.eval.agents.file_forms import Same
from xmodel2.eval.agents.options import MADE_UP
from xmodel2.eval.mirror import read_rows
from xmodel2.eval.tasks import AGENTS

SHARED = Path(__file__).parents[4] / "shared" / "data" / "agents"
BY_NAME = {file.name: file for file in AGENT_FILES}
GAMES = "alfworld/json_2.1.1/valid_unseen"
DISTRACTOR = "hotpotqa/dev-distractor.jsonl.gz"
GAME = json.dumps({"pddl_domain": "", "grammar": "", "pddl_problem": "(define)", "solvable": True}).encode()


def question(number: int) -> dict[str, Any]:
    return {
        "_id": f"id {number}",
        **{"question": f"Is it {number}, é?", "answer": "yes", "type": "comparison", "level": "hard"},
        "supporting_facts": [["A", 0], ["B", 1]],
        "context": [["A", ["A is one.", " It is."]], ["B", ["B is two."]]],
    }


def zipped(names: Sequence[str], content: bytes = GAME, mode: int = 0o644, method: int = zipfile.ZIP_STORED) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name in names:
            member = zipfile.ZipInfo(name)
            member.external_attr, member.compress_type = mode << 16, method
            file.writestr(member, content)
    return archive.getvalue()


def spoilt(method: int, names: Sequence[str] = ("wiki-pages/wiki-001.jsonl", "wiki-pages/wiki-002.jsonl")) -> bytes:
    """An archive whose second member's packed content is other bytes."""
    content = bytearray(zipped(names, method=method))
    begin = content.index(names[1].encode()) + len(names[1])
    content[begin + 12 : begin + 24] = b"\xff" * 12
    return bytes(content)


def trials(count: int, split: str = "valid_unseen") -> list[str]:
    return [f"json_2.1.1/{split}/pick_heat-Mug-{n}/trial_{n}/game.tw-pddl" for n in range(count)]


def prompts(count: int) -> bytes:
    return json.dumps({f"prompt {n}": f"Question {n}\n" for n in range(count)}).encode()


def notebook() -> bytes:
    code = ["%env X\n", 'prompt1 = """Webshop \n', "Action: click[Buy Now]\n", '"""\n', "prompt = None"]
    cells = [["prompt = print('never run')"], code[1:], ["prompt1_actonly = 'b\\n'"], code[:1]]
    return json.dumps({"cells": [{"cell_type": "code", "source": cell} for cell in cells]}).encode()


SMALL = {"hotpotqa/dev-simplified.jsonl.gz": 50, DISTRACTOR: 50, "fever/paper-dev.jsonl.gz": 99, GAMES: 4}
"""Rows here of what is larger."""
CONTENTS = {
    "hotpotqa/dev-simplified.jsonl.gz": json.dumps([question(n) for n in range(50)]).encode(),
    DISTRACTOR: json.dumps([question(n) for n in range(50)]).encode(),
    "react-prompts/prompts_naive.jsonl.gz": prompts(8),
    "fever/paper-dev.jsonl.gz": b"\n".join(
        [b'{"id": 1, "claim": "c", "label": "REFUTES", "evidence": [[[1, 2, "A", 0]]]}'] * 99
    ),
    "react-prompts/fever.jsonl.gz": prompts(4),
    "fever/wiki-pages.zip": zipped([f"wiki-pages/wiki-{n:03}.jsonl" for n in range(1, 110)] + ["__MACOSX/x"]),
    "react-prompts/alfworld_3prompts.jsonl.gz": prompts(36),
    GAMES: zipped(trials(4) + trials(3, "train") + ["json_2.1.1/valid_unseen/", "json_2.1.1/valid_unseen/a/traj.json"]),
    "react-prompts/webshop.jsonl.gz": notebook(),
    **{name: json.dumps([name]).encode() for name in BY_NAME if name.startswith("webshop/")},
}
"""Originals by the name of what is made of them."""


def published(name: str, content: bytes) -> AgentFile:
    """A file of which this is the original."""
    file, digest = BY_NAME[name], hashlib.sha256(content).hexdigest()
    form = Same(digest, file.rows) if isinstance(file.form, Same) else file.form
    return replace(file, form=form, sha256=file.sha256 and digest, rows=SMALL.get(name, file.rows))


FILES = [published(name, CONTENTS[name]) for name in BY_NAME]


@pytest.fixture
def web() -> Iterator[StandInWeb]:
    """All originals, each at the first of its addresses."""
    with stand_in_web() as web:
        web.files = {BY_NAME[name].addresses[0]: Published(content) for name, content in CONTENTS.items()}
        yield web


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_layout_is_what_the_benchmarks_read(web: StandInWeb, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    records = fetch_agents(AGENTS, tmp_path, web=web, files=FILES, progress=lambda *step: seen.append(step))
    assert {name: (record["rows"], record["unit"]) for name, record in records.items()} == {
        "agents/hotpotqa/dev-simplified.jsonl.gz": (50, "questions"),
        "agents/hotpotqa/dev-distractor.jsonl.gz": (50, "questions"),
        "agents/react-prompts/prompts_naive.jsonl.gz": (8, "prompts"),
        "agents/fever/paper-dev.jsonl.gz": (99, "claims"),
        "agents/react-prompts/fever.jsonl.gz": (4, "prompts"),
        "agents/react-prompts/alfworld_3prompts.jsonl.gz": (36, "prompts"),
        "agents/alfworld/json_2.1.1/valid_unseen": (4, "games"),
        "agents/react-prompts/webshop.jsonl.gz": (2, "prompts"),
        "agents/webshop/items_human_ins.json": (10136, "products with instructions"),
        "agents/webshop/items_shuffle_1000.json": (1000, "products"),
        "agents/webshop/items_ins_v2_1000.json": (1000, "products with attributes"),
    }
    assert json.loads((tmp_path / "MANIFEST.json").read_text())["files"] == records
    assert records["agents/fever/paper-dev.jsonl.gz"]["origin"] == BY_NAME["fever/paper-dev.jsonl.gz"].addresses[0]
    assert ("hotpot_dev_v1_simplified.json, MB", 0, 0) in seen

    agents = tmp_path / "agents"
    games = {name for name in tree(agents) if name.startswith("alfworld/")}
    assert games == {f"alfworld/{name}" for name in trials(4)}
    assert tree(agents) - games == {name.removeprefix("agents/") for name in records if "json_2" not in name}
    assert read_rows(agents / "hotpotqa/dev-simplified.jsonl.gz")[3] == {
        **{"question": "Is it 3, é?", "answer": "yes", "type": "comparison"}
    }
    assert read_rows(agents / DISTRACTOR)[49]["context"] == {
        **{"title": ["A", "B"], "sentences": [["A is one.", " It is."], ["B is two."]]}
    }
    assert read_rows(agents / "react-prompts/webshop.jsonl.gz") == [
        {"name": "react", "prompt": "Webshop \nAction: click[Buy Now]\n"},
        {"name": "act", "prompt": "b\n"},
    ]

    web.asked.clear()
    assert fetch_agents(AGENTS, tmp_path, web=web, files=FILES) == records
    (tmp_path / "MANIFEST.json").unlink()  # as after a kill between a file and its record
    again = fetch_agents(AGENTS, tmp_path, web=web, files=FILES)
    assert web.asked == []
    assert {record["origin"] for record in again.values()} == {"was in the folder"}


def test_larger_files_come_when_they_are_asked_for(web: StandInWeb, tmp_path: Path) -> None:
    records = fetch_agents(["fever", "webshop"], tmp_path, wiki_pages=True, all_products=True, web=web, files=FILES)
    assert {name: record["rows"] for name, record in records.items() if "react-prompts" not in name} == {
        f"agents/{DISTRACTOR}": 50,
        "agents/fever/paper-dev.jsonl.gz": 99,
        "agents/fever/wiki-pages.zip": 109,
        "agents/webshop/items_human_ins.json": 10136,
        "agents/webshop/items_shuffle.json": 1181436,
        "agents/webshop/items_ins_v2.json": 1,
    }
    assert (tmp_path / "agents/fever/wiki-pages.zip").read_bytes() == CONTENTS["fever/wiki-pages.zip"]


def test_one_that_cannot_be_had_does_not_keep_the_others(web: StandInWeb, tmp_path: Path) -> None:
    file = BY_NAME[DISTRACTOR]
    web.files[file.addresses[0]].cuts += [5000, 0, 0, 0]
    with pytest.raises(XmodelError) as told:
        fetch_agents(["hotpotqa", "fever"], tmp_path, web=web, files=FILES)
    downloads = tmp_path / "agents" / "downloads"
    assert str(told.value) == (
        f"1 of 5 files are missing; run this again, or save with a browser what cannot be downloaded in {downloads} first\n"
        f"{tmp_path / 'agents' / DISTRACTOR}: cannot be downloaded ({file.addresses[0]}: the connection ended after 5,000 of "
        f"{len(CONTENTS[DISTRACTOR]):,} bytes; {file.addresses[1]}: HTTP 404 Not Found)"
    )
    assert len(json.loads((tmp_path / "MANIFEST.json").read_text())["files"]) == 4
    web.files[file.addresses[0]].cuts.clear()
    web.asked.clear()
    fetch_agents(["hotpotqa", "fever"], tmp_path, web=web, files=FILES)
    assert web.asked == [(file.addresses[0], "bytes=5000-")]
    assert not downloads.exists()


def test_what_was_brought_by_hand_is_taken(web: StandInWeb, tmp_path: Path) -> None:
    downloads = tmp_path / "agents" / "downloads"
    downloads.mkdir(parents=True)
    (downloads / "items_human_ins.json").write_bytes(CONTENTS["webshop/items_human_ins.json"])
    (tmp_path / "agents" / "webshop").mkdir()
    (tmp_path / "agents/webshop/items_shuffle_1000.json").write_bytes(CONTENTS["webshop/items_shuffle_1000.json"])
    records = fetch_agents(["webshop"], tmp_path, web=web, files=FILES)
    origins = [records[f"agents/webshop/items_{name}.json"]["origin"] for name in ("human_ins", "shuffle_1000")]
    assert origins == ["downloaded by hand", "was in the folder"]
    assert len(web.asked) == 2
    assert not downloads.exists()


def test_the_page_of_a_file_of_google_drive_is_told(web: StandInWeb, tmp_path: Path) -> None:
    web.files.clear()
    with pytest.raises(
        XmodelError, match=r"items_human_ins\.json: .*HTTP 404.*; in a browser https://drive\.google\.com/file/d/"
    ):
        fetch_agents(["webshop"], tmp_path, web=web, files=FILES)
    assert not (tmp_path / "agents").exists()  # an empty one would be taken for data


def test_the_benchmarks_open_what_was_fetched(web: StandInWeb, tmp_path: Path) -> None:
    files = [file for file in FILES if file.name.startswith(("hotpotqa", "fever"))]
    fetch_agents(["hotpotqa", "fever"], tmp_path, web=web, files=files)
    options = with_folder(MADE_UP, tmp_path)
    hotpotqa = open_benchmark("hotpotqa", options)
    assert (len(hotpotqa.cases), hotpotqa.of) == (50, 7405)
    assert "hotpotqa/dev-distractor.jsonl.gz" in hotpotqa.world
    environment = hotpotqa.open(hotpotqa.cases[0])
    environment.reset()
    assert environment.step("search[B]").observation.startswith("B is two.")
    assert open_benchmark("fever", options).of == 9999


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            DISTRACTOR,
            json.dumps([question(n) for n in range(49)]).encode(),
            "has 49 questions, and the official one 50",
        ),
        (DISTRACTOR, json.dumps([{**question(1), "context": [["A", "B"]]}] * 50).encode(), "row 1: field 'context'"),
        (DISTRACTOR, json.dumps([question(1)] * 3).encode()[:-9], r"is damaged, or in another form .*JSONDecodeError"),
        (DISTRACTOR, b'{"rows": []}', r"is damaged, or in another form than it was \(TypeError"),
        (
            "fever/paper-dev.jsonl.gz",
            b'{"claim": "c", "label": "MAYBE", "evidence": []}',
            "row 1: field 'label' must be",
        ),
        ("react-prompts/fever.jsonl.gz", b"[]", r"is damaged, or in another form than it was \(AttributeError"),
        ("react-prompts/webshop.jsonl.gz", b'{"cells": []}', "has 0 prompts, and the official one 2"),
        (GAMES, zipped(trials(3)), "has 3 games, and the official one 4"),
        (GAMES, zipped(trials(4), b"{}"), r"pick_heat-Mug-0/trial_0/game.tw-pddl is no game"),
        (GAMES, zipped(trials(4))[:-100], "is damaged, or no zip archive"),
        (GAMES, zipped(trials(4)).replace(b"solvable", b"sol?able"), "game.tw-pddl' is damaged"),
        (GAMES, zipped(["json_2.1.1/../../valid_unseen/a/b/game.tw-pddl"]), r"'json_2.1.1/../.*' points out of"),
        (GAMES, zipped(["/etc/valid_unseen/a/b/game.tw-pddl"]), "'/etc/.*' points out of the archive"),
        (GAMES, zipped(["C:/valid_unseen/a/b/game.tw-pddl"]), "'C:/.*' points out of the archive"),
        (GAMES, zipped(["x\\..\\valid_unseen/a/b/game.tw-pddl"]), "points out of the archive"),
        (GAMES, zipped(trials(1), b"/etc/passwd", stat.S_IFLNK), "points out of the archive"),
        (GAMES, zipped(trials(1), b" " * (2**26 + 1)), "is larger than 67,108,864 bytes"),
        ("fever/wiki-pages.zip", zipped(["wiki-pages/wiki-001.jsonl"]), "has 1 files of articles, .* 109"),
        (
            "fever/wiki-pages.zip",
            CONTENTS["fever/wiki-pages.zip"].replace(b"solvable", b"sol?able", 1),
            "its member 'wiki-pages/wiki-001.jsonl' is damaged",
        ),
        ("fever/wiki-pages.zip", spoilt(zipfile.ZIP_DEFLATED), "its member 'wiki-pages/wiki-002.jsonl' is damaged"),
        ("fever/wiki-pages.zip", spoilt(zipfile.ZIP_LZMA), "its member 'wiki-pages/wiki-002.jsonl' is damaged"),
        (GAMES, spoilt(zipfile.ZIP_DEFLATED, trials(4)), "game.tw-pddl' is damaged, or cannot be unpacked"),
    ],
)
def test_a_wrong_file_is_named_and_nothing_of_it_stays(
    web: StandInWeb, tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    file = published(name, content)
    web.files[file.addresses[0]] = Published(content)
    with pytest.raises(XmodelError, match=f"{name}: what https://.* gives .*{told}.*; nothing was kept of it"):
        fetch_agents(AGENTS, tmp_path, wiki_pages=True, web=web, files=[file])
    assert tree(tmp_path) <= {".fetch.lock"}
    by_hand = tmp_path / "agents" / "downloads" / file.original_name
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes(content)
    with pytest.raises(XmodelError, match=rf"downloads/{file.original_name}: .*{told}.*; remove it"):
        fetch_agents(AGENTS, tmp_path, wiki_pages=True, web=web, files=[file])
    assert by_hand.read_bytes() == content


@pytest.mark.parametrize("name", [DISTRACTOR, GAMES, "webshop/items_human_ins.json"])
def test_another_version_is_known_by_its_sha256(web: StandInWeb, tmp_path: Path, name: str) -> None:
    file = next(file for file in FILES if file.name == name)
    web.files[file.addresses[0]].content += b" "
    with pytest.raises(XmodelError, match=r"is damaged, or another version: SHA-256 \w{16}\.\.\., not"):
        fetch_agents(AGENTS, tmp_path, web=web, files=[file])
    assert tree(tmp_path) <= {".fetch.lock"}


@pytest.mark.parametrize("name", [DISTRACTOR, GAMES, "webshop/items_human_ins.json"])
def test_a_changed_file_and_a_strangers_are_left_alone(web: StandInWeb, tmp_path: Path, name: str) -> None:
    files = [file for file in FILES if file.name == name]
    fetch_agents(AGENTS, tmp_path, web=web, files=files)
    target = tmp_path / "agents" / name
    changed = next(target.glob("*/*/*")) if target.is_dir() else target
    changed.write_bytes(b"mine")
    with pytest.raises(XmodelError, match=rf"{name}: is not what `xmodel2 eval fetch` wrote; move it away"):
        fetch_agents(AGENTS, tmp_path, web=web, files=files)
    (tmp_path / "MANIFEST.json").unlink()
    with pytest.raises(XmodelError, match=rf"{name}: was not written by `xmodel2 eval fetch`, and .*; move it away"):
        fetch_agents(AGENTS, tmp_path, web=web, files=files)
    assert changed.read_bytes() == b"mine"


def test_a_file_system_without_links(web: StandInWeb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "hardlink_to", refused)
    fetch_agents(["webshop"], tmp_path, web=web, files=FILES)
    assert (tmp_path / "agents/webshop/items_human_ins.json").read_bytes() == CONTENTS["webshop/items_human_ins.json"]


def test_the_command(
    web: StandInWeb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    defaults = fetch_files.fetch_agents.__kwdefaults__
    monkeypatch.setitem(defaults, "web", web)
    monkeypatch.setitem(defaults, "files", FILES)
    eval_fetch(tmp_path, suite="agents")
    out = capsys.readouterr().out
    assert f"{tmp_path}/agents/alfworld/json_2.1.1/valid_unseen  4 games, " in out
    eval_fetch(tmp_path, tasks="fever", wiki_pages=True, json=True)
    of_fever = (DISTRACTOR, "fever/paper-dev.jsonl.gz", "fever/wiki-pages.zip", "react-prompts/fever.jsonl.gz")
    assert set(json.loads(capsys.readouterr().out)) == {f"agents/{name}" for name in of_fever}
    with pytest.raises(XmodelError, match=r"--wiki-pages is of fever: give --tasks fever, or --suite agents"):
        eval_fetch(tmp_path, tasks="hotpotqa", wiki_pages=True)
    with pytest.raises(XmodelError, match="--all-products is of webshop"):
        eval_fetch(tmp_path, all_products=True)


def test_the_list_is_sound() -> None:
    assert len(BY_NAME) == len(AGENT_FILES)
    assert {name for file in AGENT_FILES for name in file.benchmarks} == set(AGENTS)
    official = {
        "hotpotqa/dev-simplified.jsonl.gz": 7405,
        DISTRACTOR: 7405,
        "fever/paper-dev.jsonl.gz": 9999,
        GAMES: 134,
    }
    assert {name: BY_NAME[name].rows for name in SMALL} == official
    addresses = [address for file in AGENT_FILES for address in file.addresses]
    assert len(set(addresses)) == len(addresses)
    assert all(address.startswith("https://") for address in addresses if "curtis" not in address)
    assert all(not file.sha256 or len(file.sha256) == 64 for file in AGENT_FILES)
    assert all(
        file.name.startswith(("hotpotqa/", "fever/", "alfworld/", "webshop/", "react-prompts/")) for file in AGENT_FILES
    )


@pytest.mark.parametrize("name", [name for name in BY_NAME if (SHARED / name).exists()] or ["none"])
def test_real_files_pass(name: str, tmp_path: Path) -> None:
    """Those at hand; elsewhere the one that is made here stands for them."""
    if name == "none":
        name = "react-prompts/fever.jsonl.gz"
        BY_NAME[name].form.write(_written(tmp_path / "original", prompts(4)), tmp_path / name)
        assert BY_NAME[name].form.count(tmp_path / name) == BY_NAME[name].rows
        return
    assert BY_NAME[name].form.count(SHARED / name) == BY_NAME[name].rows


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_rows_are_packed_the_same_every_time(web: StandInWeb, tmp_path: Path) -> None:
    files = [file for file in FILES if file.name == DISTRACTOR]
    records = [fetch_agents(AGENTS, tmp_path / run, web=web, files=files)[f"agents/{DISTRACTOR}"] for run in "ab"]
    assert records[0] == records[1]
    assert gzip.decompress((tmp_path / "a" / "agents" / DISTRACTOR).read_bytes()).count(b"\n") == 50
