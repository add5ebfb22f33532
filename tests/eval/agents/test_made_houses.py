"""Households made for ALFWorld's engine: the same from a seed, and laid out as the release."""

import re

from xmodel2.eval.agents.alfworld_games import KINDS, find_split, read_games
from xmodel2.eval.agents.made_houses import write_houses


def content(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("game.tw-pddl")}


def test_a_seed_gives_the_same_games_and_another_gives_others(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_houses(tmp_path / name, seed, 1)
    first = content(tmp_path / "a")
    assert len(first) == 6
    assert first == content(tmp_path / "b")
    assert not set(first.values()) & set(content(tmp_path / "c").values())


def test_splits_share_no_game(tmp_path):
    write_houses(tmp_path, 0, 2)
    write_houses(tmp_path, 0, 2, "train")
    games = {
        split: {g.content["problem"] for g in read_games(find_split(tmp_path, split))}
        for split in ("train", "valid_unseen")
    }
    assert not games["train"] & games["valid_unseen"]


def test_every_game_asks_for_what_is_not_done_and_can_be(tmp_path):
    write_houses(tmp_path, 3, 12)
    games = read_games(find_split(tmp_path))
    assert len(games) == 72
    for game in games:
        problem = game.content["problem"].lower().partition("(:goal")[0]
        assert game.kind in KINDS.values()
        assert game.target in game.goal
        assert game.place in game.goal
        things = re.findall(rf"\(objecttype (\S+) {game.target}type\)", problem)
        assert len(things) >= (2 if game.kind == "puttwo" else 1)
        places = dict(re.findall(r"\(receptacletype (\S+) (\S+)type\)", problem))
        for thing in things:
            (place,) = re.findall(rf"\(inreceptacle {thing} (\S+)\)", problem)
            assert places[place] != game.place
            assert f"(pickupable {thing})" in problem
            if game.kind in ("clean", "heat", "cool"):
                assert f"({game.kind}able {thing})" in problem
        if game.kind == "examine":
            assert re.search(rf"\(objecttype \S+ {game.place}type\)", problem)
        else:
            assert f"(cancontain {game.place}type {game.target}type)" in problem
            assert game.place in places.values()
