"""Steps/s of the household environment beside alfworld's own, `AlfredTWEnv` with a batch of one, on the same games and commands.

    python -m benchmarks.alfworld_steps [--games DIR] [--quick] [--json]

Commands are drawn by a seed from what can be done. What is seen is compared word for word, starts are timed apart from steps, and
the memory of many households open at once is measured in the same process.

    pip install 'xmodel2[alfworld]'
"""

import contextlib
import io
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import Result, argument_parser, machine
from xmodel2.eval.agents.alfworld import AlfworldEnvironment
from xmodel2.eval.agents.alfworld_engine import require
from xmodel2.eval.agents.alfworld_games import Game, find_split, read_games
from xmodel2.eval.agents.made_houses import write_houses

STEPS = 30


def main() -> None:
    """Measure, compare, print."""
    parser = argument_parser(__doc__, "one game of each kind, twelve steps")
    parser.add_argument("--games", type=Path, help="released games; default: made-up households, two of each kind")
    parser.add_argument("--open", type=int, default=64, help="households open at once for the memory")
    options = parser.parse_args()
    steps = 12 if options.quick else STEPS
    with tempfile.TemporaryDirectory() as made:
        if options.games is None:
            write_houses(Path(made), seed=0, each=1 if options.quick else 2)
        split = find_split(options.games or Path(made))
        games = read_games(split)[:12]
        AlfworldEnvironment(games[0]).reset()  # imports the engine
        scripts = {game.file: _commands(game, steps) for game in games}
        starts: dict[str, list[float]] = {"ours": [seconds for _, seconds in scripts.values()], "AlfredTWEnv": []}
        stepped: dict[str, list[float]] = {"ours": [], "AlfredTWEnv": []}
        theirs = _alfred(split)
        by_file = {game.file: game for game in games}
        for _ in games:
            begin = time.perf_counter()
            _, info = theirs.reset()
            starts["AlfredTWEnv"].append(time.perf_counter() - begin)
            file = Path(info["extra.gamefile"][0])
            environment = AlfworldEnvironment(by_file[file])
            environment.reset()
            for command in scripts[file][0]:
                own, seconds = _timed(theirs.step, [command])
                stepped["AlfredTWEnv"].append(seconds)
                turn, seconds = _timed(environment.step, command)
                stepped["ours"].append(seconds)
                if not own[0][0].endswith(turn.observation):
                    raise SystemExit(f"{file}: after {command!r} {own[0][0]!r} and {turn.observation!r} are seen")
                if turn.done:
                    break
        memory = _memory(games, options.open)
    rate = {side: len(seconds) / sum(seconds) for side, seconds in stepped.items()}
    ours, peer = rate["ours"], rate["AlfredTWEnv"]
    Result(
        name="alfworld_steps",
        machine=machine(),
        ours=ours,
        peers={"AlfredTWEnv": peer},
        unit="steps/s",
        ratio_to_best_peer=ours / peer,
        share_of_limit=None,
        limit=None,
        notes=f"{len(games)} games, {len(stepped['ours'])} steps, all seen alike; a start takes "
        f"{median(starts['ours']):.2f} s beside {median(starts['AlfredTWEnv']):.2f}; {options.open} open households "
        f"{memory:.0f} MiB",
    ).show(options.json)


def _timed(call: Callable[[Any], Any], argument: Any) -> tuple[Any, float]:
    begin = time.perf_counter()
    return call(argument), time.perf_counter() - begin


def _commands(game: Game, steps: int) -> tuple[list[str], float]:
    """Return commands for a game, and the seconds of its first start: the next finds its problem translated."""
    environment, chance = AlfworldEnvironment(game), random.Random(game.id)
    _, seconds = _timed(lambda _: environment.reset(), None)
    commands: list[str] = []
    while len(commands) < steps:
        commands.append(chance.choice(environment.commands()))
        if environment.step(commands[-1]).done:
            break
    return commands, seconds


def _alfred(split: Path) -> Any:
    kind = require("alfworld.agents.environment.alfred_tw_env").AlfredTWEnv
    config = {
        "env": {
            "goal_desc_human_anns_prob": 0,
            "task_types": [1, 2, 3, 4, 5, 6],
            "domain_randomization": False,
            "expert_type": "handcoded",
        },
        "dataset": {"eval_ood_data_path": str(split), "num_eval_games": -1},
        "general": {"training_method": "dqn"},
        "rl": {"training": {"max_nb_steps_per_episode": 1000}},
    }
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return kind(config, train_eval="eval_out_of_distribution").init_env(batch_size=1)


def _memory(games: list[Game], number: int) -> float:
    """MiB that households open at once take."""
    before = _resident()
    households = [AlfworldEnvironment(games[index % len(games)]) for index in range(number)]
    for household in households:
        household.reset()
    return _resident() - before


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


if __name__ == "__main__":
    main()
