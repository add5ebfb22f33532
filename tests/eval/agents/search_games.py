"""Questions and claims played without a model."""

import random

from xmodel2.eval.agents.environment import PLAYERS, Benchmark, Case


def play(benchmark: Benchmark, player: str, cases: list[Case]) -> float:
    """Return the mean exact match; all but the random player must come to an end."""
    solved = 0.0
    for case in cases:
        environment = benchmark.open(case)
        moves = benchmark.players[player](environment, random.Random(case.id))
        observation, done = environment.reset(), False
        for _ in range(benchmark.step_limit):
            if not done:
                turn = environment.step(moves.move(observation).action)
                observation, done = turn.observation, turn.done
        assert done or player == "random"
        solved += environment.scores()["exact_match"]
    return solved / len(cases)


def check_players(benchmark: Benchmark, cases: list[Case]) -> None:
    """Check that the oracle is right, chance is not, a rule is in between, and that they play the same game twice."""
    scores = {player: play(benchmark, player, cases) for player in PLAYERS}
    assert scores == {player: play(benchmark, player, cases) for player in PLAYERS}
    assert scores["oracle"] == 1
    assert scores["random"] <= 0.05
    assert scores["random"] + 0.05 < scores["scripted"] < 0.9
