"""WebShop's environment: what can be done on which page, and that nothing a model writes breaks it."""

import random
import time

import pytest

from xmodel2.eval.agents.environment import Turn
from xmodel2.eval.agents.options import PageStyle
from xmodel2.eval.agents.products import Instruction, Product
from xmodel2.eval.agents.shop_environment import ShopEnvironment
from xmodel2.eval.agents.shop_goals import make_goal
from xmodel2.eval.agents.shop_pages import INVALID

STYLES: tuple[PageStyle, ...] = ("react", "text", "text_rich")
PRODUCTS = [
    Product(
        asin=f"B00000000{number}" if number < 10 else f"B0000000{number}",
        title=f"Lamp {number}",
        query="lamps",
        category="garden",
        product_category="Home › Lamps",
        description="It shines.",
        bullet_points=("One bulb",),
        attributes=("easy clean",),
        options={"color": ("red", "sea blue"), "size": ("s", "buy now")},
        pricing=(5.0, 7.5),
        price=6.0,
    )
    for number in range(12)
]
HOSTILE = [
    *(
        "",
        " ",
        "[",
        "]",
        "][",
        "search",
        "search[",
        "search[]",
        "search[ ]",
        "click",
        "click[",
        "click[]",
        "click]",
        "buy",
    ),
    *("click[" * 50, "[" * 10_000, "]" * 10_000, "click[" + "a" * 10_000 + "]", "search[" + "a" * 10_000),
    *(
        "click[\x1b[31mred]",
        "click[<b>]",
        "Search[lamp]",
        "finish[now]",
        "click[Next >",
        "\n",
        "click[B00000000X]",
        "🙂[🙂]",
    ),
]


def shop(style: PageStyle) -> ShopEnvironment:
    goal = make_goal(PRODUCTS[3], Instruction("i want a lamp", ("easy clean",), ("sea blue",)), 10.0)
    return ShopEnvironment(
        goal, PRODUCTS, lambda query: range(12), lambda product, options: 1.0 if "color" in options else 0.5, style
    )


def play(environment: ShopEnvironment, *actions: str) -> Turn:
    turns = [environment.step(action) for action in actions]
    assert all(turn.valid for turn in turns), actions
    return turns[-1]


def test_an_episode_in_the_style_of_react() -> None:
    environment = shop("react")
    wish = "i want a lamp, and price lower than 10.00 dollars"
    assert environment.reset() == f"\nWebshop \nInstruction:  \n{wish} \n[Search] "
    page = play(environment, "search[lamp]").observation
    assert page.startswith(
        "\n[Back to Search] \nPage 1 (Total results: 12) \n[Next >] \n[B000000000] \nLamp 0 \n$5.0 to $7.5 "
    )
    assert page.count("Lamp") == 3
    assert "\ncolor [red][sea blue]\nsize [s][buy now]\nLamp 7 " in play(environment, "click[B000000007]").observation
    assert play(environment, "click[sea blue]").observation == "You have clicked sea blue."
    assert play(environment, "click[Features]").observation == "\n[Back to Search] \n[< Prev] \n One bulb "
    assert "[red][[sea blue]]" in play(environment, "click[< Prev]").observation
    assert environment.answer == ""
    assert environment.scores() == {"success_rate": 0.0, "score": 0.0}
    assert play(environment, "click[Buy Now]") == Turn("Your score (min 0.0, max 1.0): 1.0", 1.0, True)
    assert environment.answer == "B000000007 (color: sea blue)"
    assert environment.scores() == {"success_rate": 1.0, "score": 1.0}
    assert environment.step("click[Back to Search]") == Turn(INVALID, 1.0, True, False)
    environment.reset()
    assert environment.answer == ""
    assert environment.step("click[Buy Now]").valid is False


def test_react_takes_buttons_as_written_and_one_page_of_results() -> None:
    environment = shop("react")
    assert not environment.step("click[Back to Search]").valid
    play(environment, "search[lamp]")
    for action in (
        "search[lamp]",
        "click[Next >]",
        "click[< Prev]",
        "click[b000000001]",
        "click[B000000011]",
        "click[Buy Now]",
    ):
        assert environment.step(action) == Turn(INVALID, valid=False)
    play(
        environment, "click[B000000001]", "click[Attributes]", "click[< Prev]", "click[< Prev]", "click[Back to Search]"
    )
    assert environment.can_search


def test_webshops_own_styles_take_any_case_and_all_pages() -> None:
    environment = shop("text")
    play(environment, "search[lamp]", "click[NEXT >]")
    assert "Lamp 11" in play(environment, "click[< prev]", "click[next >]").observation
    play(environment, "click[B000000011]", "click[Sea Blue]", "click[description]", "click[< Prev]", "search[again]")
    assert not environment.step("click[attributes]").valid
    assert play(environment, "click[b000000000]", "click[Buy Now] please").reward == 0.5


@pytest.mark.parametrize("style", STYLES)
def test_what_cannot_be_done_changes_nothing(style: PageStyle) -> None:
    chance = random.Random(style)
    environment, other = shop(style), shop(style)
    started = time.monotonic()
    for _ in range(20):
        for action in HOSTILE:
            assert environment.step(action) == Turn(INVALID, valid=False), action[:50]
        action = f"click[{chance.choice(buttons)}]" if (buttons := list(other.buttons())) else "search[lamp]"
        if "buy now" not in action.lower():
            assert environment.step(action) == other.step(action)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("style", STYLES)
def test_the_same_actions_give_the_same_turns(style: PageStyle) -> None:
    chance = random.Random(1)
    environment, other = shop(style), shop(style)
    for _ in range(300):
        action = f"click[{chance.choice(buttons)}]" if (buttons := list(environment.buttons())) else "search[x]"
        turn = environment.step(action)
        assert turn.valid
        assert turn == other.step(action)
        if turn.done:
            assert environment.reset() == other.reset()


def test_a_very_long_search_is_a_search() -> None:
    assert shop("react").step(f"search[{'lamp ' * 2000}]").valid
