"""The command line as a user meets it: what it prints, its exit codes, and no traceback for a mistake."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from xmodel2.cli import main
from xmodel2.files import replaced_folder

RECIPES = Path(__file__).parents[1] / "recipes"

COMMANDS = (
    ["demo"],
    ["tokenizer", "train"],
    ["tokenizer", "inspect"],
    ["data", "starter"],
    ["data", "prepare"],
    ["data", "inspect"],
    ["data", "verify"],
    ["recipe"],
    ["train"],
    ["average"],
    ["plan"],
    ["search"],
    ["transfer"],
    ["ratio"],
    ["law"],
    ["peer"],
    ["ablate"],
    ["eval"],
    ["eval", "fetch"],
    ["eval", "articles"],
    ["eval", "compare"],
    ["calibrate"],
    ["scaling"],
    ["export"],
    ["quantize"],
    ["import"],
    ["chat"],
    ["serve"],
    ["report"],
    ["reproduce"],
    ["check"],
)


def run(*arguments: str | Path) -> int:
    """Run one command in this process and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command, "--help") == 0
    assert f"Example: xmodel2 {' '.join(command)}" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_sigterm_ends_a_command_and_puts_away_what_is_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children: list[int] = []

    def writes(**_: object) -> None:
        with replaced_folder(tmp_path / "out", False, "export") as folder:
            (folder / "half").write_text("a beginning")
            child = os.fork()
            if not child:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
                os._exit(0)
            children.append(os.waitpid(child, 0)[1])
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("xmodel2.cli.app", SimpleNamespace(cli=writes))
    assert run("export") == 130
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before
    assert [os.WTERMSIG(status) for status in children] == [signal.SIGTERM]  # a fork just ends


def test_help_comes_without_heavy_imports() -> None:
    probe = "import sys, xmodel2.cli; print({'torch', 'transformers', 'pydantic', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train") == 2
    assert run("trian", "x.toml") == 2
    assert run("export", "x", "--dtype", "nothing", "--out", "y") == 2


def test_a_users_mistake_is_one_message_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", tmp_path / "absent.toml") == 1
    error = capsys.readouterr().err
    assert "absent.toml: no such recipe file" in error
    assert "Traceback" not in error


def test_the_road_by_its_commands(road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, recipe = tmp_path / "data", road / "run" / "recipe.toml"
    assert run("data", "prepare", road / "corpus" / "sources.toml", "--out", data) == 0
    assert "held out" in capsys.readouterr().out
    assert run("data", "verify", data) == 0
    assert "all as recorded" in capsys.readouterr().out
    assert run("data", "inspect", data, "--json") == 0
    assert json.loads(capsys.readouterr().out)["sources"]["docs"]["kind"] == "text"
    out = tmp_path / "run"
    assert run("train", recipe, "--set", f"data.dir={data}", "train.heldout_every=0", "--out", out) == 0
    assert "finished at step 20" in capsys.readouterr().out
    assert run("train", recipe, "--set", f"data.dir={data}", "train.heldout_every=0", "--out", out) == 1
    assert "go on with --resume" in capsys.readouterr().err
    assert run("train", recipe, "--set", f"data.dir={data}", "train.heldout_every=0", "--out", out, "--resume") == 0
    assert "already finished" in capsys.readouterr().out
    assert run("eval", out, "--limit", "4", "--json") == 0
    assert json.loads(capsys.readouterr().out)["questions"]["decay"]["count"] == 4
    assert len(json.loads((out / "evaluation" / "step-20" / "transcripts.json").read_text())["decay"]) == 4
    assert run("export", out, "--to", "hf", "--out", tmp_path / "hf") == 0
    assert "largest logit difference" in capsys.readouterr().out
    assert run("report", out) == 0
    assert (out / "report.html").exists()


def test_equal_recipes_and_sources_give_equal_weights(road: Path, tmp_path: Path) -> None:
    from xmodel2.train import load_model

    data = tmp_path / "data"
    assert run("data", "prepare", road / "corpus" / "sources.toml", "--out", data) == 0
    recipe = road / "run" / "recipe.toml"
    assert run("train", recipe, "--set", f"data.dir={data}", "--out", tmp_path / "run") == 0
    first, again = (dict(load_model(path)[0].named_parameters()) for path in (road / "run", tmp_path / "run"))
    assert all((first[name] == again[name]).all() for name in first)


def test_tokenizer_commands(road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [road / "corpus" / f"{name}.jsonl" for name in ("docs", "web")]
    assert run("tokenizer", "train", *files, "--vocab-size", "600", "--out", tmp_path / "tokenizer") == 0
    assert "600 pieces" in capsys.readouterr().out
    assert run("tokenizer", "inspect", tmp_path / "tokenizer", "--files", *files, "--json") == 0
    statistics = json.loads(capsys.readouterr().out)
    assert statistics["round_trip_failures"] == 0
    assert statistics["bytes_per_token"] > 1


def test_plan_of_the_published_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", Path(__file__).parents[1] / "recipes" / "xmodel2-1.2b.toml", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["model"]["parameters"] == 1_251_755_520
    assert plan["model"]["FLOPs a token"] == pytest.approx(9.32e9, rel=0.001)
    assert plan["stages"]["stable"]["tokens"] == pytest.approx(1.5e12, rel=0.001)


def test_check_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "params", "schedule", "--json") == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert [check["name"] for check in checks] == ["params", "schedule"]


def test_chat_answers_a_line_at_a_time(road: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "xmodel2.cli", "chat", str(road / "run"), "--max-new-tokens", "8", "--engine", "torch"],
        input="What is 1 + 1?\n\nAnd 2?\n/nothing\n",
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split("\n")) > 3  # a line a question at least; this model may write spaces alone
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["trian", "nano.toml"], 2, "no command 'trian'. Did you mean 'train'?"),
        (["data"], 2, "data prepare, data inspect, data verify"),
        (["data", "--help"], 0, "data prepare, data inspect, data verify"),
        (["tokenizer", "trian"], 2, "Did you mean 'tokenizer train'?"),
    ],
)
def test_a_word_that_is_no_command(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == code
    assert said in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("xmodel2 0.")


def test_only_train_goes_under_torchrun(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert run("check", "schedule") == 1
    assert "only `train` goes under torchrun" in capsys.readouterr().err


def test_output_that_does_not_take_all_characters_ends_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "60"}
    for arguments in (["--help"], ["rivals"], ["plan", str(RECIPES / "nano.toml"), "--json"]):
        done = subprocess.run([sys.executable, "-m", "xmodel2", *arguments], env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr
        if "--json" in arguments:
            json.loads(done.stdout)


def test_a_folder_that_may_not_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / ".report.html.1.tmp"))

    monkeypatch.setattr("xmodel2.files.os.replace", refused)
    assert run("data", "starter", "--out", tmp_path / "starter") == 1
    assert "Permission denied" in (said := capsys.readouterr().err)
    assert "--out names another place" in said
