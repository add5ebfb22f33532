"""The command from a model, or from an evaluation that is there, to figures and numbers."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xmodel2.cli import main

OVERSTATED = 3.0
QUESTIONS = 60
Evaluation = Callable[..., Path]
Asked = list[tuple[str, str]]


class Guesser:
    """A backend whose true probabilities are known: on the k-th question that of the right letter is 0.4 or 0.7."""

    description = {
        "name": "guesser",
        "backend": "transformers",
        "fingerprint": "1",
        "parameters": 1,
        "dtype": "float32",
    } | {"source": "here"}
    max_length = 1000

    def __init__(self) -> None:
        self.asked: Asked = []

    def token_counts(self, texts: Sequence[str]) -> None:
        """It has no tokens."""

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[int, tuple[float, bool]]]:
        """Yield the overstated log-probability of each letter: A is the likeliest, the others share the rest."""
        for index, (prompt, letter) in enumerate(pairs):
            self.asked.append((prompt, letter))
            sure = 0.4 if int(prompt.rpartition("Question ")[2].split()[0]) % 2 else 0.7
            share = sure if letter.strip() == "A" else (1 - sure) / 3
            yield index, (OVERSTATED * float(np.log(share)) - 5.0, False)


@pytest.fixture
def guesser(monkeypatch: pytest.MonkeyPatch) -> Guesser:
    backend = Guesser()
    monkeypatch.setattr("xmodel2.eval.open_model.open_backend", lambda model, options: backend)
    return backend


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A mirror of MMLU of two subjects, in which A is right as often as the guesser's true probability says."""
    rows = []
    for number in range(QUESTIONS):
        rank, sure = number // 2, 0.4 if number % 2 else 0.7
        answer = 0 if rank < round(sure * QUESTIONS / 2) else 1 + rank % 3
        subject = "anatomy" if number < QUESTIONS / 2 else "virology"
        rows.append({"question": f"Question {number} ?", "choices": list("wxyz"), "answer": answer, "subject": subject})
    file = tmp_path / "mirror" / "mmlu" / "test.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "mirror"


def run(*arguments: str | Path) -> int:
    """Run `calibrate` in this process and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(["calibrate", *map(str, arguments)])
    return int(stop.value.code or 0)


def test_a_model_is_asked_once(
    tmp_path: Path, guesser: Guesser, mirror: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("guesser", "--data-dir", mirror, "--out", out, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    says = [sure**OVERSTATED / (sure**OVERSTATED + 3 * ((1 - sure) / 3) ** OVERSTATED) for sure in (0.4, 0.7)]
    assert found["items"] == QUESTIONS
    assert found["confidence"] == pytest.approx(sum(says) / 2)
    assert found["ece"]["value"] == pytest.approx(sum(says) / 2 - 0.55)
    assert found["temperature"]["value"] == pytest.approx(OVERSTATED, rel=1e-6)
    assert list(found["parts"]) == ["anatomy", "virology"]
    names = {"calibration.json", "calibration.svg", "calibration-subjects.svg", "calibration.html", "results.json"}
    assert names <= {path.name for path in out.iterdir()}
    guesser.asked.clear()
    assert run("guesser", "--data-dir", mirror, "--out", out) == 0
    assert not guesser.asked
    assert "over-confident" in capsys.readouterr().out


def test_from_an_evaluation_that_is_there(
    tmp_path: Path, evaluation: Evaluation, option_items: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = evaluation("run", {"mmlu": option_items("ABCD", "ABCA", "anatomy")})
    assert run("--from", folder, "--out", tmp_path / "other") == 0
    assert "expected calibration error" in capsys.readouterr().out
    assert json.loads((tmp_path / "other" / "calibration.json").read_text())["accuracy"]["value"] == 0.75
    assert not (folder / "calibration.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a MODEL to ask, or --from DIR"),
        (["m", "--from", "d"], "give a MODEL to ask, or --from DIR"),
        (["m", "--task", "gsm8k"], "--task 'gsm8k': must be multiple choice: arc_challenge, "),
        (["m", "--task", "lambada_openai"], "--task 'lambada_openai': must be multiple choice: arc_challenge, "),
        (
            ["--from", "d", "--limit", "3", "--data-dir", "x", "--device", "cpu"],
            "--limit, --data-dir, --device would not",
        ),
        (["m", "--task", "mmul"], "Did you mean 'mmlu'?"),
        (["m", "--limit", "0"], "--limit 0: must be 1 or more"),
        (["--from", "absent"], "absent: no results.json"),
    ],
)
def test_wrong_usage_is_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 1
    assert message in capsys.readouterr().err


def test_a_task_that_was_not_scored_is_named(
    evaluation: Evaluation, option_items: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = evaluation("run", {"arc_easy": option_items("AB", "AA")})
    assert run("--from", folder) == 1
    assert "has arc_easy, and not mmlu" in capsys.readouterr().err.replace("\n", " ")
