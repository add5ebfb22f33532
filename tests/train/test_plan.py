"""`xmodel2 plan`: what it computes, what it prints, and what it says of bad input."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from xmodel2.cli import main
from xmodel2.recipe import load_recipe
from xmodel2.train.devices import CPU_MFU
from xmodel2.train.plan import plan_run

RECIPES = Path(__file__).parents[2] / "recipes"
XL, NANO = RECIPES / "xmodel2-1.2b.toml", RECIPES / "nano.toml"


def plan(*arguments: str | Path) -> int:
    """Run the command in this process and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(["plan", *map(str, arguments)])
    return int(stop.value.code or 0)


def result(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    assert plan(*arguments, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_reports_run(capsys: pytest.CaptureFixture[str]) -> None:
    found = result(capsys, XL, "--devices", "8", "--device", "h200", "--mfu", "0.5", "--price-per-hour", "2")
    assert found["model"]["parameters"] == 1_251_755_520
    assert found["model"]["FLOPs a token"] == pytest.approx(9.322e9, rel=1e-3)
    assert found["stages"]["stable"]["steps"] == 381_470
    memory, speed = found["memory"], found["speed"]
    assert memory["peak"] == sum(memory["parts"].values()) == max(memory["phases"].values())
    assert memory["fits"]
    assert not found["advice"]
    assert speed["tokens per second"] == pytest.approx(8 * 0.5 * 989e12 / 11.13e9, rel=1e-3)
    assert speed["dollars"] == pytest.approx(speed["days"] * 24 * 8 * 2)
    assert found["checkpoints"]["bytes"] == 12 * 1_251_755_520


def test_every_proposed_layout_is_one_that_can_be_set_and_fits(capsys: pytest.CaptureFixture[str]) -> None:
    found = result(capsys, XL, "--devices", "8", "--device", "a100-40gb")
    assert found["alternatives"]
    for option in found["alternatives"]:
        assert option["replicate"] * option["shard"] * option["context"] * option["tensor"] == 8
        again = plan_run(load_recipe(XL, option["settings"].split()[1:]), 8, "a100-40gb")
        assert again["memory"]["fits"]
        assert again["memory"]["peak"] == option["bytes"]


def test_what_does_not_fit_is_told_a_setting_that_does(capsys: pytest.CaptureFixture[str]) -> None:
    found = result(capsys, XL, "--devices", "8", "--device", "l40s")
    assert not found["memory"]["fits"]
    settings = found["advice"].split("--set ")[1].split(" does")[0].split()
    assert plan_run(load_recipe(XL, settings), 8, "l40s")["memory"]["fits"]
    alone = result(capsys, XL, "--device", "rtx-4090")
    assert "--devices" in alone["advice"]


@pytest.mark.parametrize(
    ("devices", "settings", "why"),
    [
        (32, [], "960 rows (train.batch_tokens / data.sequence_length) can't be shared by 32"),
        (3, ["parallel.tensor_parallel=3"], "can be cut into 1, 2, 4, 8 parts"),
        (8, ["parallel.data_parallel_shard=6"], "is 6, but there are 8 processes"),
    ],
)
def test_devices_that_the_layout_does_not_go_on_are_planned_with_one_that_does(
    devices: int, settings: list[str], why: str
) -> None:
    found = plan_run(load_recipe(XL, settings), devices)
    assert why in found["advice"]
    changes = found["advice"].split("--set ")[1].split(",")[0].split()
    again = plan_run(load_recipe(XL, [*settings, *changes]), devices)
    assert not again["advice"]
    assert again["layout"] == found["layout"] | {"settings": ""}
    assert again["memory"] == found["memory"]
    assert again["memory"]["fits"]


def test_the_page_shows_what_is_planned(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert plan(XL, "--devices", "8", "--device", "h200") == 0
    shown = [line.rstrip() for line in capsys.readouterr().out.splitlines() if "disk here" not in line]
    page = (RECIPES.parent / "docs" / "training.md").read_text(encoding="utf-8")
    block = page.partition("$ xmodel2 plan recipes/xmodel2-1.2b.toml --devices 8 --device h200\n")[2].partition("```")[
        0
    ]
    assert [line for line in block.splitlines() if "disk here" not in line] == shown


@pytest.mark.parametrize("columns", [80, 120])
def test_people_see_it_whole(columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert plan(XL, "--devices", "8", "--device", "rtx-4090") == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= columns for line in lines)
    text = " ".join(" ".join(lines).split())
    for words in (
        "optimizer moments",
        "does not fit",
        "Layouts that fit",
        "--set train.micro_batch_size=1",
        "an assumption",
    ):
        assert words in text


def test_on_a_cpu_the_rate_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    found = result(capsys, NANO, "--device", "cpu", "--set", "train.precision=fp32", "train.micro_batch_size=1")
    assert found["speed"]["FLOP/s of a device"] > 1e8
    assert found["precision"] == "fp32"


def test_on_a_cpu_faster_products_are_a_smaller_share_of_the_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {"fp32": 1e11, "bf16": 7e11}
    monkeypatch.setattr("xmodel2.train.plan.pick_precision", lambda name, *_: (name, rates[name]))
    slow, fast = (
        result(capsys, NANO, "--device", "cpu", "--set", f"train.precision={precision}")["layout"]
        for precision in rates
    )
    assert slow["mfu"] == pytest.approx(CPU_MFU)
    assert fast["mfu"] == pytest.approx(0.19, abs=0.01)
    assert slow["tokens per second"] < fast["tokens per second"] < 7 * slow["tokens per second"]


def test_processes_on_a_cpu_share_this_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmodel2.train.plan.pick_precision", lambda name, *_: (name, 1e11))
    monkeypatch.setattr("xmodel2.train.plan.usable_cores", torch.get_num_threads)
    quiet = "--set", "train.precision=fp32", "train.micro_batch_size=1"
    one, two = (result(capsys, NANO, "--device", "cpu", "--devices", count, *quiet) for count in "12")
    assert two["speed"]["tokens per second"] == pytest.approx(one["speed"]["tokens per second"])
    assert two["speed"]["dollars"] == pytest.approx(one["speed"]["dollars"])
    assert two["memory"]["device"] == one["memory"]["device"] // 2
    monkeypatch.setattr("xmodel2.train.plan.usable_cores", lambda: 2 * torch.get_num_threads())
    spread = result(capsys, NANO, "--device", "cpu", "--devices", "2", *quiet)
    assert spread["speed"]["tokens per second"] == pytest.approx(2 * one["speed"]["tokens per second"])


def test_mfu_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"step": n, "tokens_per_second": 9.0, "mfu": 0.5, "mfu_nominal": 0.1 * n} for n in range(1, 6)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = result(capsys, XL, "--devices", "8", "--measured", tmp_path)
    assert found["speed"]["mfu"] == pytest.approx(0.4)  # of steps 3 to 5: the first steps compile
    assert plan(NANO, "--device", "cpu", "--set", "train.precision=fp32", "--measured", tmp_path) == 1
    assert "was made on a GPU, which says nothing about cpu" in capsys.readouterr().err


def test_a_run_on_a_gpu_that_is_not_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "tokens_per_second": 9.0, "mfu": 0.5}')
    (tmp_path / "recipe.toml").write_text('train.device = "cuda"')
    assert plan(XL, "--devices", "8", "--measured", tmp_path) == 1
    assert "a GPU whose FLOP/s are not known here; give --mfu" in capsys.readouterr().err
    assert plan(NANO, "--device", "cpu", "--set", "train.precision=fp32", "--measured", tmp_path) == 1
    assert "was made on a GPU, which says nothing about cpu" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recipe", "devices", "changed"),
    [
        (XL, 8, ["train.float8=true"]),
        (NANO, 1, ["train.compile_mode=reduce-overhead", "train.micro_batch_size=32"]),
    ],
)
def test_layouts_that_other_settings_rule_out_are_not_proposed(recipe: Path, devices: int, changed: list[str]) -> None:
    tried = load_recipe(recipe, changed)
    found = plan_run(tried, devices, "rtx-4090")
    for option in found["alternatives"]:
        assert load_recipe(recipe, [*changed, *option["settings"].split()[1:]])


def test_in_fp32_the_rate_is_that_of_fp32(capsys: pytest.CaptureFixture[str]) -> None:
    rates = [
        result(capsys, XL, "--devices", "8", "--set", f"train.precision={name}")["speed"] for name in ("bf16", "fp32")
    ]
    assert [speed["FLOP/s of a device"] for speed in rates] == [989e12, 67e12]
    assert rates[0]["days"] == pytest.approx(rates[1]["days"] * 67 / 989)


def test_a_product_that_this_machine_has_no_room_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("xmodel2.train.plan.pick_precision", full)
    assert plan(NANO, "--device", "cpu", "--set", "model.hidden_size=4000000") == 1
    assert "has no memory for the model's widest product, 4000000 x 1280" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "h2000"], "Did you mean 'h200'?"),
        (["--devices", "0"], "--devices 0: must be at least 1"),
        (["--devices", "7"], "7 processes: a batch of 960 rows"),
        (["--mfu", "45"], "--mfu 45: a share"),
        (["--mfu", "nan"], "--mfu nan: a share"),
        (["--price-per-hour", "-1"], "--price-per-hour -1"),
        (["--measured", "nowhere"], "--measured nowhere: no steps"),
        (["--measured", "nowhere", "--mfu", "0.4"], "give one"),
    ],
)
def test_a_mistake_is_one_message(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(XL, *arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
