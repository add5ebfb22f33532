"""A tokenizer directory in use: text and chats to ids and back, without ever reading special tokens out of plain text."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer as FastTokenizer

from xmodel2.errors import XmodelError
from xmodel2.files import sha256_file

SPECIAL_TOKENS = ["<unk>", "<s>", "</s>", "<pad>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
ROLES = {"user": "<|user|>", "assistant": "<|assistant|>", "system": "<|system|>"}

Message = dict[str, str]


class Tokenizer:
    """Wraps a fast tokenizer; ids are Python ints."""

    def __init__(self, directory: Path) -> None:
        """Load ``directory/tokenizer.json``. Raises `XmodelError` if it is absent, broken or lacks a special token."""
        path = Path(directory) / "tokenizer.json"
        if not path.exists():
            raise XmodelError(f"{path}: not found; it is not a tokenizer directory")
        try:
            self._fast = FastTokenizer.from_file(str(path))
        except Exception as error:
            raise XmodelError(f"{path}: cannot be loaded as a tokenizer: {error}") from None
        self._fast.encode_special_tokens = True
        self.directory = Path(directory)
        ids = {token: self._fast.token_to_id(token) for token in SPECIAL_TOKENS}
        missing = [token for token, index in ids.items() if index is None]
        if missing:
            raise XmodelError(f"{path}: lacks the special tokens {', '.join(missing)}")
        self.special_ids: dict[str, int] = ids
        self.bos_id, self.eos_id, self.pad_id = ids["<s>"], ids["</s>"], ids["<pad>"]
        self.stop_ids = [ids["<|end|>"], self.eos_id]

    @property
    def vocab_size(self) -> int:
        """Number of pieces."""
        return int(self._fast.get_vocab_size())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of tokenizer.json."""
        return sha256_file(self.directory / "tokenizer.json")

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text; nothing is added, and special tokens spelt out in it stay text."""
        return list(self._fast.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode many texts on all cores."""
        return [list(e.ids) for e in self._fast.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Return the text of ids."""
        return str(self._fast.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def piece(self, index: int) -> str:
        """Return one piece as it is spelt in the vocabulary."""
        return str(self._fast.id_to_token(index))

    def encode_document(self, text: str) -> list[int]:
        """Return <s> text </s>."""
        return [self.bos_id, *self.encode(text), self.eos_id]

    def encode_chat(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
        """Return ids of <s> <|role|> content <|end|> ... </s>, and 1 where the assistant is the author (its ends included)."""
        ids, loss = [self.bos_id], [0]
        for message in messages:
            content = self.encode(message["content"])
            assistant = int(message["role"] == "assistant")
            ids += [self._role(message), *content, self.special_ids["<|end|>"]]
            loss += [0, *[assistant] * (len(content) + 1)]
        return [*ids, self.eos_id], [*loss, loss[-1]]

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids of a chat up to and including <|assistant|>, ready to be answered."""
        ids, _ = self.encode_chat(messages)
        return [*ids[:-1], self.special_ids["<|assistant|>"]]

    def _role(self, message: Message) -> int:
        if message["role"] not in ROLES:
            raise XmodelError(f"chat: role {message['role']!r} is not one of {', '.join(ROLES)}")
        return self.special_ids[ROLES[message["role"]]]


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """Load a tokenizer directory."""
    return Tokenizer(Path(directory))


def chat_template(directory: Path) -> str:
    """Return the chat template stored in a tokenizer directory."""
    config = json.loads((Path(directory) / "tokenizer_config.json").read_text(encoding="utf-8"))
    return str(config["chat_template"])
