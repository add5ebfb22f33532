"""Claims about a made-up world, as FEVER has them: true, false, and about what the articles do not say."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from xmodel2.eval.agents.made_prose import Page, called, relations, say
from xmodel2.eval.agents.made_questions import Pages, actions, paths
from xmodel2.eval.agents.made_tasks import Hop, MadeClaim
from xmodel2.eval.agents.made_world import LAST_YEAR, Thing

_MOST_ACTIONS = 5
"""That an episode has, the answer among them."""

_Place = tuple[str, Page, tuple[Hop, ...], str]
"""What a claim can be about: a thing in words, its page, the way there, a relation."""


def claims(pages: Pages, rng: random.Random, each: int) -> list[MadeClaim]:
    """Return claims, ``each`` of every label, in turn; one claim in four is about something to be found out first."""
    near: list[tuple[str, Page, tuple[Hop, ...]]] = [(called(thing), page, ()) for thing, page in pages.items()]
    far = [(path.words, path.page, path.hops) for path in paths(pages, 1)]
    starts = near + rng.sample(far, len(near) // 3)
    places = [(words, page, hops, name) for words, page, hops in starts for name in relations(page.thing.kind)]
    used = Counter[Thing]()
    columns = [
        _labelled(pages, rng, rng.sample(places, len(places)), label, each, used)
        for label in ("NOT ENOUGH INFO", "REFUTES", "SUPPORTS")
    ]
    return [claim for row in zip(*reversed(columns), strict=True) for claim in row]


def _labelled(
    pages: Pages, rng: random.Random, places: Sequence[_Place], label: str, each: int, used: Counter[Thing]
) -> list[MadeClaim]:
    made: dict[str, MadeClaim] = {}
    sorts = Counter[tuple[str, str]]()
    for words, page, hops, name in places:
        thing = page.thing
        if sorts[thing.kind, name] >= 3 or used[thing] >= 1 + (thing.kind in ("town", "country", "river")):
            continue
        claim = _claim(pages, rng, (words, page, hops, name), label)
        if claim is None or actions(claim.hops) > _MOST_ACTIONS:
            continue
        made[claim.claim] = claim
        sorts[thing.kind, name] += 1
        used[thing] += 1
        if len(made) == each:
            break
    return list(made.values())


def _claim(pages: Pages, rng: random.Random, place: _Place, label: str) -> MadeClaim | None:
    words, page, hops, name = place
    kind, value = page.thing.kind, page.thing.facts.get(name)
    hop = page.hops.get(name) if label != "NOT ENOUGH INFO" else _unsaid(page, name)
    back = isinstance(value, Thing) and value.title in [hop.title for hop in hops]
    if hop is None or back or (label == "REFUTES" and relations(kind)[name].get("open")):
        return None
    if label != "SUPPORTS":
        others = list(_others(pages, page.thing, name))
        if not others:
            return None
        value = rng.choice(others)
    claim = f"{say(kind, name, words, value)}."
    if label == "NOT ENOUGH INFO":
        said = f"{claim[0].lower()}{claim[1:]}" if claim.startswith(("The ", "A ", "At ", "Most ")) else claim
        hop = Hop(hop.title, hop.keyword, f"The article does not say whether {said}", "")
    return MadeClaim(claim, label, (*hops, hop))


def _unsaid(page: Page, name: str) -> Hop | None:
    """Return the search for a fact that no article tells; None if one does."""
    relation = relations(page.thing.kind)[name]
    keyword = str(relation["keyword"])
    unsaid = name in page.thing.facts and name not in page.stated and not relation.get("told")
    return Hop(page.thing.title, keyword, "", "") if unsaid and keyword and not page.with_keyword(keyword) else None


def _others(pages: Pages, thing: Thing, name: str) -> Iterator[Any]:
    """Yield false values of a fact that nothing else speaks against: of other things of the kind, years a little later."""
    truth, year = thing.facts[name], thing.facts.get("year", 0)
    if isinstance(truth, int) and 1000 < truth < 2100 and "{v:,}" not in relations(thing.kind)[name]["say"]:
        yield from range(truth + 1, min(truth + 6, LAST_YEAR))
        return
    for other in pages:
        value = other.facts.get(name) if other.kind == thing.kind else None
        if value is None or str(value) == str(truth) or value is thing:
            continue
        if isinstance(value, Thing) and year and value.kind in ("person", "company"):
            since = year - value.facts.get("born", value.facts.get("year", 0))
            if since < (17 if value.kind == "person" else 0) or year > value.facts.get("died", year):
                continue
        yield value
