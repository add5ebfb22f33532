"""What a reproduction will take, before it begins: FLOPs and time by stage, and bytes on the disk."""

import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.model.count import flops_per_token, parameter_count
from xmodel2.recipe import ModelSettings, recipe_from_dict
from xmodel2.reproduction.road import Road
from xmodel2.reproduction.scales import Length, Scale
from xmodel2.reproduction.stage import Records

_CHECKPOINT_BYTES = 12
"""A parameter: the weight and AdamW's two moments in fp32."""
_TEXT_BYTES = 4.0
"""A token of text, as `corpus` takes it."""
_SHARE_OF_PEAK = 0.4
"""Of the matmul rate that small models reach in training, over evaluations and starts; docs/reproduction.md has what it was."""
_SPARE = 1.2


@dataclass(frozen=True)
class Work:
    """Runs of a stage that are alike."""

    stage: str
    model: ModelSettings
    sequence_length: int
    tokens: float
    """A run."""
    runs: int
    checkpoints: int = 1
    """That a run leaves."""

    @property
    def flops(self) -> float:
        """Of all runs."""
        return flops_per_token(self.model, self.sequence_length) * self.tokens * self.runs

    @property
    def bytes(self) -> float:
        """That all runs leave on the disk."""
        return float(parameter_count(self.model) * _CHECKPOINT_BYTES * self.checkpoints * self.runs)


def works(scale: Scale) -> Iterator[Work]:
    """Yield the runs of all stages, to within a few."""
    small, base, final = (_model(scale, tree) for tree in (scale.search, scale.base, scale.final))
    seeds = scale.seeds

    def runs(stage: str, model: ModelSettings, length: Length, count: float, share: float = 1.0, kept: int = 1) -> Work:
        return Work(stage, model, length.sequence_length, length.tokens * share, round(count), kept)

    yield runs("search", small, scale.search_length, scale.trials + 6)
    for width in scale.widths:
        yield runs("transfer", _wider(small, width), scale.search_length, 10, 0.25, 0)
    for width in scale.next_widths:
        yield runs("direct", _wider(small, width), scale.search_length, scale.trials + 6 + seeds)
    decay = scale.base_length.decay / (scale.base_length.stable + scale.base_length.decay)
    yield runs("ratio", base, scale.base_length, seeds, 1.0, 4)
    yield runs("ratio", base, scale.base_length, seeds * (len(scale.shares) + 10), decay)
    yield runs("ratio", base, scale.base_length, seeds * 3, 0.7)
    for width in (*scale.law_widths, scale.law_then):
        longest = max(scale.law_tokens) + 0.25 * sum(scale.law_tokens)
        yield Work("law", _wider(base, width), scale.base_length.sequence_length, longest, 2, 2 * len(scale.law_tokens))
    yield runs("ablation", base, scale.base_length, 9 * (2 + seeds), 1.0, 0)
    yield runs("peer", base, scale.base_length, 4 + 2 * seeds + 5 + seeds, 1.0, 2)
    yield runs("stable", final, scale.final_length, 1, 1.0, 3)
    yield runs("decay", final, scale.final_length, 1, 0.25, 3)
    yield replace(runs("export", final, scale.final_length, 1, 0.0), tokens=0.0)


def disk_bytes(scale: Scale, without: Collection[str] = ()) -> int:
    """Return what a reproduction leaves on the disk, in bytes, with something to spare; some stages left out."""
    tokens = scale.corpus_tokens[0] + 3 * scale.corpus_tokens[1]
    text = {
        "corpus": _TEXT_BYTES * tokens,
        "data": (2 * _TEXT_BYTES + 2 * 2) * tokens,
    }  # work folder, shards of two tokenizers
    made = sum(size for name, size in text.items() if name not in without)
    return int(_SPARE * (made + sum(work.bytes for work in works(scale) if work.stage not in without)))


def check_disk(road: Road, only: Collection[str] = ()) -> None:
    """Raise `XmodelError` if the disk has less room than the stages (of ``only``) that are not done will take."""
    place, records = road.out.absolute(), Records(road.out, road.stages)
    while not place.exists():
        place = place.parent
    left = [
        stage for stage in road.stages if stage.name in (only or records.stages) and not records.is_done(stage.name)
    ]
    there = sum(_bytes_below(road.out / folder) for stage in left for folder in stage.folders)
    without = {*records.stages} - {stage.name for stage in left}
    free, wanted = shutil.disk_usage(place).free, disk_bytes(road.scale, without) - there
    if free < wanted:
        raise XmodelError(
            f"{road.out}: scale {road.scale.name} will take about {wanted / 1e9:.1f} GB more, and {free / 1e9:.1f} GB are"
            " free there; make room, choose another --out, or give --ignore-disk"
        )


def cost_rows(scale: Scale, flops_per_second: float) -> list[dict[str, Any]]:
    """Return for each stage its runs, tokens, FLOPs and seconds at a matmul rate."""
    rows: dict[str, dict[str, Any]] = {}
    for work in works(scale):
        row = rows.setdefault(work.stage, {"stage": work.stage, "runs": 0, "tokens": 0.0, "flops": 0.0, "bytes": 0.0})
        row["runs"] += work.runs
        row["tokens"] += work.tokens * work.runs
        row["flops"] += work.flops
        row["bytes"] += work.bytes
    for row in rows.values():
        row["seconds"] = row["flops"] / (flops_per_second * _SHARE_OF_PEAK)
    return list(rows.values())


def _bytes_below(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _model(scale: Scale, tree: dict[str, Any]) -> ModelSettings:
    return recipe_from_dict({"model": {**tree, "vocab_size": scale.vocab_size}}).model


def _wider(model: ModelSettings, width: int) -> ModelSettings:
    """Return a model of about the size of one of that width."""
    heads = max(1, width // model.head_dim)
    kv_heads = max(1, heads * model.num_key_value_heads // model.num_attention_heads)
    kv_heads = next(count for count in range(kv_heads, 0, -1) if heads % count == 0)
    tree = {
        "hidden_size": heads * model.head_dim,
        "intermediate_size": model.intermediate_size * width // model.hidden_size,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "num_hidden_layers": model.num_hidden_layers,
        "vocab_size": model.vocab_size,
    }
    return recipe_from_dict({"model": tree}).model
