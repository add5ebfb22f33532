"""ALFWorld's games as they are released: folders of PDDL problems for TextWorld's engine.

    DIR/json_2.1.1/valid_unseen/pick_heat_then_place_in_recep-Mug-None-Cabinet-10/trial_T2019.../game.tw-pddl

DIR may also be the folder json_2.1.x, or valid_unseen itself. A task's kind is the beginning of its folder's name, as in
ReAct's notebook; what alfworld's own environment leaves out (movable receptacles, slices, unsolvable games) is left out.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Any

from xmodel2.errors import XmodelError

GAME_FILE = "game.tw-pddl"
TASK_FILE = "traj_data.json"
"""Beside each game; alfworld's own environment reads its ``task_type``."""
UNSEEN = "valid_unseen"
OFFICIAL = 134
"""Games of the unseen split (arXiv 2010.03768)."""
KINDS: Mapping[str, str] = MappingProxyType(
    {
        "pick_and_place_simple": "put",
        "pick_clean_then_place_in_recep": "clean",
        "pick_heat_then_place_in_recep": "heat",
        "pick_cool_then_place_in_recep": "cool",
        "look_at_obj_in_light": "examine",
        "pick_two_obj_and_place": "puttwo",
    }
)
"""What ReAct calls each of ALFWorld's task types."""
DOWNLOAD = "https://github.com/alfworld/alfworld/releases/download/0.4.2/json_2.1.3_tw-pddl.zip"
_PARTS = ("pddl_domain", "grammar", "pddl_problem")
MADE = "trial_made_"
"""Begins the name of a trial that we made ourselves."""
_HALF = re.compile(r"[\ud800-\udfff]")
_GOAL = re.compile(r"Your task is to: ([^\"\\]*[^\"\\.])\.?")


@dataclass(frozen=True)
class Game:
    """One game."""

    id: str
    """TASKTYPE-OBJECT-MOVABLE-RECEPTACLE-SCENE/trial_..."""
    kind: str
    """A value of `KINDS`."""
    target: str
    """Kind of the object that is asked for, lower-case."""
    place: str
    """Kind of the receptacle it must go to, or of the lamp; lower-case."""
    goal: str
    """The task as it is asked."""
    file: Path
    content: Mapping[str, str]
    """``domain``, ``grammar`` and ``problem``, for the engine."""

    @property
    def made(self) -> bool:
        """Whether it is a household made by us."""
        return self.file.parent.name.startswith(MADE)

    @property
    def puts(self) -> str:
        """How the engine wants to hear that something is put somewhere: alfworld changed it with its version 0.4."""
        return "move X to Y" if "move {o} to {r}" in self.content["grammar"] else "put X in/on Y"


def find_split(folder: Path, split: str = UNSEEN) -> Path:
    """Return the folder of a split's games. Raises `XmodelError` saying which download is missing."""
    places = [folder, folder / split, *(found / split for found in sorted(folder.glob("json_2.1.*"), reverse=True))]
    with_games = [place for place in places if any(place.glob(f"*/trial_*/{GAME_FILE}"))]
    if with_games:
        return with_games[0]
    if any(any(place.glob(f"*/trial_*/{name}")) for place in places for name in ("initial_state.pddl", TASK_FILE)):
        raise XmodelError(
            f"{folder}: has ALFWorld's problems but no {GAME_FILE}, which the engine plays; these are a download of their "
            f"own, {DOWNLOAD} (`xmodel2 eval fetch --suite agents` gets it)"
        )
    raise XmodelError(
        f"{folder}: no games of ALFWorld, {split}/TASK/trial_*/{GAME_FILE}; `xmodel2 eval fetch --suite agents` "
        f"gets {DOWNLOAD}"
    )


def read_games(split: Path) -> list[Game]:
    """Return the games of a split that alfworld plays, one kind after the other in turn, so that the first few have all.

    Raises `XmodelError` naming a file that is damaged, or if no game is left.
    """
    of_kind: dict[str, list[Game]] = {kind: [] for kind in KINDS.values()}
    files = sorted(split.glob(f"*/trial_*/{GAME_FILE}"))
    for file in files:
        task_type = file.parent.parent.name.split("-")[0]
        if task_type not in KINDS or "movable" in str(file.parent.parent.name) or "Sliced" in file.parent.parent.name:
            continue
        content = _content(file)
        if content.get("solvable") is True:
            of_kind[KINDS[task_type]].append(_game(file, KINDS[task_type], content))
    games = [game for turn in zip_longest(*of_kind.values()) for game in turn if game is not None]
    if not games:
        raise XmodelError(f"{split}: none of its {len(files)} games is a solvable one of the six kinds of tasks")
    return games


def _game(file: Path, kind: str, content: Mapping[str, Any]) -> Game:
    folder = file.parent.parent.name
    names = folder.lower().split("-")
    if len(names) != 5:
        raise XmodelError(f"{file}: its folder must be named TASK-OBJECT-MOVABLE-RECEPTACLE-SCENE, as in the release")
    goal = _GOAL.search(content["grammar"])
    if goal is None:
        raise XmodelError(f"{file}: its grammar names no task ('Your task is to: ...'); fetch it again")
    parts = {part.removeprefix("pddl_"): content[part] for part in _PARTS}
    return Game(f"{folder}/{file.parent.name}", kind, names[1], names[3], goal[1], file, parts)


def _content(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise XmodelError(f"{file}: damaged ({error}); fetch it again") from None
    missing = _missing(content)
    if missing:
        raise XmodelError(f"{file}: damaged (no text {', '.join(missing)}); fetch it again")
    return dict(content)


def _missing(content: Any) -> Sequence[str]:
    return [part for part in _PARTS if not isinstance(content, dict) or not _is_text(content.get(part))]


def _is_text(part: Any) -> bool:
    return isinstance(part, str) and not _HALF.search(part)  # half a character can't be written to any file
