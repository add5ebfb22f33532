"""Talk to a trained model in the terminal."""

from pathlib import Path

import tyro


def chat(
    model: tyro.conf.Positional[Path], /, temperature: float = 0.0, max_new_tokens: int = 128, seed: int = 0
) -> None:
    """Talk to a trained model in the terminal; an empty line or Ctrl-D ends.

    Example: xmodel2 chat runs/nano

    Args:
        model: run directory or checkpoint
        temperature: 0 is greedy
        max_new_tokens: longest answer, in tokens
        seed: of the sampling
    """
    from xmodel2.release.chat import chat as run

    run(model, temperature, max_new_tokens, seed)
