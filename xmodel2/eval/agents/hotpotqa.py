"""HotpotQA (arXiv 1809.09600): questions that need two articles, exact match and F1 of the answer.

Questions are those of the dev set, 7,405, as ReAct has them; `dev-distractor` files add which articles hold the answer.
7 steps an episode: ReAct (arXiv 2210.03629, section 3.2) and its notebook agree.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.answer_scores import question_scores
from xmodel2.eval.agents.article_store import Articles, Titles
from xmodel2.eval.agents.article_titles import clean
from xmodel2.eval.agents.environment import Benchmark, Case
from xmodel2.eval.agents.hotpotqa_rows import titled
from xmodel2.eval.agents.made_tasks import Hop, MadeEncyclopedia
from xmodel2.eval.agents.options import AgentOptions
from xmodel2.eval.agents.packed_rows import packed_rows
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
from xmodel2.eval.agents.search_players import question_rule

FOLDER = "hotpotqa"
"""Below the folder of agent data."""
_DISTRACTOR = "*dev*distractor*.json*"
"""Files of questions with ten articles each: `dev-distractor.jsonl.gz`, the authors' `hotpot_dev_distractor_v1.json`."""
_PLAIN = "*dev*simplified*.json*"
"""ReAct's file of all questions, without articles: `dev-simplified.jsonl.gz`, or `hotpot_dev_v1_simplified.json` itself."""
_OFFICIAL = 7405
_EXAMPLES = 6
_INSTRUCTION = """\
Answer a question by writing a Thought, an Action and what is observed, in turn. A Thought says what is known and what to do \
next. There are three kinds of Action:
(1) Search[title] opens the Wikipedia article with this title and shows how it begins, or suggests similar titles if there is none.
(2) Lookup[words] shows the next sentence with these words in the article that is open.
(3) Finish[answer] answers the question and ends the task.
Examples follow.
"""


@dataclass(frozen=True)
class _Question:
    text: str
    answer: str
    kind: str
    facts: tuple[tuple[str, str], ...] = ()
    """Titles of articles and sentences in them that the answer follows from; none are known of questions without articles."""


def hotpotqa_benchmark(options: AgentOptions, articles: Articles | None = None) -> Benchmark:
    """Return HotpotQA in the articles that are given or that the options name; made-up questions where there is no data.

    Raises `XmodelError` for data that is missing or damaged, and where no question can be answered from the articles.
    """
    if options.agents_dir is None:
        return _KIND.benchmark(_KIND.made_world(options), None)
    folder = options.agents_dir / FOLDER
    questions, numbered_as_react = _questions(folder)
    articles = articles or needed_articles(options)
    covered, those = set[int](), NOT_CHECKED
    if isinstance(articles, Titles):
        covered = {number for number, question in enumerate(questions) if _is_covered(question, articles)}
        known = f"{len(covered):,} of them known to have their articles"
        those = known if options.uncovered else "those whose articles are there"
    every = options.uncovered or not isinstance(articles, Titles)
    order = react_order(len(questions)) if numbered_as_react else range(len(questions))
    cases = [_case(questions[number], number) for number in order if every or number in covered]
    if not cases:
        raise XmodelError(
            f"{folder}: no question has its articles among the {articles.description}; name others with --articles, or score"
            " every question with --uncovered"
        )
    coverage = f"HotpotQA dev, {len(cases):,} of {_OFFICIAL:,} questions ({those})"
    return _KIND.benchmark(World(cases, _OFFICIAL, articles, coverage), options.agents_dir)


def _is_covered(question: _Question, articles: Titles) -> bool:
    return bool(question.facts) and all(articles.has(title) for title, _ in question.facts)


def _case(question: _Question, number: int) -> Case:
    task = SearchTask(f"{_KIND.begin}{question.text}", question.answer, _hops(question))
    return make_case(task, str(number), question.kind)


def _hops(question: _Question) -> tuple[Hop, ...]:
    """Return one hop an article: those that the question names first, those that say the answer last."""
    by_title: dict[str, str] = {}
    for title, sentence in question.facts:
        if title not in by_title or (question.answer in sentence and question.answer not in by_title[title]):
            by_title[title] = sentence
    asked = question.text.lower()
    order = sorted(
        by_title, key=lambda title: (title.partition(" (")[0].lower() not in asked, question.answer in by_title[title])
    )
    return tuple(Hop(title, None, by_title[title], by_title[title]) for title in order)


def _made_cases(made: MadeEncyclopedia) -> tuple[list[Case], list[Case]]:
    scored, shown = (
        made_cases((SearchTask(f"{_KIND.begin}{one.question}", one.answer, one.hops), one.kind) for one in questions)
        for questions in (made.questions, made.example_questions[:_EXAMPLES])
    )
    return scored, shown


_KIND = SearchKind(
    name="hotpotqa",
    noun="questions",
    step_limit=7,
    begin="Question: ",
    score=question_scores,
    rule=question_rule,
    prompts=("prompts_naive", "webthink_simple6"),
    instruction=_INSTRUCTION,
    made=_made_cases,
)


def _questions(folder: Path) -> tuple[list[_Question], bool]:
    """Return all questions with what is known of their articles, and whether their numbers are those of ReAct's file.

    They are where that file is there, whole; a distractor file's order may be another.
    """
    plain, distractor = sorted(folder.glob(_PLAIN)), sorted(folder.glob(_DISTRACTOR))
    if not plain and not distractor:
        raise XmodelError(
            f"{folder / 'dev-simplified.jsonl.gz'}: no such file; `xmodel2 eval fetch --suite agents` gets it"
        )
    found: dict[str, _Question] = {}
    for file in (*plain[:1], *distractor):
        for place, row in packed_rows(file):
            try:
                question = _question(row, file in distractor)
            except ValueError as error:
                raise XmodelError(f"{place}: {error}") from None
            if question.facts or question.text not in found:
                found[question.text] = question
    return list(found.values()), bool(plain) and len(found) == _OFFICIAL


def _question(row: Any, with_facts: bool) -> _Question:
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    text, answer, kind = (_text(row, field) for field in ("question", "answer", "type"))
    return _Question(text, answer, kind, _facts(row) if with_facts else ())


def _text(row: Mapping[str, Any], field: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"field {field!r} must be a text, and is {str(value)[:60]!r}")
    return value.strip()


def _facts(row: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return supporting titles and sentences; some rows of HotpotQA name a sentence that their article does not have."""
    context = dict(titled(row.get("context"), "context", "sentences"))
    facts = titled(row.get("supporting_facts"), "supporting_facts", "sent_id")
    return tuple((clean(title), _sentence(context.get(title), at)) for title, at in facts)


def _sentence(sentences: Any, at: Any) -> str:
    if not isinstance(sentences, list | None) or not isinstance(at, int):
        raise ValueError("'sentences' must be lists, and 'sent_id' numbers of theirs")
    return str(sentences[at]).strip() if sentences and 0 <= at < len(sentences) else ""
