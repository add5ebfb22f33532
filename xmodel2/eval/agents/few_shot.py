"""Examples that stand before a task: ReAct's own where their files are there, else episodes that the oracle plays."""

from collections.abc import Mapping
from pathlib import Path

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.dialogue import THOUGHT_SEEN, Dialogue, Move
from xmodel2.eval.agents.environment import Environment, Player, Turn
from xmodel2.eval.mirror import read_rows

PROMPTS_FOLDER = "react-prompts"
"""Below the folder of agent data: NAME.jsonl or NAME.jsonl.gz, lines of ``name`` and ``prompt``."""


def react_prompts(agents_dir: Path | None, file: str, names: tuple[str, ...]) -> Mapping[str, str] | None:
    """Return prompts of ReAct by name, None if the file is not there.

    Raises `XmodelError` naming the file, and the line or name that is not as it should be.
    """
    if agents_dir is None:
        return None
    found = [path for end in (".jsonl", ".jsonl.gz") if (path := agents_dir / PROMPTS_FOLDER / f"{file}{end}").exists()]
    if not found:
        return None
    prompts = {str(row.get("name")): row.get("prompt") for row in read_rows(found[0])}
    for name in names:
        if not isinstance(prompts.get(name), str):
            raise XmodelError(f"{found[0]}: has no prompt named {name!r}; fetch it again, or remove the file")
    return {name: str(prompts[name]) for name in names}


def play_example(dialogue: Dialogue, environment: Environment, player: Player, step_limit: int) -> str:
    """Return an episode as text, from its task to the observation of its last action.

    Raises `XmodelError` if the player does not solve it: an example shows how it is done.
    """
    turn, answers, number = Turn(environment.reset()), list[str](), 0
    text = dialogue.begin(turn.observation)
    while number < step_limit and not turn.done:
        answers = answers or dialogue.tell(number + 1, player.move(turn.observation))
        number += 1
        move, observation = dialogue.read(number, answers.pop(0)), THOUGHT_SEEN
        assert isinstance(move, Move)  # of a player
        if move.action:
            turn = environment.step(move.action)
            observation = turn.observation
        text += dialogue.write(number, move, observation)
    if turn.reward < 1:
        raise XmodelError("an example of the made-up world is not solved by its oracle; this is a fault of xmodel2")
    return text
