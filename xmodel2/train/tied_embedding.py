"""A tied embedding whose gradient is added, row by row, to the head's where that lies.

As autograd makes it, it is a table of zeros, of whose 65,280 rows a micro-batch fills some, added to the head's: passes over three
tables that cost 2% of nano's step on a CPU in bf16.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from xmodel2.model import Xmodel2


class TiedEmbedding(nn.Embedding):
    """Looks rows up; ``backward`` changes ``weight.grad`` by itself, so `torch.autograd.grad` does not see it."""

    def forward(self, input_ids_BS: torch.Tensor) -> torch.Tensor:
        """[B, S] to [B, S, H]."""
        if not torch.is_grad_enabled():
            return F.embedding(input_ids_BS, self.weight)
        rows_BSH = F.embedding(input_ids_BS, self.weight.detach()).requires_grad_()
        rows_BSH.register_post_accumulate_grad_hook(partial(self._add, input_ids_BS))
        return rows_BSH

    @torch.no_grad()
    def _add(self, input_ids_BS: torch.Tensor, rows_BSH: torch.Tensor) -> None:
        if self.weight.grad is None:
            self.weight.grad = torch.zeros_like(self.weight)
        assert rows_BSH.grad is not None
        self.weight.grad.index_add_(0, input_ids_BS.flatten(), rows_BSH.grad.flatten(0, 1))
        rows_BSH.grad = None


def add_rows_in_place(model: Xmodel2) -> None:
    """Make the embedding of a tied model that one process holds whole a `TiedEmbedding` of the same weight."""
    if not model.settings.tie_word_embeddings or isinstance(model.embed_tokens, TiedEmbedding):
        return
    weight = model.embed_tokens.weight
    with torch.device("meta"):
        model.embed_tokens = TiedEmbedding(*weight.shape)
    model.embed_tokens.weight = weight
