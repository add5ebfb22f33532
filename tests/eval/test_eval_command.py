"""`xmodel2 eval` from the command line: what it prints, where it writes, and what it says of a user's mistakes."""

import json
import shutil
from pathlib import Path

import pytest

from tests.eval.benchmark_rows import ROWS
from tests.eval.rival_models import NATIVE, tiny_rival
from xmodel2.cli import main


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(str(stop.value.code or 0))


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mirror")
    for name, split in (("arc_easy", "test"), ("piqa", "validation")):
        (folder / name).mkdir()
        (folder / name / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[name]))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_rival(NATIVE[0], tmp_path_factory.mktemp("model") / "tiny", context=64)


def test_a_directory_on_single_tasks(
    model: Path, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("eval", model, "--tasks", "arc_easy,piqa", "--data-dir", mirror) == 0
    said = capsys.readouterr().out
    assert "2 of 2,376" in said
    assert "without arc_challenge" in said
    folder = tmp_path / "evaluation" / model.name
    assert f"{folder.relative_to(tmp_path)}/results.html" in said
    assert run("eval", model, "--tasks", "arc_easy", "--data-dir", mirror, "--json") == 0
    assert set(json.loads(capsys.readouterr().out)["tasks"]) == {"arc_easy", "piqa"}


def test_a_run_on_its_own_data_and_a_benchmark(
    road: Path, mirror: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir, out = road / "run", tmp_path / "out"
    arguments = ("--suite", "questions", "--tasks", "piqa", "--data-dir", mirror, "--limit", "2", "--out", out)
    assert run("eval", run_dir, *arguments) == 0
    said = capsys.readouterr().out
    assert "questions answered exactly, step 20 (decay)" in said
    assert "1 of 1,838" in said
    results = json.loads((out / "results.json").read_text())
    assert (results["questions"]["decay"]["count"], results["questions"]["decay"]["limit"]) == (2, 2)
    assert results["model"]["source"].endswith("step 20 (decay)")
    assert run("eval", run_dir / "checkpoints" / "step-12", *arguments) == 1
    assert "choose another --out" in capsys.readouterr().err
    assert run("eval", run_dir / "checkpoints" / "step-12", *arguments, "--overwrite") == 0


def test_tasks_whose_data_is_not_there_are_left_out_and_named(
    model: Path, mirror: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(mirror / "piqa", data / "piqa")
    arguments = ("eval", model, "--data-dir", data, "--out", out, "--skip-missing", "--tasks")
    assert run(*arguments, "arc_easy,piqa,sciq") == 0
    said = capsys.readouterr()
    assert "left out sciq:" in said.err
    assert "sciq/test.jsonl.gz: no such file" in said.err
    assert "without arc_challenge, arc_easy" in said.out
    results = json.loads((out / "results.json").read_text())
    assert (list(results["tasks"]), list(results["skipped"])) == (["piqa"], ["arc_easy", "sciq"])
    shutil.copytree(mirror / "arc_easy", data / "arc_easy")
    assert run(*arguments, "arc_easy") == 0
    results = json.loads((out / "results.json").read_text())
    assert (list(results["tasks"]), list(results["skipped"])) == (["arc_easy", "piqa"], ["sciq"])
    assert run(*arguments, "sciq") == 1
    assert "no task's data is there" in capsys.readouterr().err
    (data / "piqa" / "validation.jsonl").write_text("{}\n")
    assert run(*arguments, "piqa,arc_easy") == 1
    assert "validation.jsonl, line 1: field 'goal' is missing" in capsys.readouterr().err


def test_a_limit_is_said_of_what_it_was_of(road: Path, mirror: Path, tmp_path: Path) -> None:
    out, tasks = tmp_path / "out", ("--tasks", "piqa", "--data-dir", mirror)
    limits = []
    for arguments in (("--suite", "questions", "--limit", "2"), tasks, ("--suite", "questions", "--limit", "1")):
        assert run("eval", road / "run", *arguments, "--out", out) == 0
        results = json.loads((out / "results.json").read_text())
        limits.append((results["settings"]["limit"], results["questions"]["decay"]["limit"]))
    assert limits == [(2, 2), (None, 2), (None, 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--suite", "commonsens"), "Did you mean 'commonsense'?"),
        (("--tasks", "arc_eazy"), "Did you mean 'arc_easy'?"),
        (("--suite", "heldout"), "is no run of ours"),
        (("--tasks", "piqa", "--limit", "0"), "--limit 0: must be 1 or more"),
        (("--tasks", "boolq"), "boolq/validation.jsonl.gz: no such file (nor .jsonl); with a network"),
        (("--tasks", "piqa", "--device", "tpu9"), "--device tpu9"),
        (("--tasks", "piqa", "--backend", "endpoint"), "give --base-url"),
    ],
)
def test_mistakes_are_told(
    model: Path,
    mirror: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("eval", model, "--data-dir", mirror, "--out", tmp_path / "out", *arguments) == 1
    assert message in capsys.readouterr().err.replace("\n", "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "no such directory, and neither a hub id"),
        ("Qwen2.5-1.5", "Did you mean 'Qwen2.5-1.5B'?"),
        ("OpenELM-1.1B", "allow it with --trust-remote-code"),
        ("/tmp", "neither a run, a checkpoint, nor a model directory"),
    ],
)
def test_models_that_cannot_be_opened(
    name: str, message: str, mirror: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("eval", name, "--tasks", "piqa", "--data-dir", mirror, "--out", tmp_path / "out") == 1
    assert message in capsys.readouterr().err.replace("\n", "")


def test_a_directory_without_weights_or_with_remote_code(
    model: Path, mirror: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((model / "config.json").read_text())
    arguments = ("--tasks", "piqa", "--data-dir", mirror, "--out", tmp_path / "out")
    assert run("eval", broken, *arguments) == 1
    assert "cannot be loaded" in capsys.readouterr().err
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "x.Config", "AutoModelForCausalLM": "x.Model"}}
    (broken / "config.json").write_text(json.dumps(config))
    (broken / "x.py").write_text("raise SystemExit('was run')")
    assert run("eval", broken, *arguments) == 1
    assert "--trust-remote-code" in capsys.readouterr().err
