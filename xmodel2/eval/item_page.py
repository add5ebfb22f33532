"""items.html: every question of an evaluation with the model's answer, or every step of it, to browse, filter and search.

    items/TASK.jsonl --beginnings that many prompts share, once--> JSON --> gzip --> base64 in the page --item_page.js--> cards

One file, no network. What a model wrote is hostile: base64 cannot end a script element, the script sets text only and writes
out characters that cannot be seen, and the page's policy runs no other script.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from xmodel2.eval.result_files import item_tasks, read_items, read_results
from xmodel2.files import write_text_atomic
from xmodel2.page import page, printable

ITEM_PAGE = "items.html"
_SHARED = 400  # characters from which a shared beginning, such as few-shot examples, is worth setting apart
_SCRIPT = Path(__file__).with_name("item_page.js")

_STYLE = """
form { display: flex; flex-wrap: wrap; gap: .8rem; align-items: end; position: sticky; top: 0; background: var(--back);
  padding: .6rem 0; border-bottom: 1px solid var(--line); z-index: 1; }
label { display: block; font-size: .85rem; color: var(--soft); } label[hidden] { display: none; } label[for=q] { flex: 1 1 12rem; }
select, input, button { font: inherit; display: block; color: var(--ink); background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; padding: .25rem .5rem; height: 2.2rem; box-sizing: border-box; max-width: 22rem; }
label input { width: 100%; max-width: none; } #id { width: 6rem; }
.pages { display: flex; gap: .8rem; align-items: center; margin: .8rem 0; }
#list { scroll-margin-top: 6rem; }
article h2 { font-size: 1.05rem; margin: 0 0 .5rem; border: 0; overflow-wrap: anywhere; } article section { margin: .6rem 0; }
article h2 small { color: var(--soft); font-weight: normal; }
.verdict { display: inline-block; border-radius: 4px; padding: 0 .4rem; color: #fff; background: #57606a; font-size: .85rem; }
.verdict.correct { background: #1a7f37; } .verdict.wrong { background: #b3261e; }
article pre { max-height: 22rem; overflow: auto; unicode-bidi: isolate; border-left: 3px solid var(--line); padding-left: .7rem; }
article .option { text-align: left; white-space: pre-wrap; unicode-bidi: isolate; overflow-wrap: anywhere; }
article table { width: 100%; margin: 0; table-layout: fixed; } th.mark { width: 7rem; } th.nats, th.share { width: 5.5rem; }
tr.right { background: color-mix(in srgb, #2da44e 22%, transparent); } tr.chosen td.option { font-weight: 600; }
.steps { list-style: none; margin: 0; padding: 0; }
.step { display: grid; grid-template-columns: 6rem minmax(0, 1fr); gap: .2rem .8rem; padding: .5rem .7rem;
  border-left: 3px solid var(--line); border-bottom: 1px solid var(--line); }
.step.invalid { border-left-color: #d1242f; background: color-mix(in srgb, #d1242f 9%, transparent); }
.step h3 { grid-column: 1 / -1; display: flex; flex-wrap: wrap; gap: .2rem .9rem; text-transform: none; letter-spacing: 0; }
.step .label { color: var(--soft); font-size: .85rem; } .step pre { border: 0; padding: 0; } .step .action pre { font-weight: 600; }
.step .thought pre { font-family: inherit; font-style: italic; } .step > div > pre { max-height: none; }
@media (max-width: 40rem) { .step { grid-template-columns: minmax(0, 1fr); } form { position: static; } }
.scores { color: var(--soft); margin: .4rem 0 0; overflow-wrap: anywhere; }
"""


def write_item_page(folder: Path) -> Path:
    """Write items.html into an evaluation's folder and return its path. Raises `XmodelError` if no items were kept."""
    results = read_results(folder)
    tasks = item_tasks(folder)
    blocks = "\n".join(_block(task, read_items(folder, task)) for task in tasks)
    options = "".join(_option(task, results["tasks"][task]) for task in tasks)
    name = printable(str(results["model"]["name"]))
    script = _SCRIPT.read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'"
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}"><style>{_STYLE}</style>'
    body = f"""<h1>Items: {escape(name)}</h1>
{_form(options)}
<p id="count" role="status"></p>
<noscript><p>This page needs scripts: it unpacks its items itself. The same items are in items/TASK.jsonl.</p></noscript>
{_pages("top")}<div id="list"></div>{_pages("bottom")}
{blocks}
<script>{script}</script>"""
    out = folder / ITEM_PAGE
    write_text_atomic(out, page(f"Items: {name}", body, head))
    return out


def _block(task: str, items: Sequence[dict[str, Any]]) -> str:
    """Return what item_page.js unpacks: {"prefixes", "parts", "items"}."""
    prefixes: list[str] = []
    kept: list[dict[str, Any]] = []
    parts = list(dict.fromkeys(item.get("part") for item in items))
    for part in parts:
        of_part = [item for item in items if item.get("part") == part]
        prefix = shared_beginning([item["prompt"] for item in of_part])
        if prefix:
            of_part = [{**item, "prompt": item["prompt"][len(prefix) :], "prefix": len(prefixes)} for item in of_part]
            prefixes.append(prefix)
        kept += of_part
    kept.sort(key=lambda item: item["id"])
    data = {"prefixes": prefixes, "parts": [part for part in parts if part is not None], "items": kept}
    # Level 9 takes twice the time of 6 for a hundredth less.
    packed = gzip.compress(json.dumps(data, separators=(",", ":")).encode(), compresslevel=6, mtime=0)
    return f'<script type="text/plain" data-task="{escape(task)}">{base64.b64encode(packed).decode()}</script>'


def shared_beginning(prompts: Sequence[str]) -> str:
    """Return what all prompts begin with, up to a blank line; empty if it is short, or there is only one prompt.

    >>> shared_beginning(["Q: 1\\n\\nQ: 2", "Q: 1\\n\\nQ: 3"])
    ''
    """
    if len(prompts) < 2:
        return ""
    first, last = min(prompts), max(prompts)  # what these two share, all between them share
    differs = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    end = first.rfind("\n\n", 0, differs) + 2
    return first[:end] if end >= _SHARED else ""


def _option(task: str, result: dict[str, Any]) -> str:
    label = f"{task}: {result['metric']} {result['score']:.4g}, {result['items']:,} items"
    return f'<option value="{escape(task)}">{escape(label)}</option>'


def _form(tasks: str) -> str:
    return f"""<form id="filters" autocomplete="off">
<label for="task">task<select id="task" name="task">{tasks}</select></label>
<label for="part">part<select id="part" name="part"><option value="">all parts</option></select></label>
<label for="show">show<select id="show" name="show"><option value="">all</option><option>correct</option><option>wrong</option>
<option value="neither">neither</option></select></label>
<label for="outcome" hidden>outcome<select id="outcome" name="outcome"><option value="">all outcomes</option></select></label>
<label for="order">order<select id="order" name="order"><option value="">by number</option>
<option value="surest">surest first</option><option value="least sure">least sure first</option></select></label>
<label for="q">search<input id="q" name="q" type="search"
placeholder="in prompt, options, steps, output, answer"></label>
<label for="id">number<input id="id" name="id" inputmode="numeric"></label>
</form>"""


def _pages(where: str) -> str:
    return (
        f'<nav class="pages" aria-label="pages, {where}"><button type="button">previous</button><span></span>'
        f'<button type="button">next</button></nav>'
    )
