"""The numbers that a GGUF file of a type holds: rounded and read back, which is exact for weights."""

import math
from pathlib import Path

import torch

from xmodel2.errors import XmodelError
from xmodel2.model import Xmodel2
from xmodel2.recipe import ModelSettings
from xmodel2.release.exporting.gguf_types import EMBEDDING as GGUF_EMBEDDING
from xmodel2.release.exporting.gguf_types import tensor_type
from xmodel2.release.exporting.weights import EMBEDDING, AsWritten, native_shapes
from xmodel2.release.quantising.documents import Documents

_CHECKED = 16
"""Documents whose next token is asked of llama.cpp."""
_NOT_ROUNDING = 0.25
"""Nats; llama.cpp rounds what comes into a quantised matrix to 8 bits, which moves a token by less."""


def as_gguf(kind: str) -> AsWritten:
    """Return what each tensor of a native name is in a file of a kind; the order of rows, which changes there, does not matter."""
    from gguf.quants import dequantize, quantize

    def rounded(name: str, tensor: torch.Tensor) -> torch.Tensor:
        type_ = tensor_type(kind, _gguf_name(name), tensor.shape)
        return torch.from_numpy(dequantize(quantize(tensor.float().numpy(), type_), type_))

    return rounded


def stored_bytes(settings: ModelSettings, kind: str) -> int:
    """Return the bytes of the weights in a file of a kind, without its metadata."""
    from gguf.quants import quant_shape_to_byte_shape

    shapes = native_shapes(settings).items()
    return sum(math.prod(quant_shape_to_byte_shape(s, tensor_type(kind, _gguf_name(n), s))) for n, s in shapes)


def _gguf_name(native: str) -> str:
    return GGUF_EMBEDDING if native == EMBEDDING else native


@torch.no_grad()
def llama_difference(model: Xmodel2, file: Path, documents: Documents) -> float:
    """Return by how many nats llama.cpp's log-probability of a document's middle token differs from ours, in the mean.

    ``model`` has the numbers of the file. Raises `XmodelError` if it is more than rounding.
    """
    from xmodel2.release.llama_server import LlamaServer

    context, vocab = model.settings.max_position_embeddings, model.settings.vocab_size
    step = max(1, len(documents.ids) // _CHECKED)
    differences = []
    with LlamaServer(file, threads=torch.get_num_threads(), cache_type="f32") as server:
        for ids in documents.ids[::step][:_CHECKED]:
            at = min(len(ids) // 2 + 1, len(ids) - 1, context - 1)
            ours = torch.log_softmax(model(torch.tensor([ids[:at]]))[0, -1].float(), -1)
            asked = {"prompt": ids[:at], "n_predict": 1, "n_probs": vocab, "temperature": 0, "cache_prompt": False}
            answer = server.post("/completion", asked)["completion_probabilities"][0]["top_logprobs"]
            theirs = next(row["logprob"] for row in answer if row["id"] == ids[at])
            differences.append(abs(theirs - float(ours[ids[at]])))
    found = sum(differences) / len(differences)
    if not found < _NOT_ROUNDING:
        raise XmodelError(
            f"{file.name}: llama.cpp's log-probabilities differ from those of its numbers by {found:.2f} nats, more than"
            " rounding gives; the file is not used"
        )
    return found
