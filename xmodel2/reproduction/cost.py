"""What a reproduction will take, before it begins: FLOPs and time by stage, and bytes on the disk."""

import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.model.count import flops_per_token, parameter_count
from xmodel2.recipe import ModelSettings, Recipe, recipe_from_dict
from xmodel2.reproduction.road import RATES, Road
from xmodel2.reproduction.scales import Length, Scale
from xmodel2.reproduction.stage import Records
from xmodel2.search.sizes import at_width

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
    models = ({**tree, "vocab_size": scale.vocab_size} for tree in (scale.search, scale.base, scale.final))
    small, base, final = (recipe_from_dict({"model": model}) for model in models)
    seeds = scale.seeds

    def runs(stage: str, recipe: Recipe, length: Length, count: int, share: float = 1.0, kept: int = 1) -> Work:
        return Work(stage, recipe.model, length.sequence_length, length.tokens * share, count, kept)

    yield runs("search", small, scale.search_length, scale.trials + 6)
    for width in scale.widths:
        yield runs("transfer", at_width(small, width), scale.search_length, 10, 0.25, 0)
    carried = scale.carried
    if scale.carry is not None:
        yield runs("carry", small, carried.length, carried.runs)
    for width in scale.next_widths:
        yield runs("direct", at_width(small, width), carried.length, carried.runs + 2 * scale.direct_seeds)
    decay, final_decay = (
        length.decay / (length.stable + length.decay) for length in (scale.base_length, scale.final_length)
    )
    yield runs("ratio", base, scale.base_length, seeds, 1 - decay, 4)
    yield runs("ratio", base, scale.base_length, seeds * (len(scale.shares) + 10), decay)
    yield runs("ratio", base, scale.base_length, seeds * 3, 0.7)
    for width in (*scale.law_widths, scale.law_then):
        longest = max(scale.law_tokens) + 0.25 * sum(scale.law_tokens)
        yield Work(
            "law", at_width(base, width).model, scale.base_length.sequence_length, longest, 2, 2 * len(scale.law_tokens)
        )
    yield runs("ablation", base, scale.base_length, 9 * (len(RATES) + 2 * (seeds - 1)), 1.0, 0)
    yield runs("peer", base, scale.base_length, 4 + 2 * seeds + 5 + seeds, 1.0, 2)
    yield runs("stable", final, scale.final_length, 1, 1 - final_decay, 3)
    yield runs("decay", final, scale.final_length, 1, final_decay, 3)
    yield runs("export", final, scale.final_length, 1, 0.0)


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
