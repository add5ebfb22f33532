"""What HotpotQA and FEVER have in common: ReAct's order of tasks, their examples, and the made-up encyclopedia."""

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.article_store import Article, Articles, memory_store
from xmodel2.eval.agents.dialogue import Numbered
from xmodel2.eval.agents.environment import Benchmark, Case, Examples
from xmodel2.eval.agents.few_shot import play_example, react_prompts
from xmodel2.eval.agents.made_articles import made_encyclopedia
from xmodel2.eval.agents.made_tasks import MadeEncyclopedia
from xmodel2.eval.agents.open_articles import open_articles
from xmodel2.eval.agents.options import AgentOptions
from xmodel2.eval.agents.planned import Planned
from xmodel2.eval.agents.search_environment import SearchEnvironment, SearchTask
from xmodel2.eval.agents.search_players import oracle, random_searcher

_SEED = 0
"""Of the made-up encyclopedia."""
NOT_CHECKED = "coverage not checked"
"""Of articles whose titles are not looked up before they are searched."""
_SAMPLE_SEED, _SAMPLED = 233, 7405


@dataclass(frozen=True)
class World:
    """Tasks with the articles they are solved in."""

    cases: Sequence[Case]
    of: int | None
    articles: Articles
    coverage: str
    """What part of which tasks this is."""


@dataclass(frozen=True)
class SearchKind:
    """How one of the two is asked and scored."""

    name: str
    step_limit: int
    begin: str
    """What a task begins with, "Question: "."""
    score: Callable[[str, str], dict[str, float]]
    """Of answer and target."""
    rule: Callable[[SearchEnvironment, random.Random], Planned]
    """The scripted player."""
    prompts: tuple[str, str]
    """ReAct's file and the name of the prompt in it."""
    instruction: str
    """In our words. Some prompts of ReAct bring their own."""
    made: Callable[[MadeEncyclopedia], tuple[list[Case], list[Case]]]
    """Those that are scored and those that are examples."""
    noun: str
    """For cases, "questions"."""

    def made_world(self, options: AgentOptions) -> World:
        """Return the made-up tasks. Raises `XmodelError` if articles are named, that say nothing of those."""
        if options.articles:
            raise XmodelError(
                f"--articles {options.articles}: there are only made-up {self.noun}, and it says nothing of them; real ones are"
                " in the folder that --agents-dir names, and `xmodel2 eval fetch --suite agents` gets them"
            )
        made, articles = _made()
        cases, _ = self.made(made)
        return World(cases, None, articles, f"{len(cases):,} made-up {self.noun}")

    def benchmark(self, world: World, agents_dir: Path | None) -> Benchmark:
        """Return the benchmark in a world."""
        examples = self._examples(agents_dir)

        def open_case(case: Case) -> SearchEnvironment:
            return SearchEnvironment(case.data, world.articles, self.score)

        asked = [(case.id, case.task, case.target) for case in world.cases]
        everything = json.dumps([asked, world.articles.fingerprint, asdict(examples), self.step_limit])
        return Benchmark(
            name=self.name,
            metric="exact_match",
            step_limit=self.step_limit,
            dialogue=Numbered(),
            cases=world.cases,
            of=world.of,
            world=f"{world.coverage}; {world.articles.description}",
            fingerprint=hashlib.sha256(everything.encode()).hexdigest(),
            examples=lambda case: examples,
            open=open_case,
            made_up=world.of is None,
            players={"oracle": oracle, "random": random_searcher, "scripted": self.rule},
        )

    def _examples(self, agents_dir: Path | None) -> Examples:
        file, name = self.prompts
        if prompts := react_prompts(agents_dir, file, (name,)):
            first, *trajectories = re.split(f"(?m)^(?={self.begin})", prompts[name])
            if not trajectories:
                raise XmodelError(f"{agents_dir}: {file}'s prompt {name!r} has no line that begins with {self.begin!r}")
            if first.strip():
                return Examples(first, tuple(trajectories), "ReAct")
            return Examples(self.instruction + first, tuple(trajectories), "ReAct, with an instruction of ours")
        made, articles = _made()
        environments = [SearchEnvironment(case.data, articles, self.score) for case in self.made(made)[1]]
        played = [
            play_example(Numbered(), environment, oracle(environment, random.Random(0)), self.step_limit)
            for environment in environments
        ]
        return Examples(self.instruction, tuple(played), "the oracle in the made-up encyclopedia")


@cache
def _made() -> tuple[MadeEncyclopedia, Articles]:
    made = made_encyclopedia(_SEED)
    articles = [Article(article.title, article.text) for article in made.articles]
    return made, memory_store(articles, f"the made-up encyclopedia, seed {_SEED}")


def needed_articles(options: AgentOptions) -> Articles:
    """Return the articles that the options name. Raises `XmodelError` if there are none."""
    articles = open_articles(options)
    if articles is None:
        raise XmodelError(
            f"{options.agents_dir}: no articles to search, neither hotpotqa/*distractor* nor articles/*; `xmodel2 eval fetch"
            " --suite agents` gets some, `xmodel2 eval articles` makes a store of any, and --articles names it"
        )
    return articles


def react_order(tasks: int) -> list[int]:
    """Return numbers of tasks of ReAct's files in the order in which its notebooks play them; the first 500 are its sample.

    Both notebooks shuffle the numbers below 7,405: all of HotpotQA's dev questions, and the first of FEVER's 9,999 claims.
    """
    numbers = list(range(_SAMPLED))
    random.Random(_SAMPLE_SEED).shuffle(numbers)
    return [*numbers, *range(_SAMPLED, tasks)] if tasks >= _SAMPLED else list(range(tasks))


def made_cases(tasks: Iterable[tuple[SearchTask, str]]) -> list[Case]:
    """Return numbered cases of made-up tasks, each with its part."""
    return [make_case(task, f"made-{number}", part) for number, (task, part) in enumerate(tasks)]


def make_case(task: SearchTask, identity: str, part: str) -> Case:
    """Return a case of a task."""
    return Case(identity, task.text, task.target, part, task)
