"""ALFWorld: household tasks in the real alfworld and TextWorld engine, asked as in ReAct's notebook.

    > go to cabinet 1                   observations are the engine's, without "You arrive at ...";
    The cabinet 1 is closed.            "Nothing happens." after what can't be done
    > open cabinet 1                    success: the engine's ``won`` within 49 commands, thoughts among them
    ...
    > put mug 1 in/on cabinet 1         ReAct's form, which games of alfworld 0.4 or newer call "move mug 1 to cabinet 1":
                                        both are understood in either, and no other

Source: ALFWorld (arXiv 2010.03768), ReAct (arXiv 2210.03629) and its alfworld.ipynb.
"""

import hashlib
import json
import os
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.alfworld_engine import Fact, Household, require, temporary_folder
from xmodel2.eval.agents.alfworld_games import KINDS, OFFICIAL, UNSEEN, Game, find_split, read_games
from xmodel2.eval.agents.alfworld_players import oracle, random_walker, scripted
from xmodel2.eval.agents.dialogue import Commands
from xmodel2.eval.agents.environment import Benchmark, Case, Examples, Turn
from xmodel2.eval.agents.few_shot import play_example, react_prompts
from xmodel2.eval.agents.made_houses import write_houses
from xmodel2.eval.agents.options import AgentOptions

STEP_LIMIT = 49
"""ReAct's notebook plays ``range(1, 50)``."""
METRIC = "success_rate"
NOTHING = "Nothing happens."
DIALOGUE = Commands(prompt="\n>", answer="\n", think=("think: ", ""))
_SEED = 0
_GAMES_OF_A_KIND = 4
_EXAMPLES = 2
_INSTRUCTION = "Do a task in a household, one command after the other. Examples come first.\n"
_HERE = "\nHere is the task.\n"
_DATA = "ALFWORLD_DATA"
_PUT = re.compile(r"put (.+?) in/on (.+)")
_MOVE = re.compile(r"move (.+?) to (.+)")
_DONE = {"put": "", "puttwo": "two ", "clean": "clean ", "heat": "hot ", "cool": "cool "}


class AlfworldEnvironment:
    """One game."""

    def __init__(self, game: Game) -> None:
        self.game = game
        self._household: Household | None = None
        self._won = False
        self._answer = ""

    def reset(self) -> str:
        """Start the engine, and return the room and the task, without its welcome.

        Raises `XmodelError` naming the file if the engine can't play it, or saying what the engine lacks here.
        """
        self._household, self._won, self._answer = None, False, ""  # its library is free for the next
        try:
            self._household = Household(**self.game.content, goal=self.game.goal)
        except ValueError as error:
            raise XmodelError(f"{self.game.file}: the engine can't play it ({error}); fetch it again") from None
        return "\n".join(self._household.intro.split("\n\n")[1:])

    def step(self, action: str) -> Turn:
        """Do a command. Raises `RuntimeError` naming the file if the engine then fails: its grammar is read as it is used."""
        if self._household is None or self._won:
            return Turn(NOTHING, float(self._won), self._won, valid=False)
        commands = self._household.commands()
        command = action if action in commands else _other_form(action)
        if command not in commands:
            return Turn(NOTHING, valid=False)
        try:
            seen = self._household.do(commands[command])
            self._household.commands()
        except Exception as error:
            raise RuntimeError(f"{self.game.file}: damaged ({error!r}); fetch it again") from None
        if seen.startswith("You arrive at "):
            seen = seen.partition(". ")[2]
        elif command != action:
            seen = _told(action)
        self._answer, self._won = action, self._household.won
        return Turn(seen, float(self._won), self._won)

    def scores(self) -> dict[str, float]:
        """Return whether the engine says that it is won."""
        return {METRIC: float(self._won)}

    @property
    def answer(self) -> str:
        """The last command that was done."""
        return self._answer

    def commands(self) -> list[str]:
        """Return what can be done now."""
        return list(self._household.commands()) if self._household else []

    def facts(self) -> set[Fact]:
        """Return all that is the case, hidden or not."""
        return set(self._household.facts()) if self._household else set()


def _other_form(action: str) -> str:
    """Return the other way to say that something is put somewhere; other commands as they are.

    >>> _other_form("put mug 1 in/on desk 1")
    'move mug 1 to desk 1'
    >>> _other_form("move mug 1 to desk 1")
    'put mug 1 in/on desk 1'
    """
    if put := _PUT.fullmatch(action):
        return f"move {put[1]} to {put[2]}"
    if move := _MOVE.fullmatch(action):
        return f"put {move[1]} in/on {move[2]}"
    return action


def _told(action: str) -> str:
    """Return what the release that has this way to put something answers.

    >>> _told("put mug 1 in/on desk 1")
    'You put the mug 1 in/on the desk 1.'
    >>> _told("move mug 1 to desk 1")
    'You move the mug 1 to the desk 1.'
    """
    put, move = _PUT.fullmatch(action), _MOVE.fullmatch(action)
    if put:
        return f"You put the {put[1]} in/on the {put[2]}."
    return f"You move the {move[1]} to the {move[2]}." if move else NOTHING


def alfworld_benchmark(options: AgentOptions) -> Benchmark:
    """Return the released games of the unseen split where they are there, else households made by us.

    Raises `XmodelError` if the engine is not installed, or games that were asked for are not there.
    """
    require("fast_downward")
    require("alfworld.agents.utils.misc")
    split = _split(options)
    if split:
        games = read_games(split)
        world = _world(split, games)
    else:
        games = _made(UNSEEN, _GAMES_OF_A_KIND)
        world = f"made-up households, seed {_SEED}: {len(games)} games in alfworld's engine"
    made_up = all(game.made for game in games)
    names = tuple(f"react_{kind}_{number}" for kind in KINDS.values() for number in (1, 0))
    prompts = react_prompts(options.agents_dir, "alfworld_3prompts", names)
    return Benchmark(
        name="alfworld",
        metric=METRIC,
        step_limit=STEP_LIMIT,
        dialogue=DIALOGUE,
        cases=[Case(game.id, game.goal, _target(game), game.kind, game) for game in games],
        of=OFFICIAL if split and _official(split, games) else None,
        world=world,
        fingerprint=_fingerprint(games, prompts),
        examples=lambda case: _examples(case.data.kind, prompts),
        open=lambda case: AlfworldEnvironment(case.data),
        made_up=made_up,
        players={"oracle": oracle, "random": random_walker, "scripted": scripted},
    )


def _split(options: AgentOptions) -> Path | None:
    """Return the folder of the games, None if no folder was named. Raises `XmodelError` if there are none where they should be."""
    if options.games:
        return find_split(options.games)
    if options.agents_dir and (options.agents_dir / "alfworld").is_dir():
        return find_split(options.agents_dir / "alfworld")
    if not (named := os.environ.get(_DATA)):
        return None
    try:
        return find_split(Path(named))
    except XmodelError as error:  # who set it has games somewhere: made-up households instead would be a surprise
        raise XmodelError(f"${_DATA}: {error}; unset it to play made-up households") from None


def _official(split: Path, games: Sequence[Game]) -> bool:
    """Return whether games are those of the unseen split, as far as their folders tell."""
    return split.resolve().name == UNSEEN and len(games) <= OFFICIAL and not any(game.made for game in games)


def _world(split: Path, games: Sequence[Game]) -> str:
    """Return what a folder has, by name; releases differ in their wording, and the newer ones keep the older folder's name."""
    name, made = split.resolve().name, sum(game.made for game in games)
    if made == len(games):
        return f"made-up households of folder {name}: {made} games in alfworld's engine"
    release = [parent.name for parent in split.resolve().parents if parent.name.startswith("json_")][:1]
    told = ", ".join([*release, " and ".join(f'"{form}"' for form in sorted({game.puts for game in games}))])
    if _official(split, games):
        return f"ALFWorld {name} ({told}), {len(games)} of {OFFICIAL} games"
    return f"folder {name} ({told}): {len(games)} games in alfworld's engine" + (f", {made} made up" if made else "")


@cache
def _made(split: str, each: int, small: bool = False) -> list[Game]:
    with temporary_folder() as folder:
        write_houses(folder, _SEED, each, split, small)
        return read_games(find_split(folder, split))


def _target(game: Game) -> str:
    if game.kind == "examine":
        return f"{game.target} in hand, {game.place} on"
    return f"{_DONE[game.kind]}{game.target} in/on {game.place}"


def _examples(kind: str, prompts: Mapping[str, str] | None) -> Examples:
    if prompts:
        first, second = prompts[f"react_{kind}_1"], prompts[f"react_{kind}_0"]
        return Examples(_INSTRUCTION, (first, second + _HERE), "ReAct, with an instruction of ours")
    return Examples(_INSTRUCTION, _played(kind), "the oracle in made-up households")


@cache
def _played(kind: str) -> tuple[str, ...]:
    games = [game for game in _made("train", _EXAMPLES, small=True) if game.kind == kind]
    environments = [AlfworldEnvironment(game) for game in games]
    chance = random.Random(0)
    texts = [play_example(DIALOGUE, each, oracle(each, chance), STEP_LIMIT) + "\n" for each in environments]
    return (*texts[:-1], texts[-1] + _HERE)


def _fingerprint(games: Sequence[Game], prompts: Mapping[str, str] | None) -> str:
    examples = dict(prompts) if prompts else {kind: _played(kind) for kind in sorted({game.kind for game in games})}
    engine = [require("alfworld.info").__version__, require("textworld").__version__]
    told = [[game.id, game.goal, dict(game.content)] for game in games]
    everything = [told, STEP_LIMIT, asdict(DIALOGUE), _INSTRUCTION, _HERE, examples, engine]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()
