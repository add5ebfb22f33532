"""What the trials of one study have in common, or their losses would not compare: recipe, code and data.

The study keeps it; whoever joins or goes on compares, before each batch of trials, and is refused if something differs.
"""

import hashlib
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import optuna

import xmodel2
from xmodel2.data.shards import data_fingerprint
from xmodel2.errors import XmodelError
from xmodel2.recipe import Recipe
from xmodel2.search.space import flat

ATTRIBUTE = "xmodel2"
"""User attribute of the study that holds it."""
SOURCES = (
    "recipe/*.py",
    "data/*.py",
    "model/*.py",
    "train/*.py",
    "search/space.py",
    "search/trial*.py",
    "search/fleet*.py",
)
"""The code that a trial's loss comes from."""
MAY_DIFFER = (
    *("data.dir", "data.cache_dir"),  # the same data may lie elsewhere on another machine: its fingerprint counts
    *("search.pruner", "search.startup_trials", "search.top_trials", "search.top_seeds"),  # change no trial's loss
)
WAIT_SECONDS = 10.0
"""How long a study that was just made may be without its identity."""


@dataclass(frozen=True)
class Identity:
    """Recipe, code and data of a study."""

    recipe: dict[str, Any]
    """Dotted key to value."""
    code: str
    """As `code_fingerprint`."""
    data: str
    """Fingerprint of the token shards."""


def identity(recipe: Recipe) -> Identity:
    """Return what a study of the recipe would be known by, here and now. Raises `XmodelError` if the data are missing."""
    return Identity(flat(recipe), code_fingerprint(), data_fingerprint(recipe.data.dir)[:12])


@cache
def code_fingerprint() -> str:
    """Return the package's version and a hash of SOURCES as this process has it, such as "0.1.0 (3f2a...)"."""
    package = Path(xmodel2.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in package.glob(pattern)):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{xmodel2.__version__} ({digest.hexdigest()[:12]})"


def settle(study: optuna.Study, mine: Identity, made: bool, accept_code: bool) -> None:
    """Give a study that we ``made`` its identity, or compare it with ours; ``accept_code``: ours becomes its code.

    Raises `XmodelError` as `compare`.
    """
    deadline = time.monotonic() + WAIT_SECONDS  # for whoever made it; unless that one was killed just then
    while not made and ATTRIBUTE not in study.user_attrs and time.monotonic() < deadline:
        time.sleep(0.1)
    if ATTRIBUTE not in study.user_attrs:
        study.set_user_attr(ATTRIBUTE, asdict(mine))
    elif accept_code:
        study.set_user_attr(ATTRIBUTE, study.user_attrs[ATTRIBUTE] | {"code": mine.code})
    compare(study, mine)


def compare(study: optuna.Study, mine: Identity) -> None:
    """Raise `XmodelError` if the study is another one than ours, naming what differs and both values."""
    kept = Identity(**study.user_attrs[ATTRIBUTE])
    where = f"study {study.study_name!r}"
    refuse_changes(where, kept.recipe, mine.recipe)
    if kept.data != mine.data:
        raise XmodelError(
            f"{where}: its trials are judged on data {kept.data}, and data.dir here holds {mine.data}; use the same"
            " prepared shards on every machine, or begin another study (another name or --out)"
        )
    if kept.code != mine.code:
        raise XmodelError(
            f"{where}: its code is {kept.code}, and the code here is {mine.code}; use the same on every machine, or,"
            " if you know that losses stay the same, give --accept-code"
        )


def refuse_changes(where: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise `XmodelError` naming the keys of the recipe that changed since the study began, but for those that may.

    A key that the study does not know is of a later version, and its default does what was done before.
    """
    defaults = flat(Recipe())
    before = {key: defaults[key] for key in now if key in defaults} | before
    keys = sorted(k for k in before.keys() | now.keys() if k not in MAY_DIFFER and before.get(k) != now.get(k))
    if keys:
        changes = "; ".join(f"{key} was {before.get(key, 'not there')}, is {now.get(key, 'not there')}" for key in keys)
        raise XmodelError(
            f"{where}: began with another recipe, whose losses would not compare: {changes}. Use the one it began with,"
            " or begin another study (another name and --out)"
        )
