"""A native `transformers` directory (GraniteForCausalLM): its multipliers are our scales, so no tensor changes."""

from typing import Any

from xmodel2.model.convert import granite_config
from xmodel2.recipe import ModelSettings
from xmodel2.release.exporting.directory import Layout
from xmodel2.tokenizer import Tokenizer


def native_config(settings: ModelSettings, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return Granite's keys of config.json."""
    config = granite_config(settings, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
    return {"model_type": "granite", **config}


NATIVE = Layout("GraniteForCausalLM", native_config)
