"""The models of the runs beside the paper's (Table 1)."""

from collections.abc import Sequence

from xmodel2.model.count import block_parameter_count, parameter_count
from xmodel2.page import table
from xmodel2.recipe import PRESETS, ModelSettings
from xmodel2.release.reporting.runs import ReportedRun
from xmodel2.release.reporting.section import Section

_SHOWN = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "max_position_embeddings",
    "scale_emb",
    "dim_model_base",
    "scale_depth",
    "init_std",
)


def model_section(runs: Sequence[ReportedRun]) -> Section:
    """Return sizes and scales, a column a model."""
    models = [*(run.recipe.model for run in runs), ModelSettings(**PRESETS["xl"])]
    rows = [[name, *(f"{getattr(model, name):,}" for model in models)] for name in _SHOWN]
    for label, count in (("parameters in blocks", block_parameter_count), ("parameters", parameter_count)):
        rows.append([label, *(f"{count(model):,}" for model in models)])
    names = ["this run"] if len(runs) == 1 else [run.label for run in runs]
    return Section("model", "Model (Table 1)", table(["", *names, "Xmodel-2 1.2B"], rows, "Sizes and scales"))
