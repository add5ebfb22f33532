"""Released ALFWorld games as they lie in a folder, whole and damaged."""

import json

import pytest

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.alfworld_games import find_split, read_games

GOOD = {
    "pddl_domain": "(define (domain alfred))",
    "grammar": '"task": [{"rhs": "Your task is to: put a mug in desk."}]',
    "pddl_problem": "(define (problem p))",
    "solvable": True,
}


def release(folder, tasks, split="json_2.1.1/valid_unseen", content=GOOD, file="game.tw-pddl"):
    for task in tasks:
        trial = folder / split / task / "trial_T1"
        trial.mkdir(parents=True)
        (trial / "traj_data.json").write_text("{}")
        (trial / file).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.mark.parametrize("inside", [".", "json_2.1.1", "json_2.1.1/valid_unseen"])
def test_games_are_found_from_any_folder_above(tmp_path, inside):
    release(tmp_path, ["pick_and_place_simple-Mug-None-Desk-308"])
    (game,) = read_games(find_split(tmp_path / inside))
    assert (game.id, game.kind) == ("pick_and_place_simple-Mug-None-Desk-308/trial_T1", "put")
    assert (game.target, game.place, game.goal) == ("mug", "desk", "put a mug in desk")
    assert set(game.content) == {"domain", "grammar", "problem"}


def test_the_newer_release_goes_first(tmp_path):
    release(tmp_path, ["pick_and_place_simple-Mug-None-Desk-308"])
    release(tmp_path, ["pick_and_place_simple-Mug-None-Desk-308"], "json_2.1.2/valid_unseen")
    assert find_split(tmp_path) == tmp_path / "json_2.1.2" / "valid_unseen"


def test_a_release_whose_newer_folder_has_no_games_is_read_from_the_older(tmp_path):
    release(tmp_path, ["pick_and_place_simple-Mug-None-Desk-308"])
    release(tmp_path, ["pick_and_place_simple-Mug-None-Desk-308"], "json_2.1.2/valid_unseen", file="initial_state.pddl")
    assert find_split(tmp_path) == tmp_path / "json_2.1.1" / "valid_unseen"


def test_what_alfworld_leaves_out_is_left_out(tmp_path):
    release(
        tmp_path,
        [
            "pick_and_place_with_movable_recep-Pen-Mug-Desk-1",
            "pick_heat_then_place_in_recep-AppleSliced-None-Fridge-1",
            "pick_three_obj_and_place-Pen-None-Desk-1",
            "pick_cool_then_place_in_recep-Apple-None-Sink-1",
        ],
    )
    release(tmp_path, ["pick_two_obj_and_place-Pen-None-Desk-1"], content={**GOOD, "solvable": False})
    release(tmp_path, ["look_at_obj_in_light-Pen-None-DeskLamp-1"], content={**GOOD, "solvable": None})
    assert [game.kind for game in read_games(find_split(tmp_path))] == ["cool"]


def test_the_first_few_games_have_every_kind(tmp_path):
    release(tmp_path, [f"look_at_obj_in_light-Pen-None-DeskLamp-{n}" for n in (1, 2)])
    release(tmp_path, [f"pick_and_place_simple-Pen-None-Desk-{n}" for n in (2, 10, 1)])
    release(tmp_path, ["pick_heat_then_place_in_recep-Egg-None-Fridge-1"])
    kinds = [game.kind for game in read_games(find_split(tmp_path))]
    assert kinds == ["put", "heat", "examine", "put", "examine", "put"]


def test_nothing_left_is_an_error(tmp_path):
    release(tmp_path, ["pick_two_obj_and_place-Pen-None-Desk-1"], content={**GOOD, "solvable": False})
    with pytest.raises(XmodelError, match="none of its 1 games is a solvable one"):
        read_games(find_split(tmp_path))


def test_an_empty_folder_says_what_to_fetch(tmp_path):
    with pytest.raises(XmodelError, match=r"no games of ALFWorld.*xmodel2 eval fetch --suite agents.*tw-pddl\.zip"):
        find_split(tmp_path)


@pytest.mark.parametrize("file", ["initial_state.pddl", "other.json"])
def test_problems_without_games_say_which_download_is_missing(tmp_path, file):
    release(tmp_path, ["pick_and_place_simple-Mug-None-Desk-308"], file=file)
    with pytest.raises(XmodelError, match=r"has ALFWorld's problems but no game\.tw-pddl.*json_2\.1\.3_tw-pddl\.zip"):
        find_split(tmp_path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "damaged .*fetch it again"),
        ("[" * 100_000, "damaged .*recursion.*fetch it again"),
        ("[]", "no text pddl_domain, grammar, pddl_problem"),
        ({**GOOD, "grammar": None}, r"damaged \(no text grammar\)"),
        ({**GOOD, "pddl_problem": "\ud800"}, r"damaged \(no text pddl_problem\)"),
        ({key: text for key, text in GOOD.items() if key != "pddl_problem"}, "no text pddl_problem"),
        ({**GOOD, "grammar": "nothing"}, "names no task"),
    ],
)
def test_a_damaged_game_is_named(tmp_path, content, complaint):
    release(tmp_path, ["pick_and_place_simple-Mug-None-Desk-308"], content=content)
    with pytest.raises(XmodelError, match=rf"Desk-308.trial_T1.game\.tw-pddl: .*{complaint}"):
        read_games(find_split(tmp_path))


def test_a_binary_game_is_named(tmp_path):
    release(tmp_path, ["pick_and_place_simple-Mug-None-Desk-308"])
    next(tmp_path.rglob("game.tw-pddl")).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(XmodelError, match=r"game\.tw-pddl: damaged"):
        read_games(find_split(tmp_path))


def test_a_misnamed_folder_is_named(tmp_path):
    release(tmp_path, ["pick_and_place_simple-Mug"])
    with pytest.raises(XmodelError, match="folder must be named TASK-OBJECT-MOVABLE-RECEPTACLE-SCENE"):
        read_games(find_split(tmp_path))
