"""The made-up encyclopedia: the world of HotpotQA and FEVER where their articles are not there."""

import random

from xmodel2.eval.agents.made_claims import claims
from xmodel2.eval.agents.made_names import Names
from xmodel2.eval.agents.made_prose import Page, disambiguation, read_words, write_page
from xmodel2.eval.agents.made_questions import bridge_questions, comparison_questions
from xmodel2.eval.agents.made_tasks import MadeArticle, MadeEncyclopedia, MadeQuestion
from xmodel2.eval.agents.made_world import Region, Thing


def made_encyclopedia(seed: int = 0) -> MadeEncyclopedia:
    """Return the encyclopedia of a seed: the same on every machine.

    Its examples are about two countries that the rest has nothing to do with.
    """
    rng = random.Random(seed)
    words = read_words("made_words.toml")
    names = Names(rng, words["words"])
    regions = [Region(rng, names, words, words["sounds"], size) for size in (6, 1)]
    pages, examples = ({thing: write_page(thing, rng) for thing in region.things} for region in regions)
    questions = bridge_questions(pages, rng, 150, 42) + comparison_questions(pages, rng, 32, 16)
    rng.shuffle(questions)
    return MadeEncyclopedia(
        articles=_articles(pages | examples),
        questions=tuple(questions),
        claims=tuple(claims(pages, rng, 80)),
        example_questions=_examples(examples, rng),
        example_claims=tuple(claims(examples, rng, 2)),
    )


def _examples(pages: dict[Thing, Page], rng: random.Random) -> tuple[MadeQuestion, ...]:
    """Return eight questions that show all that is to be done: three go by a look-up, and three compare."""
    bridge = bridge_questions(pages, rng, 9, 6)
    looked = [question for question in bridge if any(hop.keyword for hop in question.hops)]
    plain = [question for question in bridge if question not in looked]
    questions = looked[:3] + plain[:2] + comparison_questions(pages, rng, 1, 2)
    rng.shuffle(questions)
    return tuple(questions)


def _articles(pages: dict[Thing, Page]) -> tuple[MadeArticle, ...]:
    names: dict[str, list[Thing]] = {}
    for thing in pages:
        names.setdefault(thing.name, []).append(thing)
    shared = [disambiguation(name, things) for name, things in names.items() if len(things) > 1]
    return tuple(sorted([page.article for page in pages.values()] + shared, key=lambda article: article.title))
