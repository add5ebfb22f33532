"""A recipe with its explanations: the same recipe, every key of it, and the page that shows the defaults."""

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest

from xmodel2.recipe import Recipe, load_recipe, recipe_explained, recipe_from_dict

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("file", [None, *sorted((ROOT / "recipes").glob("*.toml"))], ids=str)
def test_it_is_the_same_recipe(file: Path | None) -> None:
    recipe = load_recipe(file)
    assert recipe_from_dict(tomllib.loads(recipe_explained(recipe))) == recipe


def keys(settings: Any) -> list[str]:
    found = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        found += keys(value) if dataclasses.is_dataclass(value) else [field.name] * (field.name != "space")
    return found


def test_every_key_is_explained() -> None:
    text = recipe_explained(Recipe())
    lines = text.splitlines()
    for key in [*keys(Recipe()), "low", "high", "step", "log", "choices"]:
        places = [
            n for n, line in enumerate(lines) if line.removeprefix("# ").startswith(f"{key} =") or f".{key}]" in line
        ]
        assert places, key
        assert all(lines[n - 1].startswith("# ") and len(lines[n - 1]) > 10 for n in places), key
    assert "None" not in text
    source = recipe_from_dict({"data": {"sources": {"web": {"kind": "sft"}}}})
    assert '# SPDX name where known.\nlicence = ""' in recipe_explained(source)
    assert 'One of "wsd", "cosine".' in text


def test_the_page_shows_the_defaults() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert f"```toml\n{recipe_explained(Recipe())}```\n" in page, "make it anew with `xmodel2 recipe --explain`"
