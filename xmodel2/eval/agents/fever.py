"""FEVER (arXiv 1803.05355): claims that articles support or refute, or say too little about; the label must be right.

Claims are those of paper_dev, 9,999. Which of them can be judged depends on the articles that are there: a claim is covered if
all pages of one of its sets of evidence are, or, since one with too little information has no evidence, if an article is there
whose title is a whole name in the claim. Where titles cannot be looked up, in the live Wikipedia, every claim is asked.
5 steps an episode, as ReAct says (arXiv 2210.03629, section 3.2); its notebook has 7, that of HotpotQA's.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.answer_scores import LABELS, label_scores
from xmodel2.eval.agents.article_store import Articles, Titles
from xmodel2.eval.agents.article_titles import clean, unescape_title
from xmodel2.eval.agents.environment import Benchmark, Case
from xmodel2.eval.agents.made_tasks import Hop, MadeEncyclopedia
from xmodel2.eval.agents.options import AgentOptions
from xmodel2.eval.agents.search_benchmark import (
    NOT_CHECKED,
    SearchKind,
    World,
    made_cases,
    make_case,
    needed_articles,
    react_order,
)
from xmodel2.eval.agents.search_environment import SearchTask
from xmodel2.eval.agents.search_players import claim_rule
from xmodel2.eval.mirror import read_rows

FOLDER = "fever"
"""Below the folder of agent data."""
_OFFICIAL = 9999
_OF_LABEL = 3333
_STEP_LIMIT = 5
_EXAMPLES = 3
_INSTRUCTION = """\
Find out whether what is observed SUPPORTS or REFUTES the Claim, or whether there is NOT ENOUGH INFO to tell.
"""


def fever_benchmark(options: AgentOptions, articles: Articles | None = None) -> Benchmark:
    """Return FEVER in the articles that are given or that the options name; made-up claims where there is no data.

    Raises `XmodelError` for data that is missing or damaged, and where no claim can be judged by the articles.
    """
    if options.agents_dir is None:
        return _KIND.benchmark(_KIND.made_world(options), None)
    file = _file(options.agents_dir / FOLDER)
    rows = read_rows(file)
    for number, row in enumerate(rows, 1):
        _check(f"{file}, claim {number}", row)
    articles = articles or needed_articles(options)
    titles = articles if isinstance(articles, Titles) else None
    has = cache(titles.has) if titles else bool
    pages = [_pages(row, titles, has) for row in rows]
    order = react_order(len(rows)) if len(rows) == _OFFICIAL else range(len(rows))
    every = options.uncovered or not titles
    cases = [_case(rows[number], pages[number], number) for number in order if every or pages[number]]
    if not cases:
        raise XmodelError(
            f"{file}: no claim has its evidence among the {articles.description}; name others with --articles, or score every"
            " claim with --uncovered"
        )
    those = NOT_CHECKED
    if titles:
        covered = Counter(row["label"] for row, found in zip(rows, pages, strict=True) if found)
        labels = ", ".join(f"{label} {covered[label]:,} of {_OF_LABEL:,}" for label in LABELS)
        those = f"evidence is there for {labels}" if every else f"those whose evidence is there: {labels}"
    coverage = f"FEVER paper_dev, {len(cases):,} of {_OFFICIAL:,} claims ({those})"
    return _KIND.benchmark(World(cases, _OFFICIAL, articles, coverage), options.agents_dir)


def _case(row: Mapping[str, Any], pages: Sequence[str], number: int) -> Case:
    hops = [Hop(page, None, f"I have read what it says of {page}.", "") for page in pages[: _STEP_LIMIT - 1]]
    task = SearchTask(f"{_KIND.begin}{row['claim'].strip()}", row["label"], tuple(hops))
    return make_case(task, str(number), row["label"])


def _pages(row: Mapping[str, Any], titles: Titles | None, has: Callable[[str], bool]) -> list[str]:
    """Return the titles by which a claim is judged, the fewest that are there and enough; none if they are not there."""
    if row["label"] == "NOT ENOUGH INFO":
        claim = clean(row["claim"])
        names = [title for title in titles.titles_in(claim) if _is_whole(title, claim)] if titles else []
        return sorted(names, key=len)[-1:]
    sets = [list(dict.fromkeys(unescape_title(part[2]) for part in evidence)) for evidence in row["evidence"]]
    return next((pages for pages in sorted(sets, key=len) if all(map(has, pages))), [])


def _is_whole(title: str, claim: str) -> bool:
    """Tell whether a title stands somewhere that it is no part of a longer name, as "Singh" is of "Manmohan Singh"."""
    places = re.finditer(rf"(?<!\w){re.escape(title)}(?!\w)", claim)
    beside = ((*claim[: at.start()].split()[-1:], *claim[at.end() :].split()[:1]) for at in places)
    return any(not any(word[0].isupper() and word != "The" for word in words) for words in beside)


def _check(place: str, row: Mapping[str, Any]) -> None:
    if not isinstance(row.get("claim"), str) or not row["claim"].strip():
        raise XmodelError(f"{place}: field 'claim' must be a text")
    if row.get("label") not in LABELS:
        raise XmodelError(f"{place}: field 'label' must be {', '.join(LABELS[:2])} or {LABELS[2]}")
    if row["label"] == "NOT ENOUGH INFO":
        return
    sets = row.get("evidence")
    parts = [part for evidence in sets for part in evidence] if _lists(sets) and sets else [None]
    if not all(isinstance(part, list) and len(part) > 2 and isinstance(part[2], str) for part in parts):
        raise XmodelError(f"{place}: field 'evidence' must be lists of [annotation, evidence, page, sentence]")


def _lists(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, list) and part for part in value)


def _file(folder: Path) -> Path:
    found = sorted(folder.glob("paper[-_]dev.jsonl*"))
    if not found:
        raise XmodelError(f"{folder / 'paper-dev.jsonl.gz'}: no such file; `xmodel2 eval fetch --suite agents` gets it")
    return found[0]


def _made_cases(made: MadeEncyclopedia) -> tuple[list[Case], list[Case]]:
    scored, shown = (
        made_cases((SearchTask(f"{_KIND.begin}{one.claim}", one.label, one.hops), one.label) for one in claims)
        for claims in (made.claims, made.example_claims[:_EXAMPLES])
    )
    return scored, shown


_KIND = SearchKind(
    name="fever",
    noun="claims",
    step_limit=_STEP_LIMIT,
    begin="Claim: ",
    score=label_scores,
    rule=claim_rule,
    prompts=("fever", "webthink_simple3"),
    instruction=_INSTRUCTION,
    made=_made_cases,
)
