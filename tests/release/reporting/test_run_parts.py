"""What the report shows of a run besides figures: samples, episodes, environment. All that models and users wrote is text."""

import json
import shutil
from pathlib import Path
from typing import Any

from xmodel2.files import append_json_lines
from xmodel2.release.reporting.agents import agents_section
from xmodel2.release.reporting.environment import environment_section
from xmodel2.release.reporting.recorded import Recorded
from xmodel2.release.reporting.samples import MOST_SHOWN, samples_section

EVIL = "</pre><script>alert(1)</script>\x1b[31m\u202e"


def test_samples_show_how_it_learned(road: Path, tmp_path: Path) -> None:
    section = samples_section(Recorded(road / "run"))
    assert section is not None
    assert "step 12, " in section.body
    assert "step 20, " in section.body
    assert "<b>The function returns</b>" in section.body
    lines = [
        {
            "step": step,
            "tokens": 64 * step,
            "stage": EVIL,
            "kind": "samples",
            "samples": [{"prompt": EVIL, "continuation": EVIL}],
        }
        for step in range(1, 31)
    ]
    append_json_lines(tmp_path / "metrics.jsonl", lines)
    section = samples_section(Recorded(tmp_path))
    assert section is not None
    assert section.body.count("<li>") == MOST_SHOWN
    assert "step 1," in section.body
    assert "step 30," in section.body
    assert "<script" not in section.body
    assert "\x1b" not in section.body
    assert samples_section(Recorded(tmp_path / "none")) is None
    append_json_lines(tmp_path / "metrics.jsonl", [{"step": 31, "tokens": 1, "kind": "samples", "error": EVIL}])
    section = samples_section(Recorded(tmp_path))
    assert section is not None
    assert "step 31: none were taken: &lt;/pre&gt;" in section.body


def test_episodes_of_agents(tmp_path: Path) -> None:
    step = {
        "step": 1,
        "thought": EVIL,
        "action": "search[x]",
        "observation": "y" * 2000,
        "reward": 0.0,
        "done": False,
        "valid": True,
    }
    broken = {**step, "valid": False, "thought": ""}
    episodes = [
        {"id": 0, "doc_id": "a", "prompt": EVIL, "correct": 0, "outcome": "malformed actions", "steps": [broken]},
        {"id": 1, "doc_id": "b", "prompt": "P", "correct": 0, "outcome": "out of steps", "steps": [step] * 20},
        {"id": 2, "doc_id": "c", "prompt": "P", "correct": 1, "outcome": "solved", "steps": [step]},
        {"id": 3, "doc_id": "d", "prompt": "P", "correct": 1, "outcome": "solved", "steps": [step]},
    ]
    common: dict[str, Any] = {"options": None, "target": "", "output": "", "answer": "", "scores": {}}
    items = tmp_path / "evaluation" / "step-7" / "items"
    items.mkdir(parents=True)
    (items / "fever.jsonl").write_text("".join(json.dumps(common | episode) + "\n" for episode in episodes))
    section = agents_section(tmp_path)
    assert section is not None
    assert "fever, c: solved after 1 step<" in section.body
    assert "fever, b: out of steps after 20 steps" in section.body
    assert "8 of its steps are left out" in section.body
    assert "fever, a" not in section.body
    assert "<script" not in section.body
    assert "y" * 601 not in section.body
    assert 'href="evaluation/step-7/items.html"' in section.body
    assert agents_section(tmp_path / "none") is None
    (items / "webshop.jsonl").write_text('{"id": 0, "correct": 0, "steps": [{}]}\n')
    damaged = agents_section(tmp_path)
    assert damaged is not None
    assert "webshop.jsonl, line 1: has no " in damaged.body
    assert section.body in damaged.body


def test_environment_says_what_a_run_was_made_on(road: Path, tmp_path: Path) -> None:
    body = environment_section(road / "run").body
    assert "<td>0</td>" in body
    assert "torch 2." in body
    assert "batch_tokens = " in body
    assert str(road) not in body
    shutil.copy(road / "run" / "recipe.toml", tmp_path / "recipe.toml")
    assert "was not recorded" in environment_section(tmp_path).body
    append_json_lines(tmp_path / "environment.jsonl", [{"step": 0}])
    body = environment_section(tmp_path).body
    assert f"{tmp_path / 'environment.jsonl'}: has no &#x27;xmodel2&#x27;" in body
    assert "batch_tokens = " in body
