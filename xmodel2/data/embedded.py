"""The embedded corpus: real English text and code that every machine with this package already has.

    docs   documentation: the language reference shipped with Python, and docstrings by module
    code   source of the standard library and of the packages that the install brought
    web    descriptions (READMEs) and licences out of the packages' metadata, each kept once

A module gives its docstrings or its source, never both, and a paragraph that stands in several places is kept once over
all sources: otherwise held-out text would also stand in training. Packages that hold benchmark questions are left out.
Nothing is downloaded. For a given environment the documents and their order are always the same.
"""

import ast
import hashlib
import importlib.metadata
import pydoc_data.topics
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

_SKIP = {"test", "tests", "idlelib", "lib2to3", "site-packages", "__pycache__", "encodings", "turtledemo", "ensurepip"}
_BENCHMARKS = {"lm_eval", "reasoning-gym", "reasoning_gym"}
_SMALLEST, _LARGEST, _PARAGRAPH = 200, 30_000, 50


def embedded_corpus(max_bytes: int) -> dict[str, list[str]]:
    """Return documents by source, at most about ``max_bytes`` of UTF-8 each, in an order fixed by their content."""
    seen: set[bytes] = set()
    return {
        "web": _take(_descriptions(), max_bytes, seen),
        "docs": _take(_documentation(), max_bytes, seen),
        "code": _take(_texts(_python_files("code")), max_bytes, seen),
    }


def _take(texts: Iterable[str], max_bytes: int, seen: set[bytes]) -> list[str]:
    """Keep what is new of each text, up to ``max_bytes`` in all, in the order of their hashes."""
    kept: dict[str, str] = {}
    left = max_bytes
    for text in texts:
        if left <= 0:
            break
        if len(text) > _LARGEST:
            continue
        text = _new_paragraphs(text, seen)
        size = len(text.encode("utf-8", errors="ignore"))
        if size >= _SMALLEST:
            kept[hashlib.sha256(text.encode("utf-8", errors="ignore")).hexdigest()] = text
            left -= size
    return [kept[key] for key in sorted(kept)]


def _new_paragraphs(text: str, seen: set[bytes]) -> str:
    """Drop the paragraphs of some length that were seen before."""
    paragraphs = []
    for paragraph in text.split("\n\n"):
        plain = " ".join(paragraph.split()).lower()
        if len(plain) >= _PARAGRAPH:
            digest = hashlib.sha256(plain.encode("utf-8", errors="ignore")).digest()
            if digest in seen:
                continue
            seen.add(digest)
        paragraphs.append(paragraph)
    return "\n\n".join(paragraphs).strip("\n")


def _python_files(source: str) -> Iterator[Path]:
    """Yield the files that belong to ``docs`` or ``code``: the standard library, then distributions by name, each by hash."""
    library = Path(sysconfig.get_path("stdlib"))
    yield from _by_hash(library, library.rglob("*.py"), source)
    for name in sorted({d.metadata["Name"] or "" for d in importlib.metadata.distributions()} - _BENCHMARKS):
        try:
            distribution = importlib.metadata.distribution(name)
        except (importlib.metadata.PackageNotFoundError, ValueError):
            continue
        root = Path(str(distribution.locate_file("")))
        yield from _by_hash(
            root, (root / str(file) for file in distribution.files or [] if file.name.endswith(".py")), source
        )


def _by_hash(root: Path, paths: Iterable[Path], source: str) -> list[Path]:
    kept = []
    for path in paths:
        try:
            inside = path.relative_to(root)
        except ValueError:
            continue
        if not _SKIP & set(inside.parts[:-1]) and not any(part.startswith("test") for part in inside.parts):
            kept.append((hashlib.sha256(inside.as_posix().encode()).hexdigest(), path))
    return [path for key, path in sorted(kept) if (int(key[-1], 16) % 2 == 0) == (source == "docs")]


def _texts(files: Iterable[Path]) -> Iterator[str]:
    for path in files:
        try:
            yield path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue


def _documentation() -> Iterator[str]:
    """Yield the language reference by topic, then each module's docstrings joined."""
    for _, topic in sorted(pydoc_data.topics.topics.items()):
        yield topic.strip()
    for text in _texts(_python_files("docs")):
        yield _docstrings(text)


def _docstrings(source: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):
            return ""
    parts: list[str] = []
    _collect(tree, parts)
    return "\n\n".join(parts)


def _collect(node: ast.AST, parts: list[str]) -> None:
    """Append the docstrings of a module, class or function and of those defined in it."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node)
        if text and len(text) > 80:
            name = getattr(node, "name", "")
            parts.append(f"{name}\n\n{text}" if name else text)
        for inner in node.body:
            _collect(inner, parts)


def _descriptions() -> Iterator[str]:
    """Yield each distribution's long description and licence texts."""
    for distribution in sorted(importlib.metadata.distributions(), key=lambda d: (d.metadata["Name"] or "").lower()):
        if (distribution.metadata["Name"] or "") in _BENCHMARKS:
            continue
        body = distribution.metadata.get_payload() if hasattr(distribution.metadata, "get_payload") else None
        if isinstance(body, str):
            yield body.strip()
        for file in sorted(distribution.files or [], key=str):
            if any(word in file.name.upper() for word in ("LICENSE", "LICENCE", "NOTICE", "COPYING")):
                try:
                    yield Path(str(distribution.locate_file(file))).read_text(encoding="utf-8").strip()
                except (OSError, UnicodeDecodeError):
                    continue
