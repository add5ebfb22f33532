"""What the made-up encyclopedia is made of: articles, questions and claims, and how each is answered."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MadeArticle:
    """One article; a text that says "may refer to:" only lists titles, one a line after the first."""

    title: str
    text: str
    """Sentences that end in ". " or at the end of a line; a line is a paragraph."""


@dataclass(frozen=True)
class Hop:
    """One thing to find out on the way to an answer."""

    title: str
    """Of the article to search, exactly."""
    keyword: str | None
    """To look up, as the fact is not in the first five sentences; the first result has it. None: `search` shows it."""
    fact: str
    """What is found, as a sentence for a thought, such as "The film Halvren was directed by Mirel Tovan."."""
    sentence: str
    """Of the article, where the fact stands, word for word; "" where the article does not say it: a keyword finds nothing."""


@dataclass(frozen=True)
class MadeQuestion:
    """A question of HotpotQA's kind with its only answer."""

    question: str
    answer: str
    kind: str
    """bridge or comparison."""
    hops: tuple[Hop, ...]


@dataclass(frozen=True)
class MadeClaim:
    """A claim of FEVER's kind."""

    claim: str
    label: str
    """SUPPORTS, REFUTES or NOT ENOUGH INFO."""
    hops: tuple[Hop, ...]


@dataclass(frozen=True)
class MadeEncyclopedia:
    """Articles with questions and claims about them."""

    articles: tuple[MadeArticle, ...]
    questions: tuple[MadeQuestion, ...]
    claims: tuple[MadeClaim, ...]
    example_questions: tuple[MadeQuestion, ...]
    """For prompts: about things that no scored question or claim is about."""
    example_claims: tuple[MadeClaim, ...]
