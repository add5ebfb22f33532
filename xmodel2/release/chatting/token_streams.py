"""Engines that get ids: our own model, and llama.cpp behind our tokenizer.

messages -> Chat ids -> our model's tokens -> text, byte by byte into characters
                     -> llama.cpp's text

Our tokenizer makes the ids, so that every engine sees those that the model was trained on, and names of special tokens
inside a user's text stay text.
"""

import codecs
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.files import read_json
from xmodel2.release.chatting.streams import Sampling, TooLongError, Usage
from xmodel2.release.llama_server import LlamaError, LlamaServer
from xmodel2.tokenizer import Message, Tokenizer

LEAST_ROOM = 4
"""An answer has at least a quarter of the context, if it may be so long."""
Continue = Callable[[list[int], int, Sampling, Usage], Iterator[str]]
"""(prompt, longest answer, sampling, usage) -> text of the answer, in whole characters; usage fills up meanwhile."""


class TokenEngine:
    """An `Engine` around what continues ids."""

    def __init__(
        self,
        model: str,
        kind: str,
        context: int,
        tokenizer: Tokenizer,
        go_on: Continue,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.model, self.kind, self.context, self.close = model, kind, context, close
        self._tokenizer, self._go_on = tokenizer, go_on
        self._chat = has_chat_template(tokenizer.directory)
        if not self._chat:
            self.kind += ", without a chat template: texts are continued"

    def stream(self, messages: Sequence[Message], sampling: Sampling, usage: Usage) -> Iterator[str]:
        """Yield the answer as it comes. Raises `TooLongError` if it would have too little room."""
        prompt = self._ids(messages)
        room = self.context - len(prompt)
        least = min(sampling.max_new_tokens, self.context // LEAST_ROOM)
        if room < least:
            raise TooLongError(
                f"that is {len(prompt):,} tokens; the context of {self.context:,} leaves room for"
                f" {self.context - least:,} beside an answer"
            )
        usage.prompt_tokens, usage.finish = len(prompt), "length"
        yield from self._go_on(prompt, min(room, sampling.max_new_tokens), sampling, usage)

    def _ids(self, messages: Sequence[Message]) -> list[int]:
        if self._chat:
            return self._tokenizer.encode_prompt(messages)
        return [self._tokenizer.bos_id, *self._tokenizer.encode(plain_text(messages))]


def has_chat_template(tokenizer_dir: Path) -> bool:
    """Tell whether a tokenizer directory says how a chat is written."""
    config = read_json(tokenizer_dir / "tokenizer_config.json") or {}
    return bool(config.get("chat_template")) or (tokenizer_dir / "chat_template.jinja").exists()


def plain_text(messages: Sequence[Message]) -> str:
    """Return what a model without a chat template continues: all that was said."""
    return "\n".join(message["content"] for message in messages)


def as_text(ids: Iterator[int], tokenizer: Tokenizer) -> Iterator[str]:
    """Yield the text of ids as soon as a character is whole; bytes that form none become U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in ids:
        if text := decoder.decode(tokenizer.bytes_of(token)):
            yield text
    if text := decoder.decode(b"", final=True):
        yield text


def own_engine(path: Path, threads: int = 0) -> TokenEngine:
    """Return our own model in this process, of a run, checkpoint or native directory; ``threads`` 0: as torch has them."""
    import torch

    from xmodel2.model.generate import stream
    from xmodel2.release.trained import open_trained

    if threads:
        torch.set_num_threads(threads)
    trained = open_trained(path)
    tokenizer, model = trained.tokenizer, trained.load()

    def go_on(prompt: list[int], room: int, sampling: Sampling, usage: Usage) -> Iterator[str]:
        ids = stream(
            model,
            prompt,
            room,
            [],
            sampling.temperature,
            sampling.top_p,
            sampling.seed,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty,
            pieces=tokenizer.vocab_size,
        )
        return as_text(_counted(ids, tokenizer.stop_ids, usage), tokenizer)

    return TokenEngine(trained.name, "torch", trained.settings.max_position_embeddings, tokenizer, go_on)


def _counted(ids: Iterator[int], stop_ids: Sequence[int], usage: Usage) -> Iterator[int]:
    for token in ids:
        if token in stop_ids:
            usage.finish = "stop"
            return
        usage.tokens += 1
        usage.came()
        yield token


def llama_engine(server: LlamaServer, model: str, kind: str, tokenizer: Tokenizer) -> TokenEngine:
    """Return llama.cpp on a model whose tokenizer is ours; closing the engine closes the server."""

    def go_on(prompt: list[int], room: int, sampling: Sampling, usage: Usage) -> Iterator[str]:
        body = {"prompt": prompt, "n_predict": room, **llama_sampling(sampling, server.context)}
        try:
            for event in server.stream("/completion", body):
                # Its text and its count: of the tokens of one character it sends the last one's id only.
                usage.tokens = event["tokens_predicted"] - (event.get("stop_type") == "eos")
                if event["content"]:
                    usage.came()
                    yield event["content"]
                if event.get("stop") and event.get("stop_type") != "limit":
                    usage.finish = "stop"
        except LlamaError as error:
            raise XmodelError(f"{model}: {error}") from None

    return TokenEngine(model, kind, server.context, tokenizer, go_on, server.close)


def llama_sampling(sampling: Sampling, context: int) -> dict[str, Any]:
    """Return sampling settings by llama.cpp's names, applied in the order of `xmodel2.model.generate.choose`."""
    settings = {"repeat_penalty": sampling.repetition_penalty, "repeat_last_n": context, "seed": sampling.seed}
    if sampling.temperature == 0:  # the same as a temperature of 0, without a look at the probability of every piece
        return settings | {"samplers": ["penalties", "top_k"], "top_k": 1}
    return settings | {
        "samplers": ["penalties", "temperature", "top_k", "top_p", "min_p"],
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
    }
