"""Titles and words compared without case, accents, underscores and extra space, as Wikipedia's search box compares them."""

import html
import re
import unicodedata

_ESCAPES = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}", "-COLON-": ":"}
_ESCAPED = re.compile("|".join(_ESCAPES))
_ALIKE = str.maketrans("‘’ʼ`“”‐‑‒–—−_", "''''\"\"------ ")
_WORD = re.compile(r"[^\W_]+")
_LONGEST_TITLE = 255
"""Characters; Wikipedia's are at most 255 bytes."""
_WORDS = 32
"""Of a query; the rest is not looked for."""


def unescape_title(title: str) -> str:
    """Return a title of FEVER as Wikipedia has it.

    >>> unescape_title("Soul_Food_-LRB-film-RRB-")
    'Soul Food (film)'
    """
    return unicodedata.normalize("NFC", _ESCAPED.sub(lambda found: _ESCAPES[found[0]], title).replace("_", " "))


def unescape_text(text: str) -> str:
    """Return a text of FEVER, in which brackets are words, with brackets.

    >>> unescape_text("A film -LRB- of 1997 -RRB- .")
    'A film (of 1997) .'
    """
    return re.sub(r"([(\[{]) | ([)\]}])", r"\1\2", _ESCAPED.sub(lambda found: _ESCAPES[found[0]], text))


def clean(text: str) -> str:
    """Return what a model wrote, or a file holds, as a title may be: valid Unicode, one space between words.

    >>> clean(" Simon_&amp;_Garfunkel ")
    'Simon & Garfunkel'
    """
    text = text[: 8 * _LONGEST_TITLE].encode("utf-8", "replace").decode("utf-8").replace("\0", " ")
    return " ".join(html.unescape(text).replace("_", " ").split())


def title_key(title: str) -> str:
    """Return what titles that are taken for the same have in common; "" for what is too long to be a title.

    >>> title_key("Beyoncé_Knowles–Carter")
    'beyonce knowles-carter'
    """
    plain = _plain(clean(title).translate(_ALIKE))
    return plain if len(plain) <= 2 * _LONGEST_TITLE else ""


def query_words(text: str) -> list[str]:
    """Return the different words of a query as the index has them, at most 32.

    >>> query_words('The "Café" NEAR(the, x*)')
    ['the', 'cafe', 'near', 'x']
    """
    return list(dict.fromkeys(_WORD.findall(_plain(clean(text)))))[:_WORDS]


def _plain(text: str) -> str:
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFC", "".join(c for c in decomposed if not unicodedata.combining(c))).casefold()


def title_spans(text: str, longest: int = 12) -> list[str]:
    """Return every run of up to ``longest`` words that begins with a capital or a digit: titles may be among them.

    >>> title_spans("Is Ed Wood dead?", 2)
    ['Is Ed', 'Is', 'Ed Wood', 'Ed', 'Wood dead?', 'Wood dead', 'Wood']
    """
    text = clean(text)
    words = list(re.finditer(r"\w(?:[\w.'’&-]*\w)?", text))
    spans = []
    for at, first in enumerate(words):
        if first[0][0].isupper() or first[0][0].isdigit():
            for last in reversed(words[at : at + longest]):
                spans += [text[first.start() : end] for end in _ends(text, last.end())]
    return list(dict.fromkeys(spans))


def _ends(text: str, end: int) -> list[int]:
    """A title may end in a bracket or a mark, as "Soul Food (film)" and "Jeopardy!" do."""
    marks = re.compile(r"[)!?.]*").match(text, end)
    return list(range(marks.end() if marks else end, end - 1, -1))
