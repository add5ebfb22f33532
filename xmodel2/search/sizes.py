"""The same model at other sizes: width or depth changes, everything else that a comparison needs equal stays equal.

at_width(recipe, 512): heads of the same width, so more of them; feed-forward in proportion; dim_model_base as it was
"""

from xmodel2.errors import XmodelError
from xmodel2.recipe import ModelSettings, Recipe, replace


def at_width(recipe: Recipe, hidden_size: int) -> Recipe:
    """Return the recipe with another ``hidden_size``. Raises `XmodelError` if it does not divide into heads.

    Queries a key/value head stay as many as they were where the heads allow it; otherwise there is one key/value head.
    """
    model = recipe.model
    heads, rest = divmod(hidden_size, model.head_dim)
    if rest or not heads:
        raise XmodelError(
            f"--widths {hidden_size}: is not a multiple of the recipe's head width {model.head_dim} (hidden_size /"
            f" num_attention_heads); nearest: {max(1, round(hidden_size / model.head_dim)) * model.head_dim}"
        )
    group = model.num_attention_heads // model.num_key_value_heads
    sizes = {
        "hidden_size": hidden_size,
        "intermediate_size": max(1, round(model.intermediate_size * hidden_size / model.hidden_size)),
        "num_attention_heads": heads,
        "num_key_value_heads": heads // group if heads % group == 0 else 1,
    }
    return _resized(recipe, sizes)


def at_depth(recipe: Recipe, num_hidden_layers: int) -> Recipe:
    """Return the recipe with another number of layers."""
    return _resized(recipe, {"num_hidden_layers": num_hidden_layers})


def at_size(recipe: Recipe, axis: str, size: int) -> Recipe:
    """Return the recipe at a size of the axis `width` or `depth`. Raises `XmodelError` as `at_width`."""
    return at_width(recipe, size) if axis == "width" else at_depth(recipe, size)


def size_name(model: ModelSettings) -> str:
    """Return a short name of a model's shape.

    >>> size_name(ModelSettings(hidden_size=1536, num_hidden_layers=48))
    '1536x48'
    """
    return f"{model.hidden_size}x{model.num_hidden_layers}"


def _resized(recipe: Recipe, sizes: dict[str, int]) -> Recipe:
    return replace(recipe, {f"model.{key}": value for key, value in sizes.items()})
