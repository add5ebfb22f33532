"""What is held against what, and that nothing is published that is not ours."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.release.exporting.conftest import MakeRun
from xmodel2.errors import XmodelError
from xmodel2.model import Xmodel2
from xmodel2.release.exporting import formats
from xmodel2.release.exporting.formats import LAYOUTS, export_model
from xmodel2.release.exporting.verify import check_difference, largest_difference, prompt_ids, reference_logits
from xmodel2.release.trained import open_trained


def test_the_reference_is_the_model_itself(road: Path) -> None:
    for path in (road / "run", road / "hf"):
        trained = open_trained(path)
        prompts = prompt_ids(trained)
        model = trained.load()
        with torch.no_grad():
            for ids, logits in zip(prompts, reference_logits(trained, prompts), strict=True):
                assert torch.equal(logits, model(torch.tensor([ids]))[0])


@pytest.mark.parametrize("name", ["hf", "llama"])
@pytest.mark.parametrize(
    "wrong", [{"rms_norm_eps": 0.1}, {"rope_parameters": {"rope_type": "default", "rope_theta": 10.0}}]
)
def test_a_wrong_export_is_not_published(
    road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, wrong: dict[str, Any]
) -> None:
    right = LAYOUTS[name]
    layout = replace(right, config=lambda *args: {**right.config(*args), **wrong})
    monkeypatch.setattr(formats, "LAYOUTS", {name: layout})
    with pytest.raises(
        XmodelError, match=r"differ from ours by .*, more than 1e-04, for 'def main.*nothing was published"
    ):
        export_model(road / "run", [name], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_another_architecture_is_not_published(road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = replace(LAYOUTS["llama"], architecture="GraniteForCausalLM")
    monkeypatch.setattr(formats, "LAYOUTS", {"llama": layout})
    with pytest.raises(XmodelError, match="loads it as LlamaForCausalLM, not GraniteForCausalLM"):
        export_model(road / "run", ["llama"], tmp_path / "out")


def test_weights_that_are_not_numbers_are_named(make_run: MakeRun, tmp_path: Path) -> None:
    def spoil(model: Xmodel2) -> None:
        model.norm.weight[3] = torch.nan

    run = make_run(spoil)
    with pytest.raises(
        XmodelError, match=r"tensor model\.norm\.weight: holds nan, not a finite number; nothing was publ"
    ):
        export_model(run, ["hf"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_float16_cannot_hold_is_named(make_run: MakeRun, tmp_path: Path) -> None:
    def enlarge(model: Xmodel2) -> None:
        model.norm.weight[3] = 70_000.0

    run = make_run(enlarge)
    with pytest.raises(XmodelError, match=r"tensor model\.norm\.weight: holds 70000\.0, which float16 can't hold"):
        export_model(run, ["hf"], tmp_path / "out", dtype="float16")


def test_logits_that_are_not_numbers_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    def enlarge(model: Xmodel2) -> None:
        model.layers[0].mlp.down_proj.weight.fill_(3e38)

    run = make_run(enlarge)
    with pytest.raises(XmodelError, match=r"our own logits are not numbers .* for 'def main"):
        export_model(run, ["hf"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "wrong"), [("max_position_embeddings", 32), ("rms_norm_eps", 1.001e-5), ("eos_token_id", 5)]
)
def test_what_logits_show_little_of_is_compared(
    road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, wrong: float
) -> None:
    right = LAYOUTS["hf"]
    layout = replace(right, config=lambda *args: {**right.config(*args), key: wrong})
    monkeypatch.setattr(formats, "LAYOUTS", {"hf": layout})
    with pytest.raises(XmodelError, match=rf"config\.json: {key} is {wrong}, and ours .*; nothing was published"):
        export_model(road / "run", ["hf"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_export_of_small_logits_is_not_published(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lessen(model: Xmodel2) -> None:
        model.norm.weight *= 1e-3

    run = make_run(lessen)
    (report,) = export_model(run, ["hf"], tmp_path / "right")
    assert report["max_abs_difference"] < 1e-6
    right = LAYOUTS["hf"]
    wrong = {"rope_parameters": {"rope_type": "default", "rope_theta": 10_500.0}}
    monkeypatch.setattr(
        formats, "LAYOUTS", {"hf": replace(right, config=lambda *args: {**right.config(*args), **wrong})}
    )
    with pytest.raises(XmodelError, match=r"differ from ours by \d\.\d+e-0[56], more than \de-0[67]"):
        export_model(run, ["hf"], tmp_path / "wrong")


def test_differences() -> None:
    one = torch.tensor([[1.0, 3.0]])
    assert largest_difference(one, one + 0.5) == 0.5
    assert check_difference("x", one, one + 2**-14) == 2**-14
    assert check_difference("x", one * 0, one * 0 + 2**-22) == 2**-22
    with pytest.raises(XmodelError, match="more than 1e-06"):
        check_difference("x", one * 1e-3, one * 1.01e-3)
    with pytest.raises(XmodelError, match=r"by 5\.00e-01, more than 1e-04, for 'a prompt'"):
        check_difference("a prompt", one, one + 0.5)
    with pytest.raises(XmodelError, match=r"its logits are not numbers \(NaN\)"):
        check_difference("x", one, one * torch.nan)
