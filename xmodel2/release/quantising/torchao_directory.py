"""A native directory whose matrices are int8 or int4 by torchao: `transformers` loads it, from safetensors, with torchao installed.

    native directory (bf16) -> its matrices quantised from the fp32 weights, one at a time -> model.safetensors
                               config.json with a quantization_config, the rest as it was
                            -> loaded back by transformers, logits against those of the numbers in the file

Embedding and head, one tensor or two, and the norms stay bf16: torchao quantises matrices of `nn.Linear`, and one that is shared
would be dequantised whole for every token; a head of its own stays as it is so that both kinds of model compare.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from xmodel2.errors import XmodelError
from xmodel2.files import read_json, write_json_atomic, write_text_atomic
from xmodel2.model.convert import HEAD, no_progress_bar
from xmodel2.release.exporting.verify import prompt_ids, reference_logits
from xmodel2.release.exporting.weights import EMBEDDING, AsWritten, native_tensors
from xmodel2.release.trained import Trained

if TYPE_CHECKING:
    from torchao.core.config import AOBaseConfig

WEIGHTS = "model.safetensors"
BOUND = 1e-3
"""Largest difference of logits, in fp32, that is still rounding: a kernel may sum in another order."""


def torchao_installed() -> None:
    """Raise `XmodelError` naming the extra if torchao, or a part of it that we need, is missing."""
    try:
        import torchao.prototype.quantization.int4
        import torchao.prototype.safetensors.safetensors_support  # noqa: F401
    except ImportError as error:
        raise XmodelError(f"int8 and int4 need torchao ({error}); pip install 'xmodel2[gpu]'") from None


def write_torchao(trained: Trained, native: Path, folder: Path, kind: str, group_size: int) -> dict[str, Any]:
    """Fill an empty folder and return {"max_abs_difference"} of the logits of what `transformers` loads from it.

    ``native`` is the bf16 directory of the same model. Raises `XmodelError` if logits are not those of the numbers in the
    file.
    """
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from transformers import TorchAoConfig

    for file in native.iterdir():
        if file.is_file() and not file.name.startswith((".", "model")):
            shutil.copyfile(file, folder / file.name)
    tensors, metadata = flatten_tensor_state_dict(dict(_quantised(trained, kind, group_size)))
    save_file(tensors, folder / WEIGHTS, metadata=metadata | {"format": "pt"})
    shutil.copymode(native / "config.json", folder / WEIGHTS)  # it is written for its owner alone
    del tensors
    config = read_json(native / "config.json")
    quantisation = TorchAoConfig(_config(kind, group_size)).to_dict()
    write_json_atomic(folder / "config.json", config | {"quantization_config": quantisation})
    card = (native / "README.md").read_text(encoding="utf-8")
    write_text_atomic(folder / "README.md", card.rstrip() + "\n\n" + _how_to_load(kind, group_size))
    return {"max_abs_difference": _verify(trained, folder)}


def _quantised(trained: Trained, kind: str, group_size: int) -> Iterator[tuple[str, torch.Tensor]]:
    from torchao.quantization import Int8Tensor, PerRow

    from xmodel2.release.quantising import int4

    for name, tensor in native_tensors(trained):
        if not is_matrix(name, tensor):
            yield name, tensor.bfloat16()
        elif kind == "int4":
            yield name, int4.quantised(tensor, group_size)
        else:
            made = Int8Tensor.from_hp(tensor.float(), PerRow())
            yield name, Int8Tensor(made.qdata, made.scale, made.block_size, torch.bfloat16, zero_point=made.zero_point)


def is_matrix(name: str, tensor: torch.Tensor) -> bool:
    """Whether a tensor of a native name is quantised by torchao."""
    return tensor.ndim == 2 and name not in (EMBEDDING, HEAD)


def _config(kind: str, group_size: int) -> "AOBaseConfig":
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig

    return Int4WeightOnlyConfig(group_size=group_size) if kind == "int4" else Int8WeightOnlyConfig()


def as_stored(folder: Path) -> AsWritten:
    """Return what each tensor of a native name is in a quantised directory, in fp32."""
    from safetensors import safe_open
    from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict
    from torchao.quantization import Int4Tensor, Int8Tensor

    from xmodel2.release.quantising import int4

    with safe_open(folder / WEIGHTS, "pt") as file:
        stored, rest = unflatten_tensor_state_dict(
            {n: file.get_tensor(n) for n in sorted(file.keys())}, file.metadata()
        )
    assert not rest

    def dequantised(name: str, _: torch.Tensor) -> torch.Tensor:
        tensor = stored[name]
        if isinstance(tensor, Int4Tensor):
            return int4.dequantised(tensor)
        return tensor.dequantize(torch.float32) if isinstance(tensor, Int8Tensor) else tensor.float()

    return dequantised


def load_quantised(folder: Path, dtype: torch.dtype | str = "auto") -> Any:
    """Return the model as `transformers` loads it, int4 ready for a CPU; unquantised ones as well."""
    from transformers import AutoModelForCausalLM

    with no_progress_bar():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True).eval()
    if hasattr(model.config, "quantization_config"):
        from xmodel2.release.quantising.int4 import for_cpu

        for_cpu(model)
    return model


@torch.no_grad()
def _verify(trained: Trained, folder: Path) -> float:
    prompts = prompt_ids(trained)
    want = reference_logits(trained, prompts, as_stored(folder))
    model = load_quantised(folder, torch.float32)
    worst = 0.0
    for prompt, ours in zip(prompts, want, strict=True):
        difference = float((model(torch.tensor([prompt])).logits[0] - ours).abs().max())
        if not difference < BOUND:
            raise XmodelError(
                f"quantize: transformers' logits differ by {difference:.2e} from those of the numbers in {folder.name},"
                f" more than {BOUND:.0e}; nothing was published. See whether the weights are finite numbers"
            )
        worst = max(worst, difference)
    return worst


def _how_to_load(kind: str, group_size: int) -> str:
    common = (
        "Embedding, head and norms are bfloat16.\n\n```python\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained(".")  # needs torchao\n'
        'tokenizer = AutoTokenizer.from_pretrained(".")\n'
    )
    if kind == "int8":
        return f"## Weights\n\nInt8, one scale a row, by torchao. {common}```\n"
    return (
        f"## Weights\n\nInt4, a scale and a zero for {group_size} weights, by torchao. {common}"
        "from xmodel2.release.quantising.int4 import for_cpu\n\n"
        "model = for_cpu(model)  # on a CPU: torchao has no CPU kernel for the layout of files\n```\n\n"
        "On a GPU torchao runs this layout itself, by kernels of the package mslk.\n"
    )
