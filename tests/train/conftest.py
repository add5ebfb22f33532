"""A recipe that trains in a fraction of a second, on random shards made once."""

import pytest

from xmodel2.data.synthetic import write_random_shards
from xmodel2.recipe import Recipe, recipe_from_dict


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
