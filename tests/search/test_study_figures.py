"""Figures of a study, and the table that runs along."""

import time
from pathlib import Path

import numpy as np
import optuna
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from xmodel2.search.study_figures import importance, write_figures
from xmodel2.search.study_table import StudyTable

SPACE: dict[str, BaseDistribution] = {
    "train.learning_rate": FloatDistribution(0.001, 0.1, log=True),
    "model.dim_model_base": CategoricalDistribution([32, 64]),
    "model.scale_emb": FloatDistribution(2, 20),
}


def study_of(count: int) -> optuna.Study:
    """Return a study in which the rate is all that matters, with a trial that diverged."""
    study = optuna.create_study()
    for number in range(count):
        rate = 10 ** (-3 + 2 * number / count)
        values = {
            "train.learning_rate": rate,
            "model.dim_model_base": (32, 64)[number * 7 % 2],
            "model.scale_emb": 2.0 + number * 7 % 18,
        }
        study.add_trial(create_trial(params=values, distributions=SPACE, value=3 + abs(rate - 0.01) * 20))
    diverged = {"ended": "diverged: x"}
    values = {"train.learning_rate": 0.1, "model.dim_model_base": 32, "model.scale_emb": 3.0}
    study.add_trial(create_trial(params=values, distributions=SPACE, state=TrialState.PRUNED, user_attrs=diverged))
    return study


def test_each_figure_names_what_it_draws(tmp_path: Path) -> None:
    write_figures(study_of(30), tmp_path)
    texts = {path.stem: path.read_text() for path in tmp_path.glob("*.svg")}
    assert set(texts) == {"history", "importance", "slices", "contours"}
    assert all(key in texts[name] for key in SPACE for name in ("importance", "slices", "contours"))
    assert "diverged" in texts["history"]
    assert "pruned" not in texts["history"]
    assert "later trials are darker" in texts["slices"]


def test_trials_at_the_ends_of_ranges_are_drawn_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr("xmodel2.search.study_figures.svg", lambda figure: drawn.append(figure) or "<svg/>")
    write_figures(study_of(30), tmp_path)
    for axes in drawn[-1].axes[:3]:
        low, high = zip(axes.get_xlim(), axes.get_ylim(), strict=True)
        points = np.concatenate([part.get_offsets() for part in axes.collections if isinstance(part, PathCollection)])
        assert (points.min(axis=0) > low).all()
        assert (points.max(axis=0) < high).all()


def test_a_study_with_few_trials_has_a_history_only(tmp_path: Path) -> None:
    write_figures(study_of(2), tmp_path)
    write_figures(study_of(0), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["history.svg"]


def test_importance_finds_the_key_that_matters() -> None:
    weights = importance(study_of(40), list(SPACE))
    assert max(weights, key=lambda key: weights[key]) == "train.learning_rate"
    assert sum(weights.values()) == pytest.approx(1)


def test_where_there_is_no_terminal_each_trial_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    study, repeats = study_of(3), optuna.create_study()
    with StudyTable(study, repeats, 6):
        study.add_trial(study.trials[0])
        time.sleep(0.01)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "going on: 4 trials are there, 6 wanted"
    assert lines[1].startswith(
        "trial 4  learning_rate=0.001 dim_model_base=32 scale_emb=2  complete 3.1800  5/6 trials, best"
    )
    assert "left" in lines[1]
    assert len(lines) == 2


def test_repeats_with_other_seeds_are_no_trials_that_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    study, repeats = study_of(3), optuna.create_study()
    repeats.add_trial(study.trials[0])
    with StudyTable(study, repeats, 6):
        pass
    assert capsys.readouterr().err.startswith("going on: 4 trials are there, 6 wanted")


def test_on_a_terminal_it_is_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    study = study_of(3)
    running = study.ask(SPACE)
    running.report(3.25, 100)
    with StudyTable(study, optuna.create_study(), 6):
        pass
    text = capsys.readouterr().err
    assert all(word in text for word in ("learning_rate", "diverged", "running", "3.2500", "4/6 trials"))
