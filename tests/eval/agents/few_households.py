"""Small households of each kind, for the tests of ALFWorld; how they are changed, released and played."""

from pathlib import Path
from typing import Any

from xmodel2.eval.agents.alfworld import AlfworldEnvironment
from xmodel2.eval.agents.alfworld_games import Game, find_split, read_games
from xmodel2.eval.agents.made_houses import write_houses


def few_games(folder: Path) -> dict[str, Game]:
    """Return a made-up game of each kind."""
    write_houses(folder, seed=1, each=1, small=True)
    return {game.kind: game for game in read_games(find_split(folder))}


def changed(game: Game, **content: str) -> AlfworldEnvironment:
    """Return a game with other content."""
    return AlfworldEnvironment(Game(**{**vars(game), "content": {**game.content, **content}}))


def released(folder: Path, games: dict[str, Game], trial: str = "trial_T1") -> Path:
    """Write games as a release has them, and return their folder."""
    for game in games.values():
        target = folder / game.file.parents[1].name / trial / game.file.name
        target.parent.mkdir(parents=True)
        target.write_bytes(game.file.read_bytes())
    return folder


def play(environment: AlfworldEnvironment, player: Any, most: int = 49) -> list[tuple[str, str]]:
    """Play an episode without thoughts; return commands and observations."""
    observation, told = environment.reset(), []
    for _ in range(most):
        move = player.move(observation)
        turn = environment.step(move.action)
        observation = turn.observation
        told.append((move.action, observation))
        if turn.done:
            break
    return told


def older(grammar: str) -> str:
    """Return a grammar with the sentences of the games before alfworld 0.4."""
    grammar = grammar.replace("move {o} to {r}", "put {o} in/on {r}")
    grammar = grammar.replace("You arrive at {r.name}", "You arrive at {lend.name}")
    return grammar.replace("You move the {o.name} to the {r.name}", "You put the {o.name} in/on the {r.name}")
