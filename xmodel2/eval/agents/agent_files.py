"""The files that HotpotQA, FEVER, ALFWorld and WebShop are played with: where they are published, and what is made of them.

Sizes and SHA-256 are those of the originals. Google Drive's file ids are those of WebShop's setup.sh; what stands beside them
is a copy of the same bytes.
"""

import ast
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from xmodel2.eval.agents.alfworld_games import DOWNLOAD
from xmodel2.eval.agents.answer_scores import LABELS
from xmodel2.eval.agents.few_shot import PROMPTS_FOLDER
from xmodel2.eval.agents.file_forms import Form, Games, Rows, Same, SameZip
from xmodel2.eval.download import drive_address
from xmodel2.eval.row_checks import Check, Row, filled, one_of, text

_REACT = "https://raw.githubusercontent.com/ysymyth/ReAct/master"
_HOTPOT = "https://huggingface.co/datasets/RAGLAB/data/resolve/c33b09b7fa5099b89830e84f9bdff78329268d9b/eval_datasets/HotPotQA"
_SHOP = "https://huggingface.co/datasets/YWZBrandon/webshop-data/resolve/ce990fff5aee388db2706f07820c578ab68e0453"


@dataclass(frozen=True)
class AgentFile:
    """One file, or folder, of agent data."""

    benchmarks: tuple[str, ...]
    """That it is of use to."""
    name: str
    """Below OUT/agents."""
    addresses: tuple[str, ...]
    """Each gives the same original; the first that answers is taken."""
    form: Form
    rows: int
    """Of the whole official file."""
    licence: str
    unit: str = "rows"
    """What ``rows`` counts."""
    sha256: str = ""
    """Of the original; "" where its form looks at it."""
    original: str = ""
    """Name of the original; "" for the last part of an address."""
    page: str = ""
    """Where a browser gets it; "" for the addresses."""
    when: Literal["", "wiki_pages", "few_products", "all_products"] = ""
    """Option that it is fetched with; "" for always."""

    @property
    def original_name(self) -> str:
        """Name that a browser saves it under."""
        return self.original or self.addresses[0].rpartition("/")[2]


def _picked(*names: str) -> Callable[[bytes], list[Row]]:
    return lambda content: [{name: row[name] for name in names} for row in json.loads(content)]


def _lines(content: bytes) -> list[Row]:
    return [json.loads(line) for line in content.splitlines() if line.strip()]


def _prompts(content: bytes) -> list[Row]:
    return [{"name": name, "prompt": prompt} for name, prompt in json.loads(content).items()]


def _paragraphs(content: bytes) -> list[Row]:
    """Return the questions with lists as the Hub has them: titles beside sentences, not a pair a paragraph."""
    return [
        {
            "id": row["_id"],
            **{name: row[name] for name in ("question", "answer", "type", "level")},
            "supporting_facts": _columns(row["supporting_facts"], "title", "sent_id"),
            "context": _columns(row["context"], "title", "sentences"),
        }
        for row in json.loads(content)
    ]


def _columns(pairs: list[list[Any]], *names: str) -> dict[str, list[Any]]:
    return {name: [pair[index] for pair in pairs] for index, name in enumerate(names)}


def _notebook_prompts(content: bytes) -> list[Row]:
    """Return the texts of ReAct's notebook of WebShop; its code is read, not run."""
    prompts = []
    for cell in json.loads(content)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code" or not any(f"{name} = " in source for name in _SHOP_PROMPTS):
            continue
        for node in ast.parse(source).body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(prompt))):
                    if name in _SHOP_PROMPTS:
                        prompts.append({"name": _SHOP_PROMPTS[name], "prompt": prompt})
    return prompts


def _paragraphs_there(value: Any, row: Row) -> str | None:
    fits = isinstance(value, dict) and isinstance(value.get("title"), list) and isinstance(value.get("sentences"), list)
    fits = fits and len(value["title"]) == len(value["sentences"]) > 0
    fits = fits and all(
        isinstance(part, list) and all(isinstance(one, str) for one in part) for part in value["sentences"]
    )
    return None if fits else "titles, and as many lists of sentences"


def _evidence(value: Any, row: Row) -> str | None:
    return None if isinstance(value, list) else "a list"


_SHOP_PROMPTS = {"prompt1": "react", "prompt1_actonly": "act"}
"""What the notebook calls them, and what is made of it."""
_QUESTION: dict[str, Check] = {"question": filled, "answer": filled, "type": text}


def _react_prompts(benchmark: str, file: str, rows: int) -> AgentFile:
    name, _, kind = file.rpartition("/")[2].rpartition(".")
    convert = _notebook_prompts if kind == "ipynb" else _prompts
    form = Rows(convert, {"name": filled, "prompt": filled})
    target = f"{PROMPTS_FOLDER}/{name.lower()}.jsonl.gz"
    return AgentFile((benchmark,), target, (f"{_REACT}/{file}",), form, rows, "MIT", unit="prompts")


def _shop_file(
    name: str, drive: str, sha256: str, rows: int, unit: str, when: Literal["", "few_products", "all_products"] = ""
) -> AgentFile:
    addresses = (drive_address(drive), f"{_SHOP}/{name}")
    page = f"https://drive.google.com/file/d/{drive}/view"
    form = Same(sha256, rows)
    return AgentFile(
        ("webshop",), f"webshop/{name}", addresses, form, rows, "MIT", unit, original=name, page=page, when=when
    )


AGENT_FILES = (
    AgentFile(
        ("hotpotqa",),
        "hotpotqa/dev-simplified.jsonl.gz",
        (f"{_REACT}/data/hotpot_dev_v1_simplified.json",),
        Rows(_picked("question", "answer", "type"), _QUESTION),
        7405,
        "CC BY-SA 4.0",
        unit="questions",
    ),
    AgentFile(
        ("hotpotqa", "fever"),
        "hotpotqa/dev-distractor.jsonl.gz",
        # Its authors' host, second here, often does not answer.
        (
            f"{_HOTPOT}/hotpot_dev_distractor_v1.json",
            "http://curtis.ml.cmu.edu/datasets/hotpot/hotpot_dev_distractor_v1.json",
        ),
        Rows(_paragraphs, {"id": filled, **_QUESTION, "context": _paragraphs_there}),
        7405,
        "CC BY-SA 4.0",
        unit="questions",
        sha256="4e9ecb5c8d3b719f624d66b60f8d56bf227f03914f5f0753d6fa1b359d7104ea",
    ),
    _react_prompts("hotpotqa", "prompts/prompts_naive.json", 8),
    AgentFile(
        ("fever",),
        "fever/paper-dev.jsonl.gz",
        (f"{_REACT}/data/paper_dev.jsonl", "https://fever.ai/download/fever/paper_dev.jsonl"),
        Rows(_lines, {"claim": filled, "label": one_of(*LABELS), "evidence": _evidence}),
        9999,
        "CC BY-SA 3.0",
        unit="claims",
    ),
    _react_prompts("fever", "prompts/fever.json", 4),
    AgentFile(
        ("fever",),
        "fever/wiki-pages.zip",
        (
            "https://fever.ai/download/fever/wiki-pages.zip",
            "https://s3-eu-west-1.amazonaws.com/fever.public/wiki-pages.zip",
        ),
        SameZip(r"wiki-pages/wiki-\d+\.jsonl"),
        109,
        "CC BY-SA 3.0",
        unit="files of articles",
        when="wiki_pages",
    ),
    _react_prompts("alfworld", "prompts/alfworld_3prompts.json", 36),
    AgentFile(
        ("alfworld",),
        "alfworld/json_2.1.1/valid_unseen",
        (DOWNLOAD,),
        Games("valid_unseen"),
        134,
        "MIT",
        unit="games",
        sha256="5df77ea759f2211a4106082839ddbbb790f1ba4e7d097ed732cf453f72aa36cf",
    ),
    _react_prompts("webshop", "WebShop.ipynb", 2),
    _shop_file(
        "items_human_ins.json",
        "14Kb5SPBk_jfdLZ_CDBNitW98QLDlKR5O",
        "cf78667548a71786e1d9049c24b802e48e1084ad4bb021cae56ce1f6d96954a3",
        10136,
        "products with instructions",
    ),
    _shop_file(
        "items_shuffle_1000.json",
        "1EgHdxQ_YxqIQlvvq5iKlCrkEKR6-j0Ib",
        "30a4765c3a327af72d9a9a95a6b2486d516f0fa1d3ecd83681901ce82a21b269",
        1000,
        "products",
        "few_products",
    ),
    _shop_file(
        "items_ins_v2_1000.json",
        "1IduG0xl544V_A_jv3tHXC0kyFi7PnyBu",
        "f88a36314a397b53b3d9c3fa5878e5f7b26d35019a51ec83fbedeca61a948f6f",
        1000,
        "products with attributes",
        "few_products",
    ),
    _shop_file(
        "items_shuffle.json",
        "1A2whVgOO0euk5O13n2iYDM0bQRkkRduB",
        "2ef591d65df3af89e972ab72468eb82cbf124d876552d9f3678667edd620a6c8",
        1181436,
        "products",
        "all_products",
    ),
    _shop_file(
        "items_ins_v2.json",
        "1s2j6NgHljiZzQNL3veZaAiyW_qDEgBNi",
        "1d36af476bdb8f82a5da62bd8acdabe54cd8de2fa84010d37da5c4890feb447e",
        1,
        "file",
        "all_products",
    ),
)
"""In the order in which they are fetched."""
