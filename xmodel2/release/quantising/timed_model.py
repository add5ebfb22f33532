"""A model in a process of its own, timed by `xmodel2.release.quantising.speed`; its memory is that of a user's.

python -m xmodel2.release.quantising.timed_model DIRECTORY THREADS
stdout: {"weights_bytes"}                 once it is loaded
stdin: {"prompt": [ids], "new": 64}  ->   stdout: {"prompt_s", "generate_s"}, to the first new token and from there to the last
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch


def main() -> None:
    """Answer a line at a time until standard input ends."""
    say = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is log
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    from xmodel2.release.quantising.torchao_directory import load_quantised

    model = load_quantised(folder)
    print(json.dumps({"weights_bytes": weights_bytes(model)}), file=say, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(timed(model, asked["prompt"], asked["new"])), file=say, flush=True)


def weights_bytes(model: torch.nn.Module) -> int:
    """Return the bytes of a model's weights as they lie in memory, a shared one once."""
    return sum({id(parameter): _stored(parameter.data) for parameter in model.parameters()}.values())


def _stored(tensor: Any) -> int:
    if hasattr(tensor, "__tensor_flatten__"):
        return sum(_stored(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return int(tensor.untyped_storage().nbytes())


class _Clock:
    """A streamer of `transformers`: it is given the prompt, then each token."""

    def __init__(self) -> None:
        self.times = list[float]()

    def put(self, _: torch.Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def timed(model: Any, prompt: list[int], new: int) -> dict[str, float]:
    """Return seconds to the first new token, and from there to the last of ``new``; greedy, with nothing that ends it."""
    from transformers import GenerationConfig

    clock = _Clock()
    config = GenerationConfig(max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0)
    ids = torch.tensor([prompt])
    model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config, streamer=clock)
    begin, first, last = clock.times[0], clock.times[1], clock.times[-1]
    return {"prompt_s": first - begin, "generate_s": last - first}


if __name__ == "__main__":
    main()
