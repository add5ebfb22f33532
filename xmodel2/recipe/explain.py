"""A recipe with what each key is: TOML that `load_recipe` reads, in which a comment stands above every key.

>>> print("\\n".join(recipe_explained(Recipe()).splitlines()[:4]))
# Name of the run; also the default run directory `runs/NAME`.
name = "xmodel2"
# Every random choice derives from it.
seed = 1
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

from xmodel2.recipe.load import key_to_toml, tree_to_toml
from xmodel2.recipe.settings import Recipe


def recipe_explained(recipe: Recipe) -> str:
    """Return a recipe, fully resolved, with a comment on every key; a key without a value is a comment, too."""
    return "\n".join(_table(recipe, ())) + "\n"


def _table(settings: Any, at: tuple[str, ...]) -> Iterator[str]:
    if at:
        yield from ("", f"# {type(settings).__doc__}", f"[{'.'.join(at)}]")
    tables = dict[str, Any]()
    for name, field in type(settings).__pydantic_fields__.items():
        value = getattr(settings, name)
        if dataclasses.is_dataclass(value) or (isinstance(value, dict) and value):
            tables[name] = value
            if dataclasses.is_dataclass(value):
                continue
        yield f"# {field.description}{_choices(field.annotation)}"
        if name in tables:
            yield f"# (the table [{'.'.join((*at, name))}] below)"
        elif value is None or value == {}:
            yield f"# {name} ="
        else:
            yield f"{name} = {json.dumps(value, ensure_ascii=False)}"
    for name, value in tables.items():
        if dataclasses.is_dataclass(value):
            yield from _table(value, (*at, name))
        elif all(map(dataclasses.is_dataclass, value.values())):
            for key, entry in value.items():
                yield from _table(entry, (*at, name, key_to_toml(key)))
        else:
            yield from ("", tree_to_toml(value, (*at, name)).strip())


def _choices(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    for kind in (annotation, *get_args(annotation)):
        if get_origin(kind) is Literal:
            return f" One of {', '.join(map(json.dumps, get_args(kind)))}."
    return ""
