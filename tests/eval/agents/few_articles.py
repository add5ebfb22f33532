"""A dozen articles in memory, found by their exact title: what a search answers can be foretold."""

from collections.abc import Mapping

from xmodel2.eval.agents.article_store import Article, Found


class Unlisted:
    """`Articles` of titles and texts that cannot be looked up; similar is every title that shares a word, or else every title."""

    description, fingerprint = "few articles", "few"

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def find(self, entity: str) -> Found:
        """Return the article, or similar titles; a page of meanings is searched again in brackets, as ReAct does."""
        if entity not in self._texts:
            words = set(entity.lower().replace("[", " ").replace("]", " ").split())
            similar = [title for title in self._texts if words & set(title.lower().split())] or list(self._texts)
            return Found(entity, similar=tuple(similar[:5]))
        if "may refer to:" in self._texts[entity]:
            return self.find(f"[{entity}]")
        return Found(entity, Article(entity, self._texts[entity]))


class FewArticles(Unlisted):
    """The same, and `Titles`."""

    def has(self, title: str) -> bool:
        """Tell whether it is there."""
        return title in self._texts

    def titles_in(self, text: str) -> list[str]:
        """Return the titles in a text."""
        return [title for title in self._texts if title in text]
