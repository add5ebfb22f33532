"""HotpotQA and FEVER as ReAct plays them: search, look up and answer in an encyclopedia.

    search[Milhouse]      the article's first five sentences, or up to five similar titles if there is none
    lookup[named after]   the article's next sentence with these words: "(Result 1 / 2) ..."
    finish[Richard Nixon] the end

Observations are those of ReAct's `wikienv.py` (ysymyth/ReAct), oddities included: a sentence ends at ". ", so that the last
one of a paragraph gets a second full stop, and a lookup that has run out says so without beginning anew. As in its notebooks
the first letter of an action may be a capital. Different from them, an observation is one line in all cases, what it quotes of
an action is cut, and an empty action is one more invalid action.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from xmodel2.eval.agents.article_store import Articles
from xmodel2.eval.agents.dialogue import shorten
from xmodel2.eval.agents.environment import Turn
from xmodel2.eval.agents.made_tasks import Hop

_SENTENCES_SHOWN = 5


@dataclass(frozen=True)
class SearchTask:
    """A question or a claim with what is hidden from a model."""

    text: str
    """As it is asked, "Question: ..." or "Claim: ..."."""
    target: str
    hops: tuple[Hop, ...]
    """A way to the answer; empty where none is known."""


class SearchEnvironment:
    """One question or claim."""

    def __init__(self, task: SearchTask, articles: Articles, score: Callable[[str, str], dict[str, float]]) -> None:
        """``score`` gets answer and target."""
        self.task, self.articles, self._score = task, articles, score
        self._verbs = {"search": self._search, "lookup": self._look_up, "finish": self._finish, "think": self._think}
        self._unanswered = score("", task.target)["exact_match"]
        self.reset()

    def reset(self) -> str:
        """Forget article and answer, and return the task."""
        self._text = ""
        self._keyword: str | None = None
        self._results: list[str] = []
        self._shown = 0
        self._answer: str | None = None
        return self.task.text

    def step(self, action: str) -> Turn:
        """Search, look up or finish. Raises `XmodelError` if the articles cannot be read."""
        if self._answer is not None:
            return self._end()
        action = action.strip()
        action = action[:1].lower() + action[1:]
        verb, _, rest = action.partition("[")
        if verb not in self._verbs or not rest.endswith("]"):
            return self._turn(f"Invalid action: {_quoted(action)}", valid=False)
        return self._verbs[verb](rest[:-1])

    def scores(self) -> dict[str, float]:
        """Return the metrics of the answer; without one those of an empty answer, as ReAct does."""
        return self._score(self.answer, self.task.target)

    @property
    def answer(self) -> str:
        """What was finished with."""
        return self._answer or ""

    def _search(self, entity: str) -> Turn:
        found = self.articles.find(entity)
        if found.article is None:
            return self._turn(f"Could not find {_quoted(found.entity)}. Similar: {list(found.similar)}.")
        self._text, self._keyword = found.article.text, None
        return self._turn(" ".join(islice(sentences(self._text), _SENTENCES_SHOWN)))

    def _look_up(self, keyword: str) -> Turn:
        if keyword != self._keyword:
            self._keyword, self._shown = keyword, 0
            wanted = keyword.lower()
            self._results = [sentence for sentence in sentences(self._text) if wanted in sentence.lower()]
        if self._shown >= len(self._results):
            return self._turn("No more results.")
        self._shown += 1
        return self._turn(f"(Result {self._shown} / {len(self._results)}) {self._results[self._shown - 1]}")

    def _finish(self, answer: str) -> Turn:
        self._answer = answer
        return self._end()

    def _think(self, thought: str) -> Turn:
        return self._turn("Nice thought.")

    def _end(self) -> Turn:
        reward = self.scores()["exact_match"]
        return Turn(f"Episode finished, reward = {reward:.0f}", reward, done=True)

    def _turn(self, observation: str, valid: bool = True) -> Turn:
        return Turn(observation, self._unanswered, valid=valid)


def sentences(text: str) -> Iterator[str]:
    """Yield an article's sentences as ReAct divides it.

    >>> list(sentences("It opened in 1989. It closed.\\nNobody came."))
    ['It opened in 1989.', 'It closed..', 'Nobody came..']
    """
    for paragraph in text.split("\n"):
        for sentence in paragraph.strip().split(". "):
            if sentence := sentence.strip():
                yield f"{sentence}."


def _quoted(text: str) -> str:
    return shorten(" ".join(text.encode("utf-8", "replace").decode().splitlines()))
