"""A GGUF file of a trained model, for llama.cpp and all that builds on it; streaming, one tensor in memory at a time.

llama.cpp knows our model as its architecture "granite", whose four scales are ours.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xmodel2.errors import XmodelError
from xmodel2.files import write_bytes_atomic, writing_atomic
from xmodel2.model.convert import granite_config
from xmodel2.recipe import recipe_to_toml
from xmodel2.release.exporting.gguf_check import check_gguf
from xmodel2.release.exporting.gguf_quantiser import check_quantiser, quantise
from xmodel2.release.exporting.gguf_tensors import gguf_names, llama_rows
from xmodel2.release.exporting.gguf_types import K_QUANTS, check_kind, tensor_type
from xmodel2.release.exporting.gguf_vocabulary import vocabulary
from xmodel2.release.exporting.weights import check_tensors, native_shapes, native_tensors
from xmodel2.release.trained import Trained
from xmodel2.tokenizer.load import CHAT_TEMPLATE

if TYPE_CHECKING:
    from gguf import GGUFWriter

FINGERPRINT, TOKENIZER, RECIPE = "xmodel2.fingerprint", "xmodel2.tokenizer", "xmodel2.recipe"
"""Keys of our own in the metadata: fingerprints of the weights and of tokenizer.json, and the TOML of the recipe."""
WRITTEN_AS, FORM = "xmodel2.written_as", 2
"""Key of what is raised whenever the same weights give another file, so that a file kept for serving is written anew."""
TOKENIZER_FILE = "tokenizer.json"


def write_gguf(trained: Trained, out_file: Path, kind: str = "f16") -> dict[str, Any]:
    """Write a GGUF file and return {"format", "kind", "path", "bytes"} and what `check_gguf` found.

    Beside it goes tokenizer.json, if there is none: with it, text has our very ids, and cannot spell special tokens.

    Raises `XmodelError` for a kind that is not known, for weights or a tokenizer that GGUF cannot hold, and if the file is
    not proved; then nothing is published.
    """
    check_kind(kind)
    gguf_installed([kind])
    check_tensors(trained)
    with writing_atomic(out_file) as handle:
        beside = Path(handle.name)
        if kind in K_QUANTS:
            with tempfile.NamedTemporaryFile(dir=out_file.parent, prefix=".", suffix=".tmp") as source:
                _write(trained, Path(source.name), "f32")
                quantise(Path(source.name), beside, kind)
        else:
            _write(trained, beside, kind)
        found = check_gguf(trained, beside, kind)
        size = beside.stat().st_size
        tokenizer = out_file.with_name(TOKENIZER_FILE)
        if not tokenizer.exists():
            write_bytes_atomic(tokenizer, (trained.tokenizer_dir / TOKENIZER_FILE).read_bytes())
    return {"format": "gguf", "kind": kind, "path": str(out_file), "bytes": size, **found}


def gguf_installed(kinds: Iterable[str]) -> None:
    """Raise `XmodelError` naming the package that kinds need and that is missing; of no kinds, none."""
    if not (kinds := list(kinds)):
        return
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise XmodelError("GGUF files need the package gguf; pip install 'xmodel2[serve]'") from None
    for kind in kinds:
        if kind in K_QUANTS:
            check_quantiser(kind)


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files of processes that were killed; only for who holds the folder's lock."""
    for left in folder.glob(".*.tmp"):
        if left.is_file():
            left.unlink()


def _write(trained: Trained, file: Path, kind: str) -> None:
    from gguf import GGUFWriter, quants

    name = gguf_names(trained.settings)
    writer = GGUFWriter(file, "granite")
    _write_metadata(writer, trained, kind)
    offsets, end = dict[str, int](), 0
    types = {}
    for native, shape in native_shapes(trained.settings).items():
        types[native] = tensor_type(kind, name(native), shape)
        in_bytes = quants.quant_shape_to_byte_shape(shape, types[native])
        size = int(np.prod(in_bytes))
        writer.add_tensor_info(name(native), in_bytes, np.dtype(np.uint8), size, raw_dtype=types[native])
        offsets[native], end = end, writer.ggml_pad(end + size, writer.data_alignment)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with open(file, "r+b") as handle:
        begin = writer.ggml_pad(handle.seek(0, 2), writer.data_alignment)
        handle.truncate(begin + end)
        for native, tensor in native_tensors(trained):
            handle.seek(begin + offsets[native])
            values = llama_rows(native, tensor, trained.settings).float().numpy()
            with np.errstate(over="ignore"):  # what does not fit is found when it is read back
                quants.quantize(values, types[native]).tofile(handle)


def _write_metadata(writer: "GGUFWriter", trained: Trained, kind: str) -> None:
    from gguf import GGML_QUANT_VERSION, LlamaFileType, TokenType

    settings, tokenizer = trained.settings, trained.tokenizer
    config = granite_config(settings)
    writer.add_type("model")
    writer.add_name(trained.name)
    writer.add_file_type(LlamaFileType.ALL_F32 if kind == "f32" else LlamaFileType[f"MOSTLY_{kind.upper()}"])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_string(FINGERPRINT, trained.fingerprint)
    writer.add_uint32(WRITTEN_AS, FORM)
    writer.add_string(TOKENIZER, tokenizer.fingerprint)
    if recipe := trained.public_recipe:
        writer.add_string(RECIPE, recipe_to_toml(recipe))
    writer.add_context_length(settings.max_position_embeddings)
    writer.add_vocab_size(settings.vocab_size)
    writer.add_embedding_length(settings.hidden_size)
    writer.add_feed_forward_length(settings.intermediate_size)
    writer.add_block_count(settings.num_hidden_layers)
    writer.add_head_count(settings.num_attention_heads)
    writer.add_head_count_kv(settings.num_key_value_heads)
    writer.add_rope_dimension_count(settings.hidden_size // settings.num_attention_heads)
    writer.add_rope_freq_base(settings.rope_theta)
    writer.add_layer_norm_rms_eps(settings.rms_norm_eps)
    writer.add_embedding_scale(config["embedding_multiplier"])
    writer.add_residual_scale(config["residual_multiplier"])
    writer.add_logit_scale(config["logits_scaling"])
    writer.add_attention_scale(config["attention_multiplier"])
    pieces, scores, types = vocabulary(tokenizer, settings.vocab_size)
    writer.add_tokenizer_model("plamo2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_unk_token_id(types.index(TokenType.UNKNOWN))
    writer.add_bos_token_id(tokenizer.bos_id)
    writer.add_eos_token_id(tokenizer.eos_id)
    writer.add_pad_token_id(tokenizer.pad_id)
    writer.add_eot_token_id(tokenizer.end_id)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
