"""What was written is loaded again and held against our own logits on real prompts; one model is in memory at a time.

trained -> reference_logits (model loaded, then freed) -> what was written gives its own -> check_difference, check_config
"""

import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from xmodel2.errors import XmodelError
from xmodel2.model.convert import HEAD, no_progress_bar
from xmodel2.recipe import ModelSettings
from xmodel2.release.exporting.weights import EMBEDDING, AsWritten, native_tensors, own_model
from xmodel2.release.trained import Trained
from xmodel2.tokenizer import Tokenizer

BOUND = 1e-4
"""Largest difference of two logits that is still rounding, of a spread of 1 and more; above it nothing is published."""
PROMPTS = (
    "def main():\n    return 0",
    "The language model was trained on text and code.",
    "Licence",
    "A list of numbers: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, and so on.",
    "Ein Größenvergleich: 世界, мир, 🙂.",
)

_ROUNDING = 2.0**-20
"""Of a logit in fp32 after some hundred sums, as a share of it."""

Logits = list[torch.Tensor]
"""Of each prompt [positions, vocabulary], fp32."""


def prompt_ids(trained: Trained) -> list[list[int]]:
    """Return `PROMPTS` in the model's own ids. Raises `XmodelError` if its tokenizer has ids that the model lacks."""
    tokenizer = trained.tokenizer
    if tokenizer.vocab_size > trained.settings.vocab_size:
        raise XmodelError(
            f"{trained.tokenizer_dir}: has {tokenizer.vocab_size:,} pieces, and the model's vocab_size is"
            f" {trained.settings.vocab_size:,}; give the model the tokenizer that it was trained with"
        )
    ids = [tokenizer.encode_document(text)[:-1] for text in PROMPTS]
    return [prompt[: trained.settings.max_position_embeddings] for prompt in ids]


@torch.no_grad()
def reference_logits(
    trained: Trained,
    prompts: Sequence[Sequence[int]],
    as_written: AsWritten | None = None,
    head_copied: bool = False,
) -> Logits:
    """Return our own logits of each prompt (fp32, CPU); the model is freed.

    ``as_written``: what each tensor is once it has been written, of a format that rounds; ``head_copied``: the head is a copy
    of the embedding, rounded on its own.
    """
    model = own_model(trained, as_written)
    hidden = [model.hidden(torch.tensor([list(prompt)]))[0] for prompt in prompts]
    head, multiplier = model.head_weight, model.logit_multiplier
    if as_written and head_copied:
        del model, head  # before the head takes as much memory as the embedding did
        head = as_written(HEAD, next(tensor for name, tensor in native_tensors(trained) if name == EMBEDDING))
    return [F.linear(states, head) * multiplier for states in hidden]


def largest_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return the largest absolute difference of two tensors of one shape; NaN if there is one in either."""
    return float((ours.float() - theirs.float()).abs().max())


@torch.no_grad()
def transformers_difference(
    folder: Path,
    architecture: str,
    prompts: Sequence[list[int]],
    ours: Logits,
    settings: ModelSettings,
    tokenizer: Tokenizer,
) -> float:
    """Load a directory as `transformers` does (computing in fp32), and return the largest difference of its logits from ours.

    Each prompt whole; then all together, padded on the left, in two parts with a key/value cache between them. Raises
    `XmodelError` as `check_difference` and `check_config` do.
    """
    from transformers import AutoModelForCausalLM

    with no_progress_bar():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    if type(model).__name__ != architecture:
        raise XmodelError(f"export: transformers loads it as {type(model).__name__}, not {architecture}")
    _compute_in_fp32(model)
    worst = 0.0
    for text, prompt, want in zip(PROMPTS, prompts, ours, strict=True):
        worst = max(worst, check_difference(text, want, model(torch.tensor([prompt])).logits[0]))
    for text, want, theirs in zip(PROMPTS, ours, _padded_and_cached(model, prompts, tokenizer.pad_id), strict=True):
        worst = max(worst, check_difference(f"{text}, padded and with a cache", want, theirs))
    check_config(model.config, settings, tokenizer)
    return worst


def check_difference(what: str, ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return the largest difference of a prompt's logits. Raises `XmodelError` if it is not below the bound, or not a number.

    The bound is `BOUND` of the spread of our logits over the vocabulary, or of 1 if that is less; but never below the rounding
    of the largest.
    """
    difference = largest_difference(ours, theirs)
    if math.isnan(difference):
        whose = "our own logits are" if ours.isnan().any() else "its logits are"
        raise XmodelError(
            f"export: {whose} not numbers (NaN) for {what!r}; the weights are damaged; nothing was published"
        )
    spread, largest = float(ours.float().std(-1).mean()), float(ours.abs().max())
    bound = min(BOUND, max(BOUND * spread, _ROUNDING * max(1.0, largest)))
    if not difference < bound:
        raise XmodelError(
            f"export: logits differ from ours by {difference:.2e}, more than {bound:.0e}, for {what!r}; nothing was published"
        )
    return difference


def check_config(config: Any, settings: ModelSettings, tokenizer: Tokenizer) -> None:
    """Hold against ours what a loaded config says and logits of short prompts show little of, or nothing.

    Raises `XmodelError` naming the key that differs.
    """
    rope = getattr(config, "rope_parameters", None) or {}  # transformers 5; before it the base is a key of its own
    found = {**config.to_dict(), **rope}
    ours = {name: getattr(settings, name) for name in ("max_position_embeddings", "rms_norm_eps", "rope_theta")}
    ours |= {f"{name}_token_id": getattr(tokenizer, f"{name}_id") for name in ("bos", "eos", "pad")}
    for key, value in ours.items():
        if found.get(key) != value:
            raise XmodelError(
                f"export: config.json: {key} is {found.get(key)}, and ours {value}; nothing was published"
            )


def _compute_in_fp32(model: nn.Module) -> None:
    """Widen each module's weights while it runs and no longer: the whole model in fp32 would be thrice its files."""

    def widen(module: nn.Module, _: Any) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            kept[module, name] = parameter.data
            parameter.data = parameter.data.float()

    def narrow(module: nn.Module, *_: Any) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            parameter.data = kept.pop((module, name))

    kept: dict[tuple[nn.Module, str], torch.Tensor] = {}
    for module in model.modules():
        if any(p.dtype != torch.float32 for p in module.parameters(recurse=False)):
            module.register_forward_pre_hook(widen)
            module.register_forward_hook(narrow)


def _padded_and_cached(model: Any, prompts: Sequence[list[int]], pad_id: int) -> Logits:
    from transformers import DynamicCache

    longest = max(map(len, prompts))
    pads = [longest - len(prompt) for prompt in prompts]
    ids = torch.tensor([[pad_id] * pad + prompt for pad, prompt in zip(pads, prompts, strict=True)])
    pad_B = torch.tensor(pads)[:, None]
    real = (torch.arange(longest)[None] >= pad_B).long()
    positions = (torch.arange(longest)[None] - pad_B).clamp_min(0)
    cut = max(pads) + 1  # the shortest prompt has its first token before it
    # transformers renamed the argument in 5.x; both names take a cache that is filled in place.
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    keep = {name: DynamicCache(), "use_cache": True}
    first = model(ids[:, :cut], attention_mask=real[:, :cut], position_ids=positions[:, :cut], **keep)
    rest = model(ids[:, cut:], attention_mask=real, position_ids=positions[:, cut:], **keep)
    logits = torch.cat([first.logits, rest.logits], dim=1)
    return [row[pad:] for row, pad in zip(logits, pads, strict=True)]
