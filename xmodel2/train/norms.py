"""Size of weights, gradients and updates by layer class: what tensor-program scaling promises to keep steady over widths.

RMS over all elements of a class, in all layers and on all ranks:

    backward -> before_step (weights, gradients; keeps a copy) -> optimizer.step -> after_step (updates) -> metrics line
"""

import math
from typing import Any

import torch
from torch import nn

from xmodel2.train.sums import global_square_sums, local_part

_CLASSES = {
    "embed_tokens": "embedding",
    "lm_head": "head",
    "qkv_proj": "attention.qkv",
    "o_proj": "attention.o",
    "gate_up_proj": "feed_forward.gate_up",
    "down_proj": "feed_forward.down",
    "input_layernorm": "norm",
    "post_attention_layernorm": "norm",
    "norm": "norm",
}


class LayerNorms:
    """Measures one step; for plain parameters as well as those that FSDP2 or tensor parallel cut."""

    def __init__(self, model: nn.Module) -> None:
        self._classes: dict[str, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            self._classes.setdefault(_CLASSES[name.split(".")[-2]], []).append(parameter)
        self._parameters = [parameter for group in self._classes.values() for parameter in group]
        self._counts = [sum(parameter.numel() for parameter in group) for group in self._classes.values()]

    @torch.no_grad()
    def before_step(self, gradient_scale: float = 1.0) -> None:
        """Measure weights and gradients (times ``gradient_scale``), and keep a copy of this rank's weights until `after_step`.

        To be called on every rank, after the backward pass and before gradients are clipped.
        """
        gradients = [[p.grad for p in group if p.grad is not None] for group in self._classes.values()]
        self._sums = global_square_sums([*self._classes.values(), *gradients])
        self._sums[len(self._classes) :] *= gradient_scale**2
        self._copies = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def after_step(self) -> dict[str, dict[str, float]]:
        """Return weight_rms, grad_rms, update_rms and update_ratio (of update to weight), each by layer class."""
        copies = iter(self._copies)
        torch._foreach_sub_(list(map(local_part, self._copies)), list(map(local_part, self._parameters)))
        updates = [[next(copies) for _ in group] for group in self._classes.values()]
        sums = torch.cat([self._sums, global_square_sums(updates)]).view(3, -1).tolist()
        del self._copies, self._sums
        weights, gradients, changes = (self._rms(values) for values in sums)
        ratio = {name: changes[name] / weights[name] if weights[name] else 0.0 for name in weights}
        return {"weight_rms": weights, "grad_rms": gradients, "update_rms": changes, "update_ratio": ratio}

    def _rms(self, sums: list[float]) -> dict[str, float]:
        parts = zip(self._classes, sums, self._counts, strict=True)
        return {name: math.sqrt(value / count) for name, value, count in parts}


def norms_record(step: int, norms: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Return the line of measured norms for metrics.jsonl."""
    return {"step": step, "kind": "norms", **norms}
