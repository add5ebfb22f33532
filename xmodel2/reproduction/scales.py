"""The scales at which the report can be repeated: sizes, tokens and effort of each, from two CPU cores to a GPU for a day.

Each has three models, as the report has: one that hyperparameters are searched on, a base that everything is compared on, and the
final one, which inherits both. All have the final model's recipe but for size and length.
"""

from dataclasses import dataclass
from typing import Any

from xmodel2.errors import XmodelError, nearest


@dataclass(frozen=True)
class Length:
    """How long a run is, in steps of ``batch_tokens`` tokens."""

    stable: int
    decay: int
    warmup: int
    batch_tokens: int
    micro_batch_size: int
    sequence_length: int

    @property
    def half_life(self) -> int:
        """Steps in which the decay halves the rate: it does so four times, as the report's (T = 5,000 of 5,086 steps) does once.

        A short decay must fall further to end low; docs/wind-tunnel.md has what it is worth.
        """
        return max(1, self.decay // 4)

    @property
    def stable_tokens(self) -> int:
        """Tokens of the stable stage."""
        return self.stable * self.batch_tokens

    @property
    def decay_tokens(self) -> int:
        """Tokens of the decay."""
        return self.decay * self.batch_tokens

    @property
    def tokens(self) -> int:
        """Tokens of both stages."""
        return self.stable_tokens + self.decay_tokens


@dataclass(frozen=True)
class Carry:
    """A search of its own for the values that are carried over, and those at each of the next sizes that judge them.

    Half a percent can be told only where seeds differ by little more: not in the first steps, which a scale's own search may be
    short enough to end in, and not by a search that ends before its keys have settled.
    """

    length: Length
    trials: int
    top_trials: int = 3
    top_seeds: int = 3

    @property
    def runs(self) -> int:
        """Trials, and the best of them with other seeds."""
        return self.trials + self.top_trials * (self.top_seeds - 1)


@dataclass(frozen=True)
class Scale:
    """What is done at one scale."""

    name: str
    affords: str
    """What it is for."""
    vocab_size: int
    context: int
    search: dict[str, Any]
    search_length: Length
    trials: int
    """Of the search, and of each direct search that it is compared with, but for those of ``carry``."""
    next_widths: tuple[int, ...]
    """The next two sizes, at the search model's depth."""
    base: dict[str, Any]
    base_length: Length
    widths: tuple[int, ...]
    """Of the rate's sweep, and of the coordinate check."""
    shares: tuple[float, ...]
    """Of instruction data in the decay."""
    law_widths: tuple[int, ...]
    law_then: int
    law_tokens: tuple[int, ...]
    final: dict[str, Any]
    final_length: Length
    corpus_tokens: tuple[int, int]
    """Text to take from the corpus for each stage, in tokens of four bytes; what the longest run reads, or all there is. (A small
    vocabulary makes more tokens of it.)"""
    limit: int
    """Benchmark items a task."""
    depths: tuple[int, ...] = (2, 4, 8)
    seeds: int = 3
    direct_seeds: int = 6
    """Of the direct searches' comparison: after 400 steps paired losses differ by 0.3% from seed to seed, and six know their mean
    to 0.3%; after 150 by 0.8 to 1.8%, and no affordable number could tell half a percent."""
    carry: Carry | None = None
    """None: what the search found is carried over."""

    @property
    def carried(self) -> Carry:
        """The search whose answer is carried over, and which those at the next sizes are like."""
        return self.carry or Carry(self.search_length, self.trials)


def _model(width: int, layers: int, heads: int, kv_heads: int, intermediate: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": intermediate,
    }


_TUNNEL = _model(64, 4, 2, 1, 160)
_BASE = _model(128, 4, 4, 2, 320)

SCALES = {
    scale.name: scale
    for scale in (
        Scale(
            "pico",
            "two CPU cores for some hours",
            vocab_size=4096,
            context=512,
            search=_TUNNEL,
            search_length=Length(112, 38, 15, 1024, 8, 128),
            trials=24,
            next_widths=(96, 128),
            base=_BASE,
            base_length=Length(150, 50, 20, 1024, 8, 128),
            widths=(64, 128, 256),
            shares=(0.0, 0.2, 0.4, 0.6, 0.7, 0.85, 1.0),
            law_widths=(32, 64, 96),
            law_then=128,
            law_tokens=(102_400, 204_800, 409_600, 614_400),
            final={"preset": "nano"},
            final_length=Length(2560, 640, 100, 4096, 8, 512),
            corpus_tokens=(5_000_000, 1_500_000),
            limit=200,
            seeds=5,
            carry=Carry(Length(300, 100, 30, 1024, 8, 128), trials=48, top_trials=5, top_seeds=4),
        ),
        Scale(
            "nano",
            "a laptop for a night, or a GPU for minutes",
            vocab_size=8192,
            context=1024,
            search=_TUNNEL,
            search_length=Length(600, 200, 50, 1024, 8, 128),
            trials=100,
            next_widths=(96, 128),
            base=_BASE,
            base_length=Length(600, 200, 50, 2048, 16, 128),
            widths=(64, 128, 256, 512),
            shares=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
            law_widths=(64, 96, 128, 192),
            law_then=256,
            law_tokens=(409_600, 819_200, 1_638_400, 3_276_800),
            final={"preset": "nano"},
            final_length=Length(4880, 976, 100, 8192, 8, 256),
            corpus_tokens=(40_000_000, 8_000_000),
            limit=500,
        ),
        Scale(
            "tiny",
            "one GPU for a day; the final model is the report's check model, half an hour of an H100",
            vocab_size=16_384,
            context=2048,
            search={"preset": "nano"},
            search_length=Length(600, 200, 50, 16_384, 16, 1024),
            trials=100,
            next_widths=(384, 512),
            base={"preset": "nano"},
            base_length=Length(1200, 400, 100, 32_768, 32, 1024),
            widths=(128, 256, 512, 1024),
            shares=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
            law_widths=(128, 192, 256, 384),
            law_then=512,
            law_tokens=(13_107_200, 26_214_400, 52_428_800, 104_857_600),
            final={"preset": "tiny"},
            final_length=Length(4600, 1150, 200, 131_072, 64, 1024),
            corpus_tokens=(600_000_000, 150_000_000),
            limit=1000,
        ),
        Scale(
            "small",
            "one GPU for days; the corpus is read many times over",
            vocab_size=32_768,
            context=4096,
            search={"preset": "nano"},
            search_length=Length(1200, 400, 100, 32_768, 32, 1024),
            trials=200,
            next_widths=(384, 512),
            base={"preset": "micro"},
            base_length=Length(2400, 800, 200, 65_536, 32, 1024),
            widths=(192, 384, 768, 1536),
            shares=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
            law_widths=(192, 256, 384, 512),
            law_then=768,
            law_tokens=(52_428_800, 104_857_600, 209_715_200, 419_430_400),
            final={"preset": "small"},
            final_length=Length(8000, 2000, 500, 262_144, 32, 2048),
            corpus_tokens=(2_000_000_000, 500_000_000),
            limit=1000,
        ),
    )
}


def scale_of(name: str) -> Scale:
    """Return a scale. Raises `XmodelError` naming the ones there are."""
    if name not in SCALES:
        raise XmodelError(f"--scale {name!r}: allowed are {', '.join(SCALES)}.{nearest(name, SCALES)}")
    return SCALES[name]
