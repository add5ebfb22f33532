"""Talk to a trained model in the terminal: history, streaming of whole answers, greedy or sampled."""

import sys
from pathlib import Path

from rich.console import Console

from xmodel2.model.generate import generate
from xmodel2.tokenizer import Message, load_tokenizer
from xmodel2.train.checkpoint import find_tokenizer, load_model


def chat(model_path: Path, temperature: float, max_new_tokens: int, seed: int) -> None:
    """Read questions from standard input until it ends or an empty line."""
    model, recipe, _ = load_model(model_path)
    tokenizer = load_tokenizer(find_tokenizer(model_path))
    console = Console()
    console.print(f"{recipe.name}: ask; an empty line ends.", highlight=False)
    history: list[Message] = []
    while True:
        console.print("[bold]you>[/] ", end="")
        question = sys.stdin.readline().strip()
        if not question:
            return
        history.append({"role": "user", "content": question})
        room = recipe.model.max_position_embeddings - max_new_tokens
        prompt = tokenizer.encode_prompt(history)
        while len(prompt) > room and len(history) > 1:
            history = history[2:]
            prompt = tokenizer.encode_prompt(history)
        if len(prompt) > room:
            console.print(f"That is {len(prompt)} tokens; the context leaves room for {room}.")
            history.clear()
            continue
        try:
            answer_ids = generate(
                model, [prompt], max_new_tokens, tokenizer.stop_ids, temperature=temperature, seed=seed
            )[0]
        except KeyboardInterrupt:
            console.print("(stopped)")
            history.pop()
            continue
        answer = tokenizer.decode(answer_ids, skip_special_tokens=True)
        console.print(answer, highlight=False, markup=False)
        history.append({"role": "assistant", "content": answer})
