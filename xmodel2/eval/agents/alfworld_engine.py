"""A household in TextWorld's PDDL engine, with alfworld's names: the optional extra of the agent benchmarks.

State, text and goal are the engine's own. What alfworld's environment works out besides, for every step the text of every
command and for every start a second translation for a planner, is left out or remembered, which makes it several times faster.
"""

import os
import re
import struct
import sys
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
_FREE: list[Any] = []
"""Copies of the planner's library that no household has. Its state is global: two open households must not share one."""

Fact = tuple[str, ...]
"""Predicate and names, such as ("inreceptacle", "mug 1", "desk 2"), all lower-case."""


def require(module: str) -> Any:
    """Return a module of alfworld or textworld. Raises `XmodelError` saying how to install it."""
    try:
        with _home_left_alone():
            return import_module(module)
    except ImportError as error:
        raise XmodelError(
            f"alfworld: its engine is not installed ({error}); pip install 'xmodel2[alfworld]', or ask for the other "
            "three: --tasks hotpotqa,fever,webshop"
        ) from None


class Household:
    """One game, from its start. Each has its own state, also beside others in one process."""

    def __init__(self, domain: str, grammar: str, problem: str, goal: str) -> None:
        """Start a game, whose task is asked for as ``goal`` says. Raises `ValueError` saying what is wrong with it."""
        states = require("textworld.envs.pddl.logic")
        library = _FREE.pop() if _FREE else _load_library()
        weakref.finalize(self, _FREE.append, library)
        try:
            self._logic = _logic(domain, grammar.replace(goal, _ANY_TASK))
            with _translated_once():
                self._state = states.PddlState(library, problem, self._logic)
            self._entities = _entities(self._state)
            self.intro = self._say("#intro#", {}).replace(_ANY_TASK, goal)
        except (Exception, SystemExit) as error:
            raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
        self._commands: dict[tuple[str, ...], str] = {}

    @property
    def won(self) -> bool:
        """Whether the goal is reached."""
        return bool(self._state.check_goal())

    def commands(self) -> dict[str, Any]:
        """Return what can be done now, with the engine's actions."""
        actions: dict[str, Any] = {}
        for action in self._state.all_applicable_actions():
            actions.setdefault(self._command(action), action)
        return dict(sorted(actions.items()))

    def do(self, action: Any) -> str:
        """Do one of the actions of `commands`, and return what is seen."""
        self._state.apply(action)
        return self._say(action.feedback_rule, action.mapping)

    def facts(self) -> Iterator[Fact]:
        """Yield all that is the case, hidden or not."""
        for fact in self._state.facts:
            yield (fact.name, *(self._entities[argument.name].name.strip() for argument in fact.arguments))

    def _command(self, action: Any) -> str:
        """The text of a command depends on what its template names alone, so it is derived once for each."""
        used = set(re.findall(r"\w+", action.command_template))
        key = (action.name, *(thing.name for place, thing in action.mapping.items() if place.name in used))
        if key not in self._commands:
            if _PLAIN.fullmatch(action.command_template):
                names = {place.name: self._entities[thing.name].name for place, thing in action.mapping.items()}
                self._commands[key] = action.command_template.format(**names)
            else:
                self._commands[key] = self._say(action.command_template, action.mapping)
        return self._commands[key]

    def _say(self, rule: str, mapping: Mapping[Any, Any]) -> str:
        context = {
            "state": self._state,
            "facts": list(self._state.facts),
            "variables": {place.name: self._entities[thing.name] for place, thing in mapping.items()},
            "mapping": mapping,
            "entity_infos": self._entities,
        }
        return str(self._logic.grammar.derive(rule, context))


def _load_library() -> Any:
    """Load a new copy of the planner's library: 1 MiB of its file; the other 31, for debuggers, would fill the temp folder."""
    interface = require("fast_downward.interface")
    whole = interface.DOWNWARD_LIB_PATH
    with tempfile.TemporaryDirectory() as folder:
        lean = Path(folder) / Path(whole).name
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
    return require("fast_downward.interface").pddl2sas(domain, problem)


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
def _home_left_alone() -> Iterator[None]:
    """To import alfworld makes the folder $ALFWORLD_DATA, ~/.cache/alfworld by default, and sets the variable."""
    before = os.environ.get(_HOME)
    os.environ[_HOME] = tempfile.gettempdir()
    try:
        yield
    finally:
        if before is None:
            del os.environ[_HOME]
        else:
            os.environ[_HOME] = before
