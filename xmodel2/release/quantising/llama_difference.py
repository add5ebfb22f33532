"""Whether llama.cpp gives held-out text the log-probabilities of the numbers in a GGUF file."""

from pathlib import Path

import torch

from xmodel2.errors import XmodelError
from xmodel2.model import Xmodel2
from xmodel2.release.exporting.gguf_check import log_probabilities
from xmodel2.release.llama_server import LlamaServer
from xmodel2.release.quantising.documents import Documents
from xmodel2.tokenizer import Tokenizer

_CHECKED = 16
"""Documents whose next token is asked of llama.cpp."""
_NOT_ROUNDING = 0.25
"""Nats; llama.cpp rounds what comes into a quantised matrix to 8 bits, which moves a token by less."""


@torch.no_grad()
def llama_difference(model: Xmodel2, tokenizer: Tokenizer, file: Path, documents: Documents) -> float:
    """Return by how many nats llama.cpp's log-probability of a document's middle token differs from ours, in the mean.

    ``model`` has the numbers of the file. Raises `XmodelError` if it is more than rounding.
    """
    context, vocab = model.settings.max_position_embeddings, model.settings.vocab_size
    step = max(1, len(documents.ids) // _CHECKED)
    differences = []
    with LlamaServer(file, threads=torch.get_num_threads(), cache_type="f32") as server:
        for ids in documents.ids[::step][:_CHECKED]:
            at = min(len(ids) // 2 + 1, len(ids) - 1, context - 1)
            ours = torch.log_softmax(model(torch.tensor([ids[:at]]))[0, -1].float(), -1)
            theirs = log_probabilities(server, tokenizer, ids[:at], vocab)
            differences.append(abs(float(theirs[ids[at]] - ours[ids[at]])))
    found = sum(differences) / len(differences)
    if not found < _NOT_ROUNDING:
        raise XmodelError(
            f"{file.name}: llama.cpp's log-probabilities differ from those of its numbers by {found:.2f} nats, more than"
            " rounding gives; the file is not used"
        )
    return found
