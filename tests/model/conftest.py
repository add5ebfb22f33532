"""A small model with random weights for the tests of this room."""

import pytest
import torch

from xmodel2.model import Xmodel2, tensor_program
from xmodel2.recipe import ModelSettings


@pytest.fixture(scope="session")
def model() -> Xmodel2:
    """Two layers, grouped heads, m = 0.5."""
    settings = ModelSettings(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=97,
        max_position_embeddings=1024,
        dim_model_base=128,
    )
    built = Xmodel2(settings)
    tensor_program.initialise(built, 5)
    with torch.no_grad():  # norm weights away from 1, so that a forgotten one shows
        for parameter in built.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return built.eval()
