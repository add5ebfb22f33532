"""What the model writes while it trains: the same beginnings, continued greedily, at each measurement of held-out loss."""

from pathlib import Path

import torch

from xmodel2.errors import XmodelError
from xmodel2.model import Xmodel2
from xmodel2.model.generate import stream
from xmodel2.recipe import Recipe
from xmodel2.tokenizer import load_tokenizer
from xmodel2.train.checkpoint import find_tokenizer
from xmodel2.train.evaluation import Alive, Snapshot


def take_samples(snapshot: Snapshot, alive: Alive) -> list[dict[str, str]]:
    """Return each of the recipe's prompts with its continuation: {"prompt", "continuation"}."""
    settings, tokenizer = snapshot.recipe.evaluation, load_tokenizer(find_tokenizer(snapshot.run_dir))
    with torch.device("meta"):
        model = Xmodel2(snapshot.recipe.model)
    model.load_state_dict(snapshot.tensors, assign=True)
    model.to(snapshot.device).eval()
    found = list[dict[str, str]]()
    for prompt in settings.prompts:
        ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
        room = min(settings.prompt_tokens, snapshot.recipe.model.max_position_embeddings - len(ids))
        answer = list[int]()
        for token in stream(model, ids, room, [tokenizer.eos_id], pieces=tokenizer.vocab_size):
            alive(f"sample {len(found) + 1}/{len(settings.prompts)}")
            answer.append(token)
        found.append({"prompt": prompt, "continuation": tokenizer.decode(answer, skip_special_tokens=True)})
    return found


def check_prompts(recipe: Recipe, data: Path) -> None:
    """Raise `XmodelError` for prompts that leave no room in the context, and where ``data`` has no tokenizer to read them with."""
    if not recipe.evaluation.prompts:
        return
    try:
        tokenizer = load_tokenizer(data / "tokenizer")
    except XmodelError as error:
        raise XmodelError(f"evaluation.prompts: {error}") from None
    context = recipe.model.max_position_embeddings
    for prompt in recipe.evaluation.prompts:
        if (length := len(tokenizer.encode(prompt)) + 1) >= context:
            raise XmodelError(
                f"evaluation.prompts: {prompt[:40]!r}... has {length} tokens, and the context is {context}; shorten it"
            )
