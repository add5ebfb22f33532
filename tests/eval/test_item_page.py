"""items.html: all items are in it, nothing that a model wrote can run, and it opens in a browser where there is one."""

import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from xmodel2.errors import XmodelError
from xmodel2.eval.item_page import shared_beginning, write_item_page

Evaluation = Callable[..., Path]
Items = Callable[..., list[dict[str, Any]]]

HOSTILE = "</script><script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">\u2028\x00"


def unpacked(page: str) -> dict[str, Any]:
    blocks = re.findall(r'<script type="text/plain" data-task="([^"]*)">([^<]*)</script>', page)
    return {unescape(task): json.loads(gzip.decompress(base64.b64decode(text))) for task, text in blocks}


def hostile_folder(evaluation: Evaluation, option_items: Items) -> Path:
    items = option_items("AB", "AA", part="algebra")
    generated = {"part": None, "prompt": HOSTILE, "options": None, "target": "x", "output": HOSTILE, "answer": HOSTILE}
    text = [{"id": i, **generated, "scores": {"exact_match": float(i)}, "correct": i} for i in (0, 1)]
    return evaluation("hostile", {"gsm8k": text, "mmlu": items}, model={"name": HOSTILE, "fingerprint": "f"})


def test_every_item_is_in_the_page_and_none_can_run(evaluation: Evaluation, option_items: Items) -> None:
    folder = hostile_folder(evaluation, option_items)
    page = write_item_page(folder).read_text(encoding="utf-8")
    tasks = unpacked(page)
    assert tasks["gsm8k"]["items"][0]["output"] == HOSTILE
    assert [item["id"] for item in tasks["mmlu"]["items"]] == [0, 1]
    assert tasks["mmlu"]["parts"] == ["algebra"]
    # Two blocks of data and one script, whose hash is the only one that the page's policy allows.
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, flags=re.DOTALL)
    assert [bool(attributes) for attributes, _ in scripts] == [True, True, False]
    digest = base64.b64encode(hashlib.sha256(scripts[-1][1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page
    assert "innerHTML" not in scripts[-1][1]
    assert "<img" not in page
    assert not re.search(r"https?://", page)
    assert write_item_page(folder).read_text(encoding="utf-8") == page


def test_a_beginning_that_prompts_share_is_kept_once(evaluation: Evaluation, option_items: Items) -> None:
    examples = "Q: an example\nA: its answer\n\n" * 20
    items = [{**item, "prompt": f"{examples}Q: {item['id']}\nA:"} for item in option_items("ABCD", "AAAA", part="p")]
    task = unpacked(write_item_page(evaluation("few", {"bbh": items})).read_text(encoding="utf-8"))["bbh"]
    assert task["prefixes"] == [examples]
    assert [task["prefixes"][item["prefix"]] + item["prompt"] for item in task["items"]] == [i["prompt"] for i in items]
    assert shared_beginning([examples + "Q: 1"]) == ""
    assert shared_beginning([examples, examples]) == examples


def test_a_folder_without_items_is_said(evaluation: Evaluation) -> None:
    with pytest.raises(XmodelError, match=r"items: no items"):
        write_item_page(evaluation("empty", {}))


def seen_in_a_browser(page: Path, wanted: str, tmp_path: Path) -> str | None:
    """Return the document after its scripts ran, None where there is no browser."""
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
    if browser is None:
        return None
    quiet = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync")
    command = [browser, "--headless", "--no-sandbox", *quiet, f"--user-data-dir={tmp_path / 'browser'}"]
    dump = ("--virtual-time-budget=20000", "--dump-dom", f"{page.as_uri()}#{wanted}")
    return subprocess.run([*command, *dump], capture_output=True, timeout=120, check=True).stdout.decode()


def test_it_opens_in_a_browser(evaluation: Evaluation, option_items: Items, tmp_path: Path) -> None:
    page = write_item_page(hostile_folder(evaluation, option_items))
    assert page.exists()
    seen = seen_in_a_browser(page, "task=gsm8k&show=wrong&order=surest", tmp_path)
    if seen is None:  # what can be seen without one is in the tests above
        return
    assert "1 of 2 items, 0 correct" in seen
    assert seen.count("<article") == 1
    assert "&lt;img src=x onerror=" in seen
    assert "owned</title>" not in seen
    assert re.search(r'<label for="order" hidden', seen)  # nothing tells how sure a text was
    seen = seen_in_a_browser(page, "task=mmlu&order=surest", tmp_path) or ""
    assert '<label for="order">' in seen
    assert re.search(r'<label for="outcome" hidden', seen)


def test_episodes_are_transcripts_to_filter_by_how_they_ended(
    evaluation: Evaluation, episodes: Items, tmp_path: Path
) -> None:
    hostile = f"{HOSTILE}\x1b[2J\u202e\ud800{'x' * 10_000}"
    items = [*episodes(["solved", "malformed actions"]), *episodes(["wrong"], hostile), *episodes(["out of steps"])]
    items[1]["steps"][0]["reward"] = None
    items[3]["steps"] = [{**items[3]["steps"][0], "step": number} for number in range(1, 51)]
    for number, item in enumerate(items):
        item |= {"id": number, "part": ("bridge", "comparison")[number % 2]}
    page = write_item_page(evaluation("agent", {"hotpotqa": items}))
    task = unpacked(page.read_text(encoding="utf-8"))["hotpotqa"]
    assert [item["id"] for item in task["items"]] == [0, 1, 2, 3]  # parts of these are mixed
    assert task["items"][2]["steps"] == items[2]["steps"]
    seen = seen_in_a_browser(page, "task=hotpotqa&outcome=wrong", tmp_path)
    if seen is None:
        return
    assert "1 of 4 items, 0 correct" in seen
    assert '<option value="malformed actions">malformed actions (1)</option>' in seen
    assert "&lt;img src=x onerror=" in seen
    assert "owned</title>" not in seen
    assert r"\u2028\x00\x1b[2J\u202e\ud800xxx" in seen
    assert not set("\x00\x1b\u202e") & set(seen)
    assert re.search(r"<summary>9,\d{3} more characters</summary>", seen)
    assert '<span class="label">thought</span>' in seen
    seen = seen_in_a_browser(page, "task=hotpotqa&show=wrong&part=comparison", tmp_path) or ""
    assert "2 of 4 items" in seen
    assert seen.count('<span class="verdict wrong">invalid</span>') == 1
    assert seen.count("<span>reward 0</span>") == 51  # of 52 steps, one has none
    assert re.search(r'<label for="order" hidden', seen)
    assert "<summary>35 more steps</summary>" in seen
