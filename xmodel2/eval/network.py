"""A `transformers` causal language model as the engine calls it: hidden states everywhere, logits only where they are wanted.

[batch, seq, vocab] is never held: a hook on the output layer lets through the chosen positions only, so that whatever the
architecture does to its logits afterwards (scaling, soft caps) is done to those.
"""

import inspect
from typing import Any

import torch
from torch import nn

from xmodel2.errors import XmodelError

Places = tuple[torch.Tensor, torch.Tensor]
"""Rows [N] and columns [N] of a batch."""


class Network:
    """``model`` in evaluation mode on its device."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval()
        self.config: Any = model.config
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        accepted = inspect.signature(model.forward).parameters
        # transformers 5 renames past_key_values; both names take a cache that is filled in place.
        self._cache_name = "cache" if "cache" in accepted else "past_key_values"
        self.takes_positions = "position_ids" in accepted
        self._wanted: Places | None = None
        head = model.get_output_embeddings()  # type: ignore[operator]
        if head is not None:
            head.register_forward_pre_hook(self._keep_wanted)

    def _keep_wanted(self, _: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        if self._wanted is None:
            return None
        rows, columns = self._wanted
        self._wanted = None
        return (arguments[0][rows, columns][None], *arguments[1:])

    @torch.inference_mode()
    def logits(
        self,
        ids_BS: torch.Tensor,
        wanted: Places,
        positions_BS: torch.Tensor | None = None,
        seen_B1ST: torch.Tensor | None = None,
        cache: Any = None,
    ) -> torch.Tensor:
        """Return logits [N, vocab] at the wanted places.

        ``seen`` says which key each query attends to (None: causal). Raises `XmodelError` if the model cannot be called so.
        """
        arguments: dict[str, Any] = {"use_cache": cache is not None}
        if cache is not None:
            arguments[self._cache_name] = cache
        if positions_BS is not None:
            if not self.takes_positions:
                raise XmodelError(f"{type(self.model).__name__}: takes no position_ids, which shared prefixes need")
            arguments["position_ids"] = positions_BS
        if seen_B1ST is not None:
            # Added to the scores: every attention implementation of transformers understands it.
            hidden = torch.zeros(seen_B1ST.shape, dtype=self.dtype, device=self.device)
            arguments["attention_mask"] = hidden.masked_fill_(~seen_B1ST, torch.finfo(self.dtype).min)
        self._wanted = wanted
        logits: torch.Tensor = self.model(input_ids=ids_BS, **arguments).logits
        if self._wanted is not None:  # no output layer of its own: all logits were made
            rows, columns = self._wanted
            self._wanted = None
            return logits[rows, columns]
        return logits[0]
