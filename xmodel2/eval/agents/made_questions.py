"""Questions about a made-up world, as HotpotQA has them: along facts from article to article, or between two things."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, zip_longest
from typing import Any

from xmodel2.eval.agents.made_names import correct
from xmodel2.eval.agents.made_prose import Page, called, relations, written
from xmodel2.eval.agents.made_tasks import Hop, MadeQuestion
from xmodel2.eval.agents.made_world import Thing

Pages = Mapping[Thing, Page]

_MOST_ACTIONS = 6
"""Of the seven that an episode has: searches, look-ups and the answer."""

_COMPARED = 40
"""Things of a kind that are compared with each other."""


@dataclass(frozen=True)
class Path:
    """From a thing along facts to the page of another: "the town where the director of the film Halve was born"."""

    words: str
    page: Page
    hops: tuple[Hop, ...]
    relations: tuple[str, ...]
    things: tuple[Thing, ...]


def paths(pages: Pages, most: int) -> Iterator[Path]:
    """Yield every path of one to ``most`` facts, each with a hop of its own."""
    found = [Path(called(thing), page, (), (), (thing,)) for thing, page in pages.items()]
    for _ in range(most):
        found = [longer for path in found for longer in _longer(pages, path)]
        yield from found


def _longer(pages: Pages, path: Path) -> Iterator[Path]:
    kind = path.page.thing.kind
    for name, relation in relations(kind).items():
        hop = path.page.hops.get(name) if "noun" in relation else None
        if hop is not None and (thing := path.page.thing.facts[name]) not in path.things:
            words = str(relation["noun"]).format(x=path.words)
            yield Path(
                words, pages[thing], (*path.hops, hop), (*path.relations, f"{kind}.{name}"), (*path.things, thing)
            )


def actions(hops: Sequence[Hop]) -> int:
    """Return how many actions an episode takes: a search or look-up each, both where a keyword is needed, the answer."""
    return 1 + sum(1 + (hop.keyword is not None) for hop in hops)


def bridge_questions(pages: Pages, rng: random.Random, two: int, three: int) -> list[MadeQuestion]:
    """Return questions of two and of three articles, of many kinds."""
    candidates: list[tuple[Path, str, Hop]] = []
    for path in paths(pages, 2):
        for name, relation in relations(path.page.thing.kind).items():
            hop = path.page.hops.get(name) if "ask" in relation else None
            if hop is not None and actions((*path.hops, hop)) <= _MOST_ACTIONS:
                candidates.append((path, name, hop))
    rng.shuffle(candidates)
    wanted, used, questions = {1: two, 2: three}, Counter[Any](), []
    for path, name, hop in candidates:
        thing, length = path.page.thing, len(path.hops)
        keys = (path.relations, name), f"{thing.kind}.{name}", path.things[0]
        often = any(used[key] >= most for key, most in zip(keys, (2, 5, 2), strict=True))
        if often or not wanted[length] or thing.facts[name] in path.things:
            continue
        question = rng.choice(relations(thing.kind)[name]["ask"]).format(x=path.words)
        answer = written(thing.kind, name, thing.facts[name])
        if not any(name in question for name in (answer, *map(str, path.things[1:]))):
            used.update(keys)
            wanted[length] -= 1
            questions.append(MadeQuestion(correct(question), answer, "bridge", (*path.hops, hop)))
    return questions


def comparison_questions(pages: Pages, rng: random.Random, which: int, same: int) -> list[MadeQuestion]:
    """Return questions about two things of a kind: which has more, and whether something is the same (half are so)."""
    kinds: dict[str, list[Page]] = {}
    for page in pages.values():
        kinds.setdefault(page.thing.kind, []).append(page)
    questions = []
    for forms, equal, wanted in (
        (("more", "less"), False, which),
        (("same",), True, same // 2),
        (("same",), False, same // 2),
    ):
        sources = [
            _comparisons(rng.sample(kinds[kind], min(len(kinds[kind]), _COMPARED)), rng, name, form, equal)
            for kind in kinds
            for name, relation in relations(kind).items()
            for form in forms
            if form in relation
        ]
        rng.shuffle(sources)
        questions += list(islice(_in_turn(sources), wanted))
    return questions


def _comparisons(
    pages: Sequence[Page], rng: random.Random, name: str, form: str, equal: bool
) -> Iterator[MadeQuestion]:
    """Yield the questions of one form whose two things have, or do not have, the same."""
    pairs = list(combinations([page for page in pages if name in page.hops], 2))
    rng.shuffle(pairs)
    for one, other in pairs:
        a, b = one.thing.facts[name], other.thing.facts[name]
        if (a == b) == equal:
            winner = one.thing if form != "same" and (a > b) == (form == "more") else other.thing
            answer = str(winner) if form != "same" else "yes" if equal else "no"
            names = [called(page.thing) if page.thing.kind == "person" else page.thing.name for page in (one, other)]
            question = str(relations(one.thing.kind)[name][form]).format(a=names[0], b=names[1])
            yield MadeQuestion(question, answer, "comparison", (one.hops[name], other.hops[name]))


def _in_turn(sources: Sequence[Iterator[MadeQuestion]]) -> Iterator[MadeQuestion]:
    for row in zip_longest(*sources):
        yield from (question for question in row if question is not None)
