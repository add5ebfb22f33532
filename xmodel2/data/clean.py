"""Cleaning rules as datatrove blocks: documents in, documents out, and an account of what each rule took.

    documents -> language -> gopher_repetition -> gopher_quality -> c4 -> fineweb -> pii -> urls -> documents

Chats pass through the formatters (pii, urls) message by message; the filters look at their whole text.
"""

import dataclasses
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

from datatrove.data import Document as Block
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter, get_filter_result
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.utils.word_tokenizers import WordTokenizer

from xmodel2.data.document import Document, document_text
from xmodel2.errors import XmodelError
from xmodel2.recipe.preparation import CleanSettings, LanguageRule

SAMPLES = 3
_SAMPLE_CHARACTERS = 600
_LANGUAGE_CHARACTERS = 4000
_CHINESE = {"zh", "wuu", "yue", "lzh", "gan", "hak"}  # written alike
# Up to white space or what closes or goes on after it; the last character is no punctuation of the sentence about it.
_URL = re.compile(
    r"(?:https?://|www\.)[^\s<>\"'\])}，。；：！？、（）【】《》]*[^\s<>\"'\])}，。；：！？、（）【】《》.,;:!?]",
    re.IGNORECASE,
)
_MAYBE_IP = re.compile(r"\d\.\d{1,3}\.\d{1,3}\.\d")
_SENTENCE = re.compile(r"[^.!?。！？]*[.!?。！？]+[\"'”’)」』]*|[^.!?。！？]+")


class Words(WordTokenizer):
    """Words as Gopher counted them: what stands between white space, and for Chinese the words that jieba finds.

    Punctuation belongs to the word before it. datatrove's own default (spaCy) makes it a word of its own, which puts a
    quarter of an encyclopedia under Gopher's share of words with a letter, and takes far longer.
    """

    def word_tokenize(self, text: str) -> list[str]:
        """Return words."""
        if self.language != "zh":
            return text.split()
        words: list[str] = []
        for word in _jieba().lcut(text):
            if words and not any(map(str.isalnum, word)):
                words[-1] += word.strip()
            elif not word.isspace():
                words.append(word)
        return words

    def sent_tokenize(self, text: str) -> list[str]:
        """Return sentences."""
        return [sentence for part in _SENTENCE.findall(text) if (sentence := part.strip())]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Return the (start, end) of each sentence."""
        return [match.span() for match in _SENTENCE.finditer(text) if match[0].strip()]


class LanguageFilter(BaseFilter):
    """Keep documents in one of the languages, by a model that is part of the py3langid package."""

    name = "Language"

    def __init__(self, rule: LanguageRule) -> None:
        super().__init__()
        self._rule = rule

    def filter(self, doc: Block) -> bool | tuple[bool, str]:
        """Return whether the document is in an allowed language, otherwise with the one it seems to be in."""
        language, probability = identify_language(doc.text)
        if language in self._rule.allow and probability >= self._rule.min_probability:
            return True
        return False, "unsure" if language in self._rule.allow else language


def identify_language(text: str) -> tuple[str, float]:
    """Return the ISO 639-1 code and its probability, from the text's beginning."""
    language, probability = _identifier().classify(text[:_LANGUAGE_CHARACTERS])
    return "zh" if language in _CHINESE else str(language), float(probability)


class Cleaner:
    """Applies a set of rules to the documents of one source, and keeps account."""

    def __init__(self, settings: CleanSettings, language: str) -> None:
        """Raise `XmodelError` if a rule needs a package that is not installed."""
        self.filters, self.formatters = _blocks(settings, "zh" if language == "zh" else "en")
        self.removed: dict[str, Counter[str]] = {name: Counter() for name in [*self.filters, *self.formatters]}
        """By rule and reason, documents; with the reason "bytes", their bytes."""
        self.changed: dict[str, Counter[str]] = {name: Counter() for name in [*self.filters, *self.formatters]}
        """By rule: documents whose text it changed, and bytes it took."""
        self.samples: dict[str, list[dict[str, str]]] = {name: [] for name in self.filters}

    def clean(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Yield the documents that pass, changed by the formatters."""
        for document in documents:
            if not self._passes(document):
                continue
            size = len(document_text(document).encode())
            for name, change in self.formatters.items():
                if not self._format(name, change, document):
                    self.removed[name].update({"nothing left": 1, "bytes": size})
                    break
            else:
                yield document

    def _passes(self, document: Document) -> bool:
        text = document_text(document)
        for name, block in self.filters.items():
            doc = Block(text=text, id="")
            kept, reason = get_filter_result(block.filter(doc))
            if kept and not doc.text.strip():
                kept, reason = False, "nothing left"
            if not kept:
                self.removed[name][reason or "removed"] += 1
                self.removed[name]["bytes"] += len(text.encode())
                if len(self.samples[name]) < SAMPLES:
                    self.samples[name].append({"reason": reason or "removed", "text": text[:_SAMPLE_CHARACTERS]})
                return False
            if doc.text != text and "text" in document:  # C4 also drops lines
                self._count(name, len(text.encode()) - len(doc.text.encode()))
                text = document["text"] = doc.text
        return True

    def _format(self, name: str, change: Callable[[str], str], document: Document) -> bool:
        """Change the text, or each message and the answer; return whether something is left of each that was not blank."""
        whole = "text" in document
        parts = [(document, "text")] if whole else [(message, "content") for message in document["messages"]]
        taken, changed = 0, False
        for holder, key in parts:
            before, after = holder[key], change(holder[key])
            if before.strip() and not after.strip():
                return False
            changed |= after != before
            taken += len(before.encode()) - len(after.encode())
            holder[key] = after
        if isinstance(answer := document.get("answer"), str) and (known := change(answer)) != answer:
            if not known.strip():  # to say nothing would be right
                return False
            document["answer"] = known.strip()
        if not document_text(document).strip():
            return False
        if changed:
            self._count(name, taken)
        return True

    def _count(self, name: str, taken: int) -> None:
        self.changed[name].update({"documents": 1, "bytes": taken})


def _blocks(settings: CleanSettings, language: str) -> tuple[dict[str, BaseFilter], dict[str, Callable[[str], str]]]:
    words = _words(language)
    kinds = {
        "gopher_repetition": GopherRepetitionFilter,
        "gopher_quality": GopherQualityFilter,
        "c4": C4QualityFilter,
        "fineweb": FineWebQualityFilter,
    }
    filters: dict[str, BaseFilter] = {}
    if settings.language is not None:
        _identifier()
        filters["language"] = LanguageFilter(settings.language)
    for name, kind in kinds.items():
        if (rule := getattr(settings, name)) is not None:
            filters[name] = kind(**_arguments(rule), language=words)
    formatters: dict[str, Callable[[str], str]] = {}
    if settings.pii is not None:
        # One replacement each: datatrove's own go round, so that two equal documents would end up different.
        pii = PIIFormatter(
            **_arguments(settings.pii), email_replacement="email@example.com", ip_replacement="22.214.171.124"
        )
        formatters["pii"] = _by_line(pii.format)
    if (urls := settings.urls) is not None:
        formatters["urls"] = lambda text: _URL.sub(lambda _: urls.replacement, text)
    return filters, formatters


def _by_line(change: Callable[[str], str]) -> Callable[[str], str]:
    """Return a formatter that looks only at lines with an @ or something like an IP address: the same, ten times as fast."""
    return lambda text: "\n".join(
        change(line) if "@" in line or _MAYBE_IP.search(line) else line for line in text.split("\n")
    )


def _arguments(rule: Any) -> dict[str, Any]:
    return {field.name: getattr(rule, field.name) for field in dataclasses.fields(rule)}


@lru_cache(maxsize=2)
def _words(language: str) -> Words:
    # One object a language: datatrove keeps the words of the last documents by text and tokenizer.
    if language == "zh":
        _jieba()
    return Words(language)


@lru_cache(maxsize=1)
def _jieba() -> Any:
    try:
        import jieba
    except ImportError:
        raise XmodelError("clean: rules for Chinese need jieba; install it with: pip install 'xmodel2[data]'") from None
    jieba.setLogLevel(logging.WARNING)
    return jieba


@lru_cache(maxsize=1)
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise XmodelError(
            "clean: the language rule needs py3langid; install it with: pip install 'xmodel2[data]'"
        ) from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
