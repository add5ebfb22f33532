"""A config.json becomes our settings, and factors on weights that make up for scales we have no setting for.

                      embedding        block's output                   logits                           query-key products
    granite           ..._multiplier   residual_multiplier              1 / logits_scaling               attention_multiplier
    xmodel, use_mup   mup_input_scale  mup_{attention,ffn}_residual_    mup_output_scale mup_base_width  1 / D
                                       scale / sqrt(L)                  / H
    minicpm, xmodel   scale_emb        scale_depth / sqrt(L)            dim_model_base / H               1 / sqrt(D)
    llama, xmodel     1                1                                1                                1 / sqrt(D)

H hidden_size, L num_hidden_layers, D head width. ``xmodel`` is the layout of the report's authors: with ``use_mup`` the class
of their next model's searches, with ``scale_emb`` MiniCPM's rules, with neither their next model as released.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.files import read_json
from xmodel2.model import tensor_program
from xmodel2.recipe import ModelSettings
from xmodel2.recipe.load import checked

_WIDTHS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
)
_LARGE = 1e12
"""What no size or scale reaches."""
_SAME = 1e-9
"""Relative difference up to which a factor is 1."""


@dataclass(frozen=True)
class Scales:
    """What an architecture multiplies by, outside its weights."""

    embedding: float = 1.0
    """The embedding's output."""
    attention: float = 1.0
    """Attention's output, before it is added."""
    feed_forward: float = 1.0
    """The feed-forward's output, before it is added."""
    logits: float = 1.0
    products: float = 1.0
    """Query-key products."""


@dataclass(frozen=True)
class Layout:
    """What a config.json says."""

    kind: str
    """granite, xmodel, minicpm or llama."""
    shape: dict[str, Any]
    """Our settings that are not scales."""
    scales: Scales
    tied: bool
    """Whether the head is the embedding."""
    own_code: bool
    """Whether the directory brings code of its own, which is not run."""

    @property
    def native(self) -> bool:
        """Whether `transformers` has the architecture without other code."""
        return self.kind in ("granite", "llama")


def read_layout(path: Path) -> Layout:
    """Read a config.json. Raises `XmodelError` naming the key that is missing, wrong, or asks for what our model has not."""
    config = _Config(path)
    kind = str(config.values.get("model_type"))
    family = "xmodel" if kind.startswith("xmodel") else kind
    if family not in _SCALES:
        raise XmodelError(
            f"{path}: model_type {kind!r} is not an architecture that can be imported; these are: {', '.join(_SCALES)}"
        )
    shape: dict[str, Any] = {key: config.whole(key) for key in _WIDTHS}
    heads, hidden = shape["num_attention_heads"], shape["hidden_size"]
    shape["num_key_value_heads"] = config.whole("num_key_value_heads", heads)
    shape["rms_norm_eps"] = config.number("rms_norm_eps")
    shape["rope_theta"] = _rope_theta(config)
    config.refuse("hidden_act", ("silu", "swish"), "silu")
    config.refuse("attention_bias", (False,), False)
    config.refuse("mlp_bias", (False,), False)
    config.refuse("quantization_config", (None,), None)
    checked(ModelSettings, shape, str(path), {})  # names heads that do not divide, before quotients are used
    config.refuse("head_dim", (hidden // heads, None), None)
    return Layout(
        kind=family,
        shape=shape,
        scales=_SCALES[family](config, shape),
        # `transformers` leaves a key out that has its default; for these two that is a head of its own.
        tied=bool(config.values.get("tie_word_embeddings", family not in ("granite", "llama"))),
        own_code="auto_map" in config.values,
    )


def settings_of(layout: Layout, path: Path, init_std: float = 0.1) -> ModelSettings:
    """Return settings with the scales of a layout, as near as settings come to them; `factors` are the rest."""
    scales, shape = layout.scales, layout.shape
    hidden, layers = shape["hidden_size"], shape["num_hidden_layers"]
    head_dim = hidden // shape["num_attention_heads"]
    plain = all(
        math.isclose(scale, 1.0, rel_tol=_SAME) for scale in (scales.embedding, scales.attention, scales.logits)
    )
    by_width = abs(math.log(scales.products * head_dim)) < abs(math.log(scales.products * math.sqrt(head_dim)))
    tree = {
        **shape,
        "scale_emb": scales.embedding,
        "scale_depth": scales.attention * math.sqrt(layers),
        "dim_model_base": max(1, round(hidden * scales.logits)),
        "attention_scale": "1/head_dim" if by_width else "1/sqrt(head_dim)",
        "init_std": init_std,
        "parametrization": "standard" if plain else "tensor_program",
        "tie_word_embeddings": layout.tied,
    }
    return checked(ModelSettings, tree, str(path), {})


def factors(scales: Scales, settings: ModelSettings, tolerance: float = _SAME) -> dict[str, float]:
    """Return what tensors are multiplied by, by the last part of their names, so that ``settings`` give the same logits.

    What is left of the logits' scale goes into the head or, where that is the embedding, into the final norm's weight; there a
    factor is 1 to ``tolerance``, since the ratio of a head to its embedding is known to their rounding only.
    """
    residual = tensor_program.residual_multiplier(settings)
    embedding = scales.embedding / tensor_program.embedding_multiplier(settings)
    found = {
        "embed_tokens": embedding,
        "o_proj": scales.attention / residual,
        "down_proj": scales.feed_forward / residual,
        "q_proj": scales.products / tensor_program.attention_multiplier(settings),
    }
    logits = scales.logits / tensor_program.logit_multiplier(settings)
    if not settings.tie_word_embeddings:
        found["lm_head"] = logits
    kept = {part: factor for part, factor in found.items() if not math.isclose(factor, 1.0, rel_tol=_SAME)}
    norm = logits / embedding
    if not settings.tie_word_embeddings or math.isclose(norm, 1.0, rel_tol=max(tolerance, _SAME)):
        return kept
    return {**kept, "norm": norm}


def same_shape(layout: Layout, settings: ModelSettings) -> bool:
    """Whether settings differ from a layout in nothing but scales."""
    same = all(getattr(settings, key) == value for key, value in layout.shape.items())
    return same and settings.tie_word_embeddings == layout.tied


def with_head(layout: Layout, head: float) -> Layout:
    """Return the layout as a tied one, whose logits are multiplied by the head's ratio to the embedding."""
    return replace(layout, tied=True, scales=replace(layout.scales, logits=layout.scales.logits * head))


class _Config:
    """The keys of a config.json; every error names the file and the key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        values = read_json(path)
        if values is None:
            raise XmodelError(f"{path}: not found; give the folder of a Hugging Face model")
        if not isinstance(values, dict):
            raise XmodelError(f"{path}: holds no JSON object; copy it again")
        self.values: dict[str, Any] = values

    def number(self, key: str, default: float | None = None) -> float:
        value = self.values.get(key)
        value = default if value is None else value
        if value is None:
            raise XmodelError(f"{self.path}: has no {key}; it is not a whole config of this architecture")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _LARGE:
            raise XmodelError(f"{self.path}: {key} is {value!r}; it must be a number above 0, and below {_LARGE:g}")
        return float(value)

    def whole(self, key: str, default: int | None = None) -> int:
        value = self.number(key, default)
        if value != round(value):
            raise XmodelError(f"{self.path}: {key} is {value!r}; it must be a whole number")
        return round(value)

    def refuse(self, key: str, allowed: tuple[Any, ...], default: Any) -> None:
        if (value := self.values.get(key, default)) not in allowed:
            raise XmodelError(
                f"{self.path}: {key} is {str(value)[:80]}, which our model has not; such a model cannot be imported"
            )


def _rope_theta(config: _Config) -> float:
    for key in ("rope_parameters", "rope_scaling"):
        given = config.values.get(key) or {}
        if not isinstance(given, dict):
            raise XmodelError(f"{config.path}: {key} is {given!r}; it must be an object")
        kind = given.get("rope_type", given.get("type", "default"))
        if kind != "default" or given.get("partial_rotary_factor", 1.0) != 1.0:
            raise XmodelError(
                f"{config.path}: {key} asks for rotary positions of type {kind!r}, and our model has the usual ones alone;"
                " such a model cannot be imported"
            )
        if "rope_theta" in given:
            config.values["rope_theta"] = given["rope_theta"]
    return config.number("rope_theta", 10000.0)


def _granite(config: _Config, shape: dict[str, Any]) -> Scales:
    residual = config.number("residual_multiplier")
    return Scales(
        embedding=config.number("embedding_multiplier"),
        attention=residual,
        feed_forward=residual,
        logits=1.0 / config.number("logits_scaling"),
        products=config.number("attention_multiplier"),
    )


def _llama(config: _Config, shape: dict[str, Any]) -> Scales:
    return Scales(products=_usual(shape))


def _minicpm(config: _Config, shape: dict[str, Any]) -> Scales:
    residual = config.number("scale_depth") / math.sqrt(shape["num_hidden_layers"])
    return Scales(
        embedding=config.number("scale_emb"),
        attention=residual,
        feed_forward=residual,
        logits=config.number("dim_model_base") / shape["hidden_size"],
        products=_usual(shape),
    )


def _xmodel(config: _Config, shape: dict[str, Any]) -> Scales:
    if not config.values.get("use_mup"):
        return (_minicpm if "scale_emb" in config.values else _llama)(config, shape)
    depth = math.sqrt(shape["num_hidden_layers"])
    return Scales(
        embedding=config.number("mup_input_scale"),
        attention=config.number("mup_attention_residual_scale") / depth,
        feed_forward=config.number("mup_ffn_residual_scale") / depth,
        logits=config.number("mup_output_scale") * config.number("mup_base_width") / shape["hidden_size"],
        products=shape["num_attention_heads"] / shape["hidden_size"],
    )


def _usual(shape: dict[str, Any]) -> float:
    return float((shape["hidden_size"] // shape["num_attention_heads"]) ** -0.5)


_SCALES: dict[str, Callable[[_Config, dict[str, Any]], Scales]] = {
    "granite": _granite,
    "xmodel": _xmodel,
    "minicpm": _minicpm,
    "llama": _llama,
}
