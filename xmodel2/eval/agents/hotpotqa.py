"""HotpotQA (arXiv 1809.09600): questions that need two articles, exact match and F1 of the answer.

Questions are those of the dev set, 7,405, as ReAct has them; `dev-distractor` files add which articles hold the answer.
7 steps an episode: ReAct (arXiv 2210.03629, section 3.2) and its notebook agree.
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.answer_scores import question_scores
from xmodel2.eval.agents.article_store import Articles
from xmodel2.eval.agents.article_titles import clean
from xmodel2.eval.agents.environment import Benchmark, Case
from xmodel2.eval.agents.made_tasks import Hop, MadeEncyclopedia, MadeQuestion
from xmodel2.eval.agents.open_articles import WIKIPEDIA
from xmodel2.eval.agents.options import AgentOptions
from xmodel2.eval.agents.search_benchmark import SearchKind, World, make_case, needed_articles, react_order
from xmodel2.eval.agents.search_environment import SearchTask
from xmodel2.eval.agents.search_players import question_rule
from xmodel2.eval.mirror import read_rows

FOLDER = "hotpotqa"
"""Below the folder of agent data."""
_DISTRACTOR = "*dev*distractor*.json*"
"""Files of questions with ten articles each: `dev-distractor.jsonl.gz`, the authors' `hotpot_dev_distractor_v1.json`."""
_PLAIN = "*dev*simplified*.json*"
"""The file of all questions without articles: `dev-simplified.jsonl.gz`, ReAct's `hotpot_dev_v1_simplified.json`."""
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
    questions = _questions(folder)
    articles = articles or needed_articles(options)
    covered = {
        number
        for number, question in enumerate(questions)
        if question.facts and all(articles.has(title) for title, _ in question.facts)
    }
    every = options.uncovered or options.articles == WIKIPEDIA
    order = react_order(len(questions)) if len(questions) == _OFFICIAL else range(len(questions))
    cases = [_case(questions[number], number) for number in order if every or number in covered]
    if not cases:
        raise XmodelError(
            f"{folder}: no question has its articles among the {articles.description}; name others with --articles, or score"
            " every question with --uncovered"
        )
    those = f"{len(covered):,} of them known to have their articles" if every else "those whose articles are there"
    coverage = f"HotpotQA dev, {len(cases):,} of {_OFFICIAL:,} questions ({those})"
    return _KIND.benchmark(World(cases, _OFFICIAL, articles, coverage), options.agents_dir)


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
    def cases(questions: Sequence[MadeQuestion]) -> list[Case]:
        tasks = [SearchTask(f"{_KIND.begin}{one.question}", one.answer, one.hops) for one in questions]
        return [
            make_case(task, f"made-{n}", one.kind) for n, (one, task) in enumerate(zip(questions, tasks, strict=True))
        ]

    return cases(made.questions), cases(made.example_questions[:_EXAMPLES])


_KIND = SearchKind(
    name="hotpotqa",
    noun="questions",
    step_limit=7,
    begin="Question: ",
    score=question_scores,
    rule=question_rule,
    prompts=("prompts_naive", "webthink_simple6"),
    instruction=_INSTRUCTION,
    made_cases=_made_cases,
)


def _questions(folder: Path) -> list[_Question]:
    """Return all questions, in the order of the plain file where it is there, with what is known of their articles."""
    plain, distractor = sorted(folder.glob(_PLAIN)), sorted(folder.glob(_DISTRACTOR))
    if not plain and not distractor:
        raise XmodelError(
            f"{folder / 'dev-simplified.jsonl.gz'}: no such file; `xmodel2 eval fetch --suite agents` gets it"
        )
    found: dict[str, _Question] = {}
    for file in (*plain[:1], *distractor):
        for number, row in enumerate(_rows(file), 1):
            place = f"{file}, question {number}"
            text, answer, kind = (_text(place, row, field) for field in ("question", "answer", "type"))
            facts = _facts(place, row) if file in distractor else ()
            if facts or text not in found:
                found[text] = _Question(text, answer, kind, facts)
    return list(found.values())


def _rows(file: Path) -> Sequence[Mapping[str, Any]]:
    if ".jsonl" in file.name:
        return read_rows(file)
    try:
        content = file.read_bytes()
        rows = json.loads(gzip.decompress(content) if file.suffix == ".gz" else content)
    except (OSError, EOFError, ValueError) as error:
        raise XmodelError(f"{file}: damaged ({error}); get it again") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise XmodelError(f"{file}: is not a list of questions")
    return rows


def _text(place: str, row: Mapping[str, Any], field: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise XmodelError(f"{place}: field {field!r} must be a text, and is {str(value)[:60]!r}")
    return value.strip()


def _facts(place: str, row: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return supporting titles and sentences; some rows of HotpotQA name a sentence that their article does not have."""
    pairs = dict[str, list[tuple[Any, Any]]]()
    for field, second in (("supporting_facts", "sent_id"), ("context", "sentences")):
        value = row.get(field)
        if isinstance(value, Mapping):
            value = list(zip(value.get("title", ()), value.get(second, ()), strict=False))
        if not isinstance(value, list) or any(not isinstance(pair, (list, tuple)) or len(pair) != 2 for pair in value):
            raise XmodelError(f"{place}: field {field!r} must be pairs of a title and its {second}")
        pairs[field] = [(pair[0], pair[1]) for pair in value]
    context = {str(title): sentences for title, sentences in pairs["context"]}
    return tuple(
        (clean(str(title)), str(context[title][at]).strip() if title in context and at < len(context[title]) else "")
        for title, at in pairs["supporting_facts"]
    )
