"""Talk to a trained model in the terminal, or question it from a script."""

import sys
from pathlib import Path
from typing import Literal

import tyro

from xmodel2.arguments import Flag
from xmodel2.output import busy
from xmodel2.release.served_kind import SERVED_KIND


def chat(
    model: tyro.conf.Positional[str],
    /,
    system: str = "",
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    max_new_tokens: int = 256,
    seed: int = 0,
    engine: Literal["auto", "llama", "torch"] = "auto",
    kind: str = SERVED_KIND,
    threads: int = 0,
    api_key_file: Path | None = None,
    name: str = "",
    json: Flag = False,
) -> int:
    """Talk to a trained model; /help inside lists commands, Ctrl-C stops an answer, Ctrl-D leaves.

    Example: xmodel2 chat runs/nano

    A server: xmodel2 chat http://127.0.0.1:8000 --api-key-file key.txt

    A script: echo "What is 3 plus 4?" | xmodel2 chat runs/nano --json

    Args:
        model: run, checkpoint, model directory, .gguf file, or the address of an OpenAI-compatible server
        system: system prompt
        temperature: 0 is greedy; above, tokens are drawn
        top_p: draw among the likeliest that together have so much probability
        top_k: draw among so many of the likeliest; 0: all
        min_p: draw none less likely than so many times the likeliest
        repetition_penalty: above 1, what was said becomes less likely
        max_new_tokens: longest answer, in tokens
        seed: of the drawing
        engine: llama.cpp, or our own model in torch; auto is llama.cpp where it is installed and its files hold the tokenizer
        kind: of weights that llama.cpp computes with: q8_0, f16, q4_0, ... (`xmodel2 export --help` lists them)
        threads: that calculate; 0: one a core
        api_key_file: file with the key of the address
        name: which of the models at the address; default: the first
        json: print an object an answer, where standard input is no terminal
    """
    from xmodel2.errors import XmodelError
    from xmodel2.release.chatting.conversation import Conversation
    from xmodel2.release.chatting.open_engine import open_engine
    from xmodel2.release.chatting.piped import run_piped
    from xmodel2.release.chatting.streams import Sampling
    from xmodel2.release.chatting.terminal import run_terminal

    sampling = Sampling(temperature, top_p, top_k, min_p, repetition_penalty, max_new_tokens, seed)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if json and terminal:
        raise XmodelError("--json: is for scripts; give the questions on standard input, one a line")
    with busy("opening the model"):
        opened = open_engine(model, engine, kind=kind, threads=threads, api_key_file=api_key_file, name=name)
    talk = Conversation(opened, sampling, system)
    try:
        if not terminal:
            return run_piped(talk, sys.stdin.buffer, json)
        run_terminal(talk)
        return 0
    finally:
        opened.close()
