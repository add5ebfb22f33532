"""The kinds of text in the published mixtures, and the folders of a corpus that hold each.

Shares of the stable stage are those published for the family (foamliu/Xmodel-2.5; the report gives pies without numbers). Of the
decay's instruction data only its share of the stage is published; its parts here are a choice.
"""

from dataclasses import dataclass

SFT_SHARE = 0.64
"""Share of instruction data in the report's decay."""


@dataclass(frozen=True)
class Kind:
    """One source of the mixtures."""

    folders: tuple[str, ...]
    """Folders of the corpus that hold it; each gives as much text as the others, if it has it."""
    share: float
    """Percent of the stable stage's tokens; of an instruction kind, of the decay's instruction tokens."""
    published: str
    """What the share is made of."""
    language: str = "en"


TEXT = {
    "web": Kind(
        ("web-blogs", "web-peps", "textbooks-openstax", "news-reuters", "speeches-us", "stories-children"),
        45.81,
        "web in English 41.00, Reddit 3.91, Stack Exchange 0.90",
    ),
    "chinese": Kind(("zh-wikipedia", "zh-oi-wiki", "zh-classics", "zh-poetry"), 20.0, "web in Chinese 20.00", "zh"),
    "code": Kind(("code-python", "code-javascript"), 26.5, "StarCoder 26.00, Algebraic Stack 0.50", "code"),
    "mathematics": Kind(
        ("math-stacks", "math-textbooks", "math-word-problems"), 4.68, "peS2o 2.85, arXiv 1.33, OpenWebMath 0.50"
    ),
    "books": Kind(("books-classic",), 1.0, "books 1.00"),
    "encyclopedia": Kind(("wikipedia-en", "britannica-1810", "factbook"), 1.23, "Wikipedia 1.00, MegaWika 0.23"),
    "flan": Kind(("sft-p3",), 0.78, "Tulu-FLAN 0.78"),
}
"""Kinds of the stable stage; `flan` is instruction data as plain text, as in the published mixture."""

INSTRUCTIONS = {
    "general": Kind(
        ("sft-alpaca-en", "sft-alpaca-zh", "sft-gpteacher", "sft-code", "sft-self-instruct-seeds"),
        40.0,
        "instructions of every sort",
    ),
    "chain-of-thought": Kind(("sft-cot", "sft-gsm8k", "sft-math"), 30.0, "answers with their reasons"),
    "reasoning": Kind((), 30.0, "questions with checkable answers, made by reasoning-gym"),
}
"""Kinds of instruction data in the decay; `reasoning` is made, not read."""

ANSWERS_ONLY = "reasoning-answers"
"""`reasoning` without the steps to the answer: the same questions, to see what the steps are worth."""
