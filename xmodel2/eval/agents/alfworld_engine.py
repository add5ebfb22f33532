"""A household in TextWorld's PDDL engine, with alfworld's names: the optional extra of the agent benchmarks.

State, text and goal are the engine's own. What alfworld's environment works out besides, for every step the text of every
command and for every start a second translation for a planner, is left out, and what it reads again at every step, the queries of
its grammar, is remembered, which makes it many times faster.
"""

import os
import re
import struct
import sys
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.dialogue import shorten

_HOME = "ALFWORLD_DATA"
_ANY_TASK = "ANY TASK"
_NAMES = re.compile(r"[\w.]+(?: or [\w.]+| \+ (?:[\w.]+|'[^']*'))*")
"""An expression that the released grammars have, such as ``o.indefinite + ' ' + o.name``."""
_PLAIN = re.compile(r"(?:[\w /]|\{\w+\})+")
"""A command's template that the grammar would only put names into."""
_TOO_NEW = (3, 13)
"""The engine's grammar writes into ``locals()``, which Python 3.13 made a copy."""
_UNREADABLE = re.compile(r"[^\n -~]|[^\n]{1000}|begin_goal\n0")
"""What the planner ends the process for, or has no space for; its names have 1024 bytes."""
_FREE: list[Any] = []
"""Copies of the planner's library that no household has. Its state is global: two open households must not share one."""

Fact = tuple[str, ...]
"""Predicate and names, such as ("inreceptacle", "mug 1", "desk 2"), all lower-case."""


def require(module: str) -> Any:
    """Return a module of alfworld or textworld. Raises `XmodelError` saying how to install it, or that it can't run here."""
    others = "or ask for the other three: --tasks hotpotqa,fever,webshop"
    if sys.version_info >= _TOO_NEW:
        raise XmodelError(f"alfworld: its engine, TextWorld, needs Python 3.12 or older; use one of these, {others}")
    try:
        with _home_left_alone():
            return import_module(module)
    except ImportError as error:
        raise XmodelError(
            f"alfworld: its engine is not installed ({error}); pip install 'xmodel2[alfworld]', {others}"
        ) from None


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder for a while. Raises `XmodelError` naming TMPDIR if there is no room, or what lies there can't be run."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    except OSError as error:
        raise XmodelError(
            f"alfworld: the temporary folder can't be used ({error}); set TMPDIR to one that has room for 1 MiB a household, "
            "and lets its files be run"
        ) from None


class Household:
    """One game, from its start. Each has its own state, also beside others in one process."""

    def __init__(self, domain: str, grammar: str, problem: str, goal: str) -> None:
        """Start a game, whose task is asked for as ``goal`` says.

        Raises `ValueError` saying what is wrong with it, `XmodelError` if none can be started here.
        """
        states = require("textworld.envs.pddl.logic")
        library = _FREE.pop() if _FREE else _load_library()
        weakref.finalize(self, _FREE.append, library)
        try:
            self._logic = _logic(domain, grammar.replace(goal, _ANY_TASK))
            with _translated_once():
                self._state = states.PddlState(library, problem, self._logic)
            self._entities = _entities(self._state)
            self.intro = self._say("#intro#", {}).replace(_ANY_TASK, goal)
            self._texts: dict[tuple[str, ...], str] = {}
            self._now: dict[str, Any] = {}
            if not self.commands():
                raise ValueError("nothing can be done in it")
        except (XmodelError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from None

    @property
    def won(self) -> bool:
        """Whether the goal is reached."""
        return bool(self._state.check_goal())

    def commands(self) -> dict[str, Any]:
        """Return what can be done now, with the engine's actions."""
        if not self._now:
            actions: dict[str, Any] = {}
            for action in self._state.all_applicable_actions():
                actions.setdefault(self._command(action), action)
            self._now = dict(sorted(actions.items()))
        return self._now

    def do(self, action: Any) -> str:
        """Do one of the actions of `commands`, and return what is seen."""
        self._now = {}
        self._state.apply(action)
        return self._say(action.feedback_rule, action.mapping)

    def facts(self) -> Iterator[Fact]:
        """Yield all that is the case, hidden or not."""
        for fact in self._state.facts:
            yield (fact.name, *(self._entities[argument.name].name.strip() for argument in fact.arguments))

    def _command(self, action: Any) -> str:
        """The text of a command depends on what its template names alone, so it is derived once for each."""
        used = _words(action.command_template)
        key = (action.name, *(thing.name for place, thing in action.mapping.items() if place.name in used))
        if key not in self._texts:
            if _PLAIN.fullmatch(action.command_template):
                names = {place.name: self._entities[thing.name].name for place, thing in action.mapping.items()}
                self._texts[key] = action.command_template.format(**names)
            else:
                self._texts[key] = self._say(action.command_template, action.mapping)
        return self._texts[key]

    def _say(self, rule: str, mapping: Mapping[Any, Any]) -> str:
        context = {
            "state": self._state,
            "facts": list(self._state.facts),
            "variables": _Bound({place.name: self._entities[thing.name] for place, thing in mapping.items()}),
            "mapping": _Bound(mapping),
            "entity_infos": self._entities,
        }
        with _read_once():
            return str(self._logic.grammar.derive(rule, context))


class _Bound(dict[Any, Any]):
    """Names and what they stand for: the grammar copies it deeply for every symbol, and changes nothing in what is inside."""

    def __deepcopy__(self, memo: Any) -> "_Bound":
        return _Bound(self)


@lru_cache(maxsize=256)
def _words(template: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", template))


def _load_library() -> Any:
    """Load a new copy of the planner's library: 1 MiB of its file; the other 31, for debuggers, would fill the temp folder."""
    interface = require("fast_downward.interface")
    whole = interface.DOWNWARD_LIB_PATH
    with temporary_folder() as folder:
        lean = folder / Path(whole).name
        lean.write_bytes(_loaded_part(Path(whole).read_bytes()))
        interface.DOWNWARD_LIB_PATH = str(lean)
        try:
            return interface.load_lib()
        finally:
            interface.DOWNWARD_LIB_PATH = whole


def _loaded_part(library: bytes) -> bytes:
    """Return a shared library up to the end of its last segment, if it is a 64-bit ELF file, as Linux has."""
    if library[:5] != b"\x7fELF\x02":
        return library
    (table,), (size, number) = struct.unpack_from("<Q", library, 32), struct.unpack_from("<HH", library, 54)
    segments = [struct.unpack_from("<8xQ16xQ", library, table + size * i) for i in range(number)]
    return library[: max(offset + length for offset, length in segments)]


@lru_cache(maxsize=8)
def _logic(domain: str, grammar: str) -> Any:
    """To read a grammar takes a third of a start, and games differ in the task alone.

    Raises `ValueError` for an expression other than names: the engine evaluates them as Python, and a game is a download.
    """
    logic = require("textworld.envs.pddl.logic").GameLogic(domain, grammar)
    read = require("textworld.envs.pddl.textgen")._parse_and_convert
    said = [rule.rhs for rules in logic.grammar._rules.values() for rule in rules]
    said += [read(text, rule_name="symbols") for a in logic.actions.values() for text in (a.template, a.feedback_rule)]
    for expression in (found for symbols in said for symbol in symbols for found in _evaluated(symbol)):
        if not _NAMES.fullmatch(expression.strip()):
            raise ValueError(f"its grammar would run {shorten(expression, 60)!r}, which is more than names")
    return logic


def _evaluated(symbol: Any) -> Iterator[str]:
    """Yield the expressions in a symbol of a grammar: {x}, {x | condition}, [{x | condition}]."""
    for part in (getattr(symbol, name, None) for name in ("expression", "symbol")):
        if isinstance(part, str):
            if hasattr(symbol, "expression") and not hasattr(symbol, "given"):
                yield part
        elif part is not None:
            yield from _evaluated(part)


def _entities(state: Any) -> dict[str, Any]:
    """Return everything in a household by its id, named as alfworld does: "mug 1"."""
    info = require("textworld.generator.game").EntityInfo
    found = {thing.name: info(thing.name, thing.type) for fact in state.facts for thing in fact.arguments}
    names = require("alfworld.agents.utils.misc").Demangler(game_infos=found)
    for entity in found.values():
        entity.name = names.demangle_alfred_name(entity.id)
        entity.definite, entity.indefinite = "the", "a"
    return found


@lru_cache(maxsize=8)
def _translate(domain: str, problem: str) -> Any:
    """Raises `ValueError` for what would end the process: the planner is C++, and calls ``exit`` where it can't read on."""
    task, sas = require("fast_downward.interface").pddl2sas(domain, problem)
    if found := _UNREADABLE.search(sas):
        raise ValueError(f"its problem has {shorten(found[0], 20)!r}, which the planner can't read")
    return task, sas


@contextmanager
def _translated_once() -> Iterator[None]:
    """The engine translates a problem twice, the second time for a planner that is not asked here, and changes sys.argv."""
    downward, argv = require("fast_downward"), sys.argv
    translate = downward.pddl2sas
    downward.pddl2sas = lambda domain, problem, **_: _translate(domain, problem)
    try:
        yield
    finally:
        downward.pddl2sas, sys.argv = translate, argv


@contextmanager
def _read_once() -> Iterator[None]:
    """The engine's grammar parses its queries, and what it starts from, anew for every sentence."""
    textgen = require("textworld.envs.pddl.textgen")
    rule, parse = textgen.Rule, textgen._parse_and_convert
    textgen.Rule, textgen._parse_and_convert = _Queries, lambda text, **_: deepcopy(_symbols(text))
    try:
        yield
    finally:
        textgen.Rule, textgen._parse_and_convert = rule, parse


class _Queries:
    """Stands for textworld's Rule."""

    @staticmethod
    @lru_cache(maxsize=1024)
    def parse_conjunctive_query(text: str) -> Any:
        """Return a rule, which nobody changes."""
        return require("textworld.logic").Rule.parse_conjunctive_query(text)


@lru_cache(maxsize=1024)
def _symbols(text: str) -> Any:
    textgen = require("textworld.envs.pddl.textgen")
    return textgen._Converter().walk(textgen._PARSER.parse(text, rule_name="symbols"))


@contextmanager
def _home_left_alone() -> Iterator[None]:
    """To import alfworld makes the folder $ALFWORLD_DATA, ~/.cache/alfworld by default, and sets the variable."""
    before = os.environ.get(_HOME)
    os.environ[_HOME] = str(Path(__file__).parent)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_HOME]
        else:
            os.environ[_HOME] = before
