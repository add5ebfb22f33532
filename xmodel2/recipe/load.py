"""Recipe files: TOML with `base` inheritance and `--set` overrides, to a checked `Recipe`, and back to TOML.

    recipes/nano.toml  ->  its base, then itself, then --set  ->  one dict  ->  type check  ->  Recipe

Every error names the file (or --set), the key, what is allowed, and the nearest valid name.
"""

import dataclasses
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError

from xmodel2.errors import XmodelError, nearest
from xmodel2.recipe.presets import PRESETS
from xmodel2.recipe.settings import Recipe

Origin = dict[tuple[str, ...], str]
Settings = TypeVar("Settings")


def load_recipe(path: str | Path | None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and its bases, apply ``key=value`` overrides, and check everything; without a file, the defaults.

    Raises `XmodelError` naming file and key for anything wrong.
    """
    origin: Origin = {}
    tree = {} if path is None else read_tree(Path(path), origin)
    # A preset first, so that a size given beside it wins in either order.
    for override in sorted(overrides, key=lambda text: text.partition("=")[0].strip() != "model.preset"):
        _override(tree, override, origin)
    return recipe_from_dict(tree, default_origin=str(path), origin=origin)


def recipe_from_dict(tree: dict[str, Any], default_origin: str = "recipe", origin: Origin | None = None) -> Recipe:
    """Check a nested dict against the settings; ``model.preset`` fills the sizes that are not given."""
    origin = origin or {}
    model = tree.get("model")
    if isinstance(model, dict) and model.get("preset") is not None:
        if model["preset"] not in PRESETS:
            where = origin.get(("model", "preset"), default_origin)
            raise XmodelError(
                f"{where}: model.preset = {model['preset']!r} is not a preset; allowed: {', '.join(PRESETS)}."
                f"{nearest(str(model['preset']), PRESETS)}"
            )
        tree = {**tree, "model": {**PRESETS[model["preset"]], **model}}
    return checked(Recipe, tree, default_origin, origin)


def checked(kind: type[Settings], tree: dict[str, Any], default_origin: str, origin: Origin) -> Settings:
    """Return the tree as settings of a kind. Raises `XmodelError` naming origin and key of everything that is wrong."""
    try:
        return TypeAdapter(kind).validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as error:
        raise XmodelError("\n".join(_explain(kind, e, default_origin, origin) for e in error.errors())) from None


def recipe_to_toml(recipe: Recipe) -> str:
    """Write a recipe, fully resolved, so that `load_recipe` of the text gives an equal one."""
    return tree_to_toml(_as_dict(recipe))


def tree_to_toml(tree: dict[str, Any], at: tuple[str, ...] = ()) -> str:
    """Write nested values as TOML, those of the table ``at``."""
    lines: list[str] = []
    _emit(tree, at, lines)
    return "\n".join(lines).strip() + "\n"


def replace(recipe: Recipe, overrides: dict[str, Any]) -> Recipe:
    """Return a copy with dotted keys changed, checked again."""
    tree = _as_dict(recipe)
    for key, value in overrides.items():
        _set(tree, tuple(key.split(".")), value)
    return recipe_from_dict(tree)


def _as_dict(recipe: Recipe) -> dict[str, Any]:
    return _drop_none(dataclasses.asdict(recipe))  # type: ignore[call-overload,no-any-return]


def _drop_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _drop_none(v) for k, v in value.items() if v is not None}
    return value


def read_tree(path: Path, origin: Origin, chain: tuple[Path, ...] = (), what: str = "recipe file") -> dict[str, Any]:
    """Return a TOML file merged over its bases; ``origin`` receives the file of each key. Raises `XmodelError`."""
    if path.resolve() in chain:
        raise XmodelError(f"{path}: `base` goes in a circle: {' -> '.join(str(p) for p in chain)}")
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise XmodelError(f"{path}: no such {what}") from None
    except IsADirectoryError:
        here = f"; give {path / 'recipe.toml'}" if (path / "recipe.toml").exists() else ""
        raise XmodelError(f"{path}: is a folder, and a {what} is wanted{here}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise XmodelError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise XmodelError(f"{path}: not valid TOML: {error}") from None
    base = tree.pop("base", [])
    bases = [base] if isinstance(base, str) else base
    if not isinstance(bases, list) or not all(isinstance(name, str) for name in bases):
        raise XmodelError(f"{path}: base must be the path of another {what}, in quotes, or a list of them")
    below: dict[str, Any] = {}
    for name in bases:  # a later one wins
        below = _merge(below, read_tree(path.parent / name, origin, (*chain, path.resolve()), what), ())
    _mark(tree, (), str(path), origin)
    return _merge(below, tree, ())


# Shares of a mixture belong together: a recipe that names its own replaces the base's whole.
_WHOLE = {("stages", "stable", "mixture"), ("stages", "decay", "sft_mixture"), ("data", "sources")}


def _merge(below: dict[str, Any], above: dict[str, Any], at: tuple[str, ...]) -> dict[str, Any]:
    if at == ("model",):
        below = _without_sizes(below, above)
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict) and (*at, key) not in _WHOLE
        merged[key] = _merge(old, value, (*at, key)) if both else value  # type: ignore[arg-type]
    return merged


def _without_sizes(model: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Drop the sizes of a lower layer if a higher one picks a preset: they are what the preset is there to replace."""
    preset = above.get("preset")
    if preset not in PRESETS or preset == model.get("preset"):
        return model
    return {key: value for key, value in model.items() if key not in PRESETS[preset]}


def _mark(tree: dict[str, Any], at: tuple[str, ...], where: str, origin: Origin) -> None:
    for key, value in tree.items():
        origin[(*at, key)] = where
        if isinstance(value, dict):
            _mark(value, (*at, key), where, origin)


def _override(tree: dict[str, Any], override: str, origin: Origin) -> None:
    key, separator, text = override.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not separator or not all(path):
        raise XmodelError(f"--set {override!r}: write it as key=value, such as train.learning_rate=0.02")
    if path[0] == "base":
        raise XmodelError(f"--set {override!r}: `base` stands in a recipe file; name another file, or set its keys")
    try:
        value = tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    if path == ("model", "preset") and isinstance(tree.get("model"), dict):
        tree["model"] = _without_sizes(tree["model"], {"preset": value})
    _set(tree, path, value)
    origin[path] = f"--set {override}"


def _set(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    node = tree
    for part in path[:-1]:
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            raise XmodelError(f"{'.'.join(path)}: {part} is a value, not a table")
        node = child
    node[path[-1]] = value


def _explain(kind: Any, error: Any, default_origin: str, origin: Origin) -> str:
    location = tuple(str(part) for part in error["loc"])
    # What was set at the place or above it; of a table that may not be there, what was set in it.
    found = [origin[location[:n]] for n in range(len(location), 0, -1) if location[:n] in origin]
    found += [said for key, said in origin.items() if key[: len(location)] == location]
    where = found[0] if found else default_origin
    key = ".".join(location)
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        allowed = _fields_at(kind, location[:-1])
        return f"{where}: unknown key {key}.{nearest(location[-1], allowed)} Allowed here: {', '.join(allowed)}"
    if error["type"] == "missing":
        return f"{where}: {key} is missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{where}: {key}: {message}" if key and not message.startswith(key) else f"{where}: {message}"
    return f"{where}: {key} = {error['input']!r}: {message[0].lower()}{message[1:]}"


def _fields_at(kind: Any, location: tuple[str, ...]) -> list[str]:
    for part in location:
        if dataclasses.is_dataclass(kind):
            kind = next(f.type for f in dataclasses.fields(kind) if f.name == part)
        elif get_args(kind):
            kind = get_args(kind)[1]
        if get_args(kind)[1:] == (type(None),):  # an optional table
            kind = get_args(kind)[0]
    names = [f.name for f in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
    return ["base", *names] if not location else names


def _emit(tree: dict[str, Any], at: tuple[str, ...], lines: list[str]) -> None:
    if at:
        lines += ["", f"[{'.'.join(key_to_toml(part) for part in at)}]"]
    for key, value in tree.items():
        if not isinstance(value, dict):
            lines.append(f"{key_to_toml(key)} = {json.dumps(value, ensure_ascii=False)}")
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            _emit(value, (*at, key), lines)


def key_to_toml(name: str) -> str:
    """Return a key as TOML writes it: in quotes if it must be."""
    return name if name.replace("-", "").replace("_", "").isalnum() and name.isascii() else json.dumps(name)
