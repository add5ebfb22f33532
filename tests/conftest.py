"""What tests share: one small run of the whole road, made once, and a recipe that trains in a fraction of a second."""

import copy
import functools
import os
import sysconfig
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: its threads cost these small models more than they give

import pytest

from tests.browser import browser, visits
from xmodel2 import demo
from xmodel2.data.synthetic import write_random_shards
from xmodel2.recipe import Recipe, recipe_from_dict

__all__ = ["browser", "visits"]  # fixtures of pages in a browser

os.fsync = lambda handle: None  # what outlasts a power cut can't be tested here, and waiting for the disk takes minutes
# loguru asks for the same 36 paths at each of the 300 log files of one preparation, which takes most of its time.
sysconfig.get_path = functools.cache(sysconfig.get_path)

# The longest files begin first, so that those who share the work end together.
SLOWEST = [
    "train/test_ranks.py",
    "train/test_checkpoint_ranks.py",
    "search/test_ratio.py",
    "data/test_prepare_tasks.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    order = {here / name: number for number, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


CORPUS: dict[str, Any] = {
    "max_bytes": 60_000,
    "examples": 270,
    "heldout_examples": 18,
    "vocab_size": 700,
}


def tiny_settings() -> dict[str, Any]:
    """Return the demo's recipe with a model and a length that train in seconds."""
    settings = copy.deepcopy(demo.RECIPE)
    settings["model"] = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": CORPUS["vocab_size"],
        "max_position_embeddings": 512,
    }
    settings["data"]["sequence_length"] = 64
    settings["stages"]["stable"]["tokens"] = 12 * 512
    settings["stages"]["decay"]["tokens"] = 8 * 512
    settings["train"] |= {
        "batch_tokens": 512,
        "warmup_steps": 3,
        "decay_half_life_steps": 4,
        "compile": False,
        "precision": "fp32",
        "checkpoint_every": 100,
        "heldout_every": 6,
        "heldout_rows": 4,
    }
    return settings


@pytest.fixture(scope="session")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole demo: corpus, data, run, hf, report.html."""
    out = tmp_path_factory.mktemp("road")
    demo.run_demo(out, corpus=CORPUS, settings=tiny_settings())
    return out


@pytest.fixture(scope="session")
def small_recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """20 steps of 64 tokens, 12 of them stable; one layer. Tests `replace` what they are about."""
    data = tmp_path_factory.mktemp("data")
    write_random_shards(data, vocab_size=60, seed=0)
    return recipe_from_dict(
        {
            "model": {
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "vocab_size": 60,
            },
            "data": {"dir": str(data), "sequence_length": 16},
            "stages": {
                "stable": {"tokens": 12 * 64, "mixture": {"text": 1.0}},
                "decay": {"tokens": 8 * 64, "sft_mixture": {"sft": 1.0}},
            },
            "train": {
                "batch_tokens": 64,
                "micro_batch_size": 2,
                "warmup_steps": 3,
                "decay_half_life_steps": 2,
                "precision": "fp32",
                "compile": False,
                "checkpoint_every": 4,
                "heldout_every": 0,
                "heldout_rows": 2,
                "norms_every": 0,
                "trackers": [],
                "device": "cpu",
            },
        }
    )
