"""A `transformers` causal language model as the engine calls it: hidden states everywhere, logits only where they are wanted.

[batch, seq, vocab] is never held: a hook on the output layer lets through the chosen positions only, some at a time, so that
whatever the architecture does to its logits afterwards (scaling, soft caps) is done to those.
"""

import inspect
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn

from xmodel2.errors import XmodelError

Places = tuple[torch.Tensor, torch.Tensor]
"""Rows [N] and columns [N] of a batch."""
_LOGITS = 2**25
"""Logits that are held at a time."""


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
        self._body = cast(Any, model.base_model)
        self._wanted: Places | None = None
        self._output: Any = None
        head = model.get_output_embeddings()  # type: ignore[operator]
        self._in_parts = head is not None and self._body is not model
        if head is not None:
            head.register_forward_pre_hook(self._keep_wanted)
        if self._in_parts:
            self._body.register_forward_hook(self._keep_output)

    def _keep_wanted(self, _: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        if self._wanted is None:
            return None
        rows, columns = self._wanted
        self._wanted = None
        return (arguments[0][rows, columns][None], *arguments[1:])

    def _keep_output(self, _: nn.Module, __: Any, output: Any) -> None:
        self._output = output

    @torch.inference_mode()
    def logit_parts(
        self,
        ids_BS: torch.Tensor,
        wanted: Places,
        positions_BS: torch.Tensor | None = None,
        seen_B1ST: torch.Tensor | None = None,
        cache: Any = None,
    ) -> Iterator[torch.Tensor]:
        """Yield logits [n, vocab] at the wanted places, some at a time: those of a long text would not fit into memory.

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
        count = max(1, _LOGITS // self.config.get_text_config().vocab_size) if self._in_parts else len(wanted[0])
        parts = list(zip(*(places.split(count) for places in wanted), strict=True))
        try:
            yield self._head(ids_BS, parts[0], arguments)
            output = self._output
            # The rest of the places from the same hidden states: the body is called again, and gives what it gave.
            self._body.forward = lambda *_, **__: output
            for part in parts[1:]:
                yield self._head(ids_BS, part, arguments)
        finally:
            self._output = None
            self._body.__dict__.pop("forward", None)

    def logits(self, *arguments: Any, **named: Any) -> torch.Tensor:
        """Return all of `logit_parts` as one; one part, as in every step of generation, is not copied."""
        parts = list(self.logit_parts(*arguments, **named))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _head(self, ids_BS: torch.Tensor, wanted: Places, arguments: dict[str, Any]) -> torch.Tensor:
        self._wanted = wanted
        logits: torch.Tensor = self.model(input_ids=ids_BS, **arguments).logits
        if self._wanted is None:
            return logits[0]
        rows, columns = self._wanted  # no output layer of its own: all logits were made
        self._wanted = None
        return logits[rows, columns]
