"""What `transformers` reads from a directory, held against the run that was made of it."""

from pathlib import Path

import torch

from xmodel2.errors import XmodelError
from xmodel2.model.convert import no_progress_bar
from xmodel2.release.exporting.verify import (
    PROMPTS,
    largest_difference,
    prompt_ids,
    reference_logits,
)
from xmodel2.release.trained import open_trained

BOUND = 1e-4
"""Largest difference of two logits, as a share of the largest logit (or of 1, if all are below), that is still rounding."""


@torch.no_grad()
def source_difference(source: Path, run: Path, rounding: float = 0.0) -> float:
    """Return the largest difference of the logits of real prompts; one model is in memory at a time.

    ``rounding``: of a head that is stored beside the embedding, each rounded by itself. Raises `XmodelError` if the difference
    is above `BOUND` or that, or `transformers` cannot load the source.
    """
    from transformers import AutoModelForCausalLM

    trained = open_trained(run)
    prompts = prompt_ids(trained)
    try:
        with no_progress_bar():
            model = AutoModelForCausalLM.from_pretrained(
                source, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
            ).eval()
    except Exception as error:  # of transformers or safetensors
        first = str(error).strip().split("\n", 1)[0]
        raise XmodelError(f"{source}: transformers cannot load it, so nothing can be compared: {first}") from None
    theirs = [model(torch.tensor([prompt])).logits[0] for prompt in prompts]
    del model
    worst = 0.0
    for text, ours, logits in zip(PROMPTS, reference_logits(trained, prompts), theirs, strict=True):
        difference = largest_difference(ours, logits)
        if not difference <= max(BOUND, rounding) * max(1.0, float(logits.abs().max())):
            raise XmodelError(
                f"{source}: logits of {text!r} differ by {difference:.2e} from those of transformers; nothing was imported"
            )
        worst = max(worst, difference)
    return worst
