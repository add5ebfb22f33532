"""Context parallelism: each rank holds some positions of a row, and sees the keys and values of all.

With R ranks a row is cut into 2 R parts; rank r takes parts r and 2 R - 1 - r, so that all have the same number of earlier
keys to look at. Keys and values are gathered (grouped-query attention makes them small), as Llama 3 does (arXiv 2407.21783,
section 3.3.2); their gradients are summed back.
"""

import torch
import torch.distributed as dist
from torch.distributed import _functional_collectives as collectives
from torch.nn.attention.flex_attention import BlockMask

from xmodel2.model import Xmodel2
from xmodel2.model.attention import mask_for
from xmodel2.model.decoder import Rows
from xmodel2.model.mask import Places

_all_gather = getattr(collectives, "all_gather_single_autograd", None) or collectives.all_gather_tensor_autograd
"""The first by its name in PyTorch 2.13, the second before."""


class ContextShard:
    """This rank's positions of rows of ``sequence_length``."""

    def __init__(self, group: dist.ProcessGroup, sequence_length: int, device: torch.device) -> None:
        self.group = group
        ranks, part = dist.get_world_size(group), sequence_length // (2 * dist.get_world_size(group))

        def positions_of(rank: int) -> torch.Tensor:
            starts = (rank * part, (2 * ranks - 1 - rank) * part)
            return torch.cat([torch.arange(start, start + part) for start in starts])

        self.positions = positions_of(dist.get_rank(group))
        self._query_S = self.positions.to(device)
        self._key_T = torch.cat([positions_of(rank) for rank in range(ranks)]).to(device)

    def rows(self, model: Xmodel2, document_ids_BT: torch.Tensor | None, kernel: str) -> Rows:
        """Return rotation, mask and gathering for this rank's positions; ``document_ids`` are of whole rows."""
        query = key = None
        if document_ids_BT is not None:
            document_ids_BT = document_ids_BT.to(self._query_S.device)
            query, key = document_ids_BT[:, self._query_S], document_ids_BT[:, self._key_T]
        mask = mask_for(kernel, Places(self._query_S, self._key_T, query, key), whole=False)
        assert isinstance(mask, Places | BlockMask)
        return model.rows(self._query_S[None], mask, gather=self.gather)

    def gather(self, k_BKSD: torch.Tensor, v_BKSD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of all ranks' positions [B, K, T, D], in order of rank."""
        whole = _all_gather(torch.stack((k_BKSD, v_BKSD)), 3, self.group)
        return whole[0], whole[1]
