"""The tensors of a trained model under their native names, checked first, then one at a time in memory.

What `safetensors` maps into memory counts as ours until the file is closed: it is opened anew every few tensors, and what has
been read goes.
"""

from collections.abc import Callable, Iterator

import torch

from xmodel2.errors import XmodelError
from xmodel2.files import read_json
from xmodel2.model import Xmodel2, fused_layout
from xmodel2.model.convert import HEAD, to_granite
from xmodel2.recipe import ModelSettings
from xmodel2.release.trained import Trained
from xmodel2.train.checkpoint import MODEL
from xmodel2.train.tensor_files import TensorFiles

EMBEDDING = "model.embed_tokens.weight"
AsWritten = Callable[[str, torch.Tensor], torch.Tensor]
"""What a tensor of a native name is once it has been written and read."""
_MAPPED = 64 << 20
"""Bytes that are read before what is mapped is let go."""


def native_shapes(settings: ModelSettings) -> dict[str, tuple[int, ...]]:
    """Return the native names of a model's tensors, and their shapes; a tied head is left out."""
    with torch.device("meta"):
        model = Xmodel2(settings)
    return {name: tuple(t.shape) for name, t in to_granite(dict(model.named_parameters()), settings).items()}


def check_tensors(trained: Trained) -> None:
    """Raise `XmodelError` naming the first tensor that is missing, unknown or of another shape; reads headers alone.

    Quantised weights are refused too: they would be taken for the model's own.
    """
    if not trained.state and "quantization_config" in read_json(trained.path / "config.json"):
        raise XmodelError(f"{trained.path}: its weights are quantised; give the model that they were made from")
    files = TensorFiles(trained.path, MODEL)
    have = files.shapes
    if trained.state:
        with torch.device("meta"):
            want = {name: tuple(p.shape) for name, p in Xmodel2(trained.settings).named_parameters()}
    else:
        want = native_shapes(trained.settings)
        if trained.settings.tie_word_embeddings:
            have = {name: shape for name, shape in have.items() if name != HEAD}
    for name in sorted(have.keys() | want.keys()):
        if have.get(name) != want.get(name):
            raise XmodelError(
                f"{trained.path}: tensor {name} is {have.get(name, 'absent')} there and {want.get(name, 'absent')} by its"
                " settings; the weights and the settings beside them are not of one model"
            )


def native_tensors(trained: Trained) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (native name, tensor), one in memory at a time; a tied head is left out."""
    files = TensorFiles(trained.path, MODEL)
    read = 0
    for name, shape in list(files.shapes.items()):
        if name == HEAD and trained.settings.tie_word_embeddings:
            continue
        tensor = torch.empty(shape, dtype=files.dtype(name))
        if read > _MAPPED:
            files = TensorFiles(trained.path, MODEL)
            read = 0
        files.read_into(name, tensor)
        read += tensor.nbytes
        yield from to_granite({name: tensor}, trained.settings).items() if trained.state else [(name, tensor)]


def own_model(trained: Trained, as_written: AsWritten | None = None) -> Xmodel2:
    """Return the whole model (fp32, CPU), each tensor as it will have been written if that changes it.

    Its weights lie in one piece of memory, so that all of it goes back to the system once the model is freed.
    """
    settings = trained.settings
    with torch.device("meta"):
        model = Xmodel2(settings)
    memory = torch.empty(sum(p.numel() for p in model.parameters()))
    parts = memory.split([p.numel() for p in model.parameters()])
    named = zip(model.named_parameters(), parts, strict=True)
    own = {name: part.view(parameter.shape) for (name, parameter), part in named}
    places: dict[str, torch.Tensor] = {}
    for name, tensor in own.items():
        native = to_granite({name: tensor.to("meta")}, settings)
        places |= dict(zip(native, fused_layout.matrices(name, tensor, settings), strict=True))
    for name, tensor in native_tensors(trained):
        place = places[name]
        place.copy_((as_written(name, tensor) if as_written else tensor).view(place.shape))
    model.load_state_dict(own, assign=True)
    return model.eval()
