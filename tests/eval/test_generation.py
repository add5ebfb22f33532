"""Prompts that begin alike are generated from one computation of their beginning, whatever else is asked in the same call."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.eval.rival_models import NATIVE, tiny_rival
from xmodel2.eval.backend import Prompt
from xmodel2.eval.engine import Engine
from xmodel2.eval.model_options import ModelOptions
from xmodel2.eval.open_model import open_backend


def test_each_subtask_shares_its_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_backend(str(tiny_rival(NATIVE[0], tmp_path, context=256)), ModelOptions(device="cpu"))
    assert isinstance(opened, Engine)
    examples = ["Which is larger? one or two? two. " * 4, "Sort these words: b a. a b. " * 4]
    texts = [start + f"Now {number} times {number}:" for number in range(3) for start in examples]
    texts += ["The sky is", "The sea is", "A"]
    prompts = [Prompt(text, (), 6) for text in texts]
    wanted = [dict(opened.generate([prompt]))[0] for prompt in prompts]
    fed, forward = list[int](), opened.network.logits

    def counted(ids: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        fed.append(ids.numel())
        return forward(ids, *rest, **named)

    monkeypatch.setattr(opened.network, "logits", counted)
    found = dict(opened.generate(prompts))
    assert [found[index] for index in range(len(prompts))] == wanted
    lengths = [len(opened.encode(text)) for text in texts]
    steps = 5 * len(prompts)
    assert sum(fed) - steps < 0.6 * sum(lengths)
