"""What was written is loaded again and held against our own logits on real prompts; one model is in memory at a time.

trained -> reference_logits (model loaded, then freed) -> what was written gives its own -> check_logits
"""

from collections.abc import Sequence

import torch

from xmodel2.errors import XmodelError
from xmodel2.model import Xmodel2
from xmodel2.release.trained import Trained
from xmodel2.tokenizer import load_tokenizer

BOUND = 1e-4
"""Largest difference of two logits that is still rounding; above it nothing is published."""
PROMPTS = (
    "def main():\n    return 0",
    "The language model was trained on text and code.",
    "Licence",
    "A list of numbers: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, and so on.",
    "Ein Größenvergleich: 世界, мир, 🙂.",
)

Logits = list[torch.Tensor]
"""Of each prompt [positions, vocabulary], fp32."""


def prompt_ids(trained: Trained) -> list[list[int]]:
    """Return `PROMPTS` in the model's own ids. Raises `XmodelError` if its tokenizer has ids that the model lacks."""
    tokenizer = load_tokenizer(trained.tokenizer_dir)
    if tokenizer.vocab_size > trained.settings.vocab_size:
        raise XmodelError(
            f"{trained.tokenizer_dir}: has {tokenizer.vocab_size:,} pieces, and the model's vocab_size is"
            f" {trained.settings.vocab_size:,}; give the model the tokenizer that it was trained with"
        )
    ids = [tokenizer.encode_document(text)[:-1] for text in PROMPTS]
    return [prompt[: trained.settings.max_position_embeddings] for prompt in ids]


@torch.no_grad()
def reference_logits(trained: Trained, prompts: Sequence[Sequence[int]]) -> Logits:
    """Return our own logits of each prompt (fp32, CPU); the model is freed."""
    return own_logits(trained.load(), prompts)


@torch.no_grad()
def own_logits(model: Xmodel2, prompts: Sequence[Sequence[int]]) -> Logits:
    """Return a loaded model's logits of each prompt."""
    return [model(torch.tensor([list(prompt)]))[0] for prompt in prompts]


def largest_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return the largest absolute difference of two tensors of one shape; NaN if there is one in either."""
    return float((ours.float() - theirs.float()).abs().max())
