"""A tokenizer directory becomes a `Tokenizer`: lossless ids for text, documents and chats.

    "def f():" -> encode          -> [311, 46, 292]
    "def f():" -> encode_document -> [<s>, 311, 46, 292, </s>]
    messages   -> encode_chat     -> <s>[<|system|>S<|end|>]<|user|>Q<|end|><|assistant|>A<|end|>...</s> and its loss mask
    messages   -> encode_prompt   -> <s>...<|user|>Q<|end|><|assistant|>

Special tokens are put in by these methods only: the characters ``</s>`` inside a text are encoded as plain text, so a
document cannot end itself and a user cannot speak as the assistant.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import numpy as np
import tokenizers

from xmodel2.errors import XmodelError, nearest
from xmodel2.files import sha256_file
from xmodel2.tokenizer.encoder import Encoder, encoder_of
from xmodel2.tokenizer.engine import Engine, build_engine, is_byte

UNK, BOS, EOS, PAD = "<unk>", "<s>", "</s>", "<pad>"
ROLES = ("user", "assistant", "system")
END = "<|end|>"
SPECIAL_TOKENS = (UNK, BOS, EOS, PAD, *(f"<|{role}|>" for role in ROLES), END)
"""The special tokens; the position of each is its id."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ['user', 'assistant', 'system'] %}"
    "{{ raise_exception('role must be user, assistant or system') }}{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)
"""`Tokenizer.encode_chat` (and, with a generation prompt, `encode_prompt`) in Jinja, for users of transformers."""


def _bytes_of_characters() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for: itself if printable, else one from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + number): byte for number, byte in enumerate(others)}


_BYTE_OF = _bytes_of_characters()


class Message(TypedDict):
    """One turn of a chat; ``role`` is user, assistant or system."""

    role: str
    content: str


class Tokenizer:
    """Ids of text. ``ids`` are Python lists of int below `vocab_size`; every Unicode text decodes to itself.

    Lone surrogates are no Unicode text: they raise `XmodelError`.
    """

    def __init__(self, fast: tokenizers.Tokenizer, fingerprint: str, directory: Path) -> None:
        # Text cannot inject specials: their names inside a text are encoded as text.
        fast.encode_special_tokens = True
        self._fast = fast
        self.directory = directory
        self.fingerprint = fingerprint
        """SHA-256 of tokenizer.json: shards and checkpoints name the tokenizer they belong to by it."""
        self.vocab_size: int = fast.get_vocab_size(with_added_tokens=True)
        ids: dict[str, int] = {}
        for token in SPECIAL_TOKENS:
            token_id = fast.token_to_id(token)
            if token_id is None:
                raise XmodelError(
                    f"tokenizer.json: no {token} in the vocabulary; train one with 'xmodel2 tokenizer train'"
                )
            ids[token] = token_id
        self.bos_id, self.eos_id, self.pad_id, self.end_id = ids[BOS], ids[EOS], ids[PAD], ids[END]
        self.role_ids = {role: ids[f"<|{role}|>"] for role in ROLES}
        self.stop_ids = [self.eos_id, self.end_id]
        """What ends a generated answer."""

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.vocab_size}, fingerprint={self.fingerprint[:12]})"

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, no specials added."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text."""
        return [ids.tolist() for ids in self.encode_arrays(texts)]

    def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text as an int32 array: `encode_batch` without a Python object for each id."""
        try:
            if self._engine:
                return self._engine.encode(texts)
            encodings = self._fast.encode_batch_fast(list(texts), add_special_tokens=False)
            return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
        except (UnicodeEncodeError, TypeError) as error:
            where = next((number for number, text in enumerate(texts) if not is_unicode(text)), None)
            if where is None:
                raise
            raise XmodelError(f"text {where} of the batch is not Unicode text: remove lone surrogates") from error

    def as_encoder(self) -> Encoder:
        """Return it as what figures are taken of (`tokenizer_statistics`)."""
        return encoder_of(self._fast)

    @cached_property
    def _engine(self) -> Engine | None:
        return build_engine(self._fast)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Return the text of ids; bytes that form no UTF-8 become U+FFFD. Specials are written out unless skipped."""
        text: str = self._fast.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def token(self, token_id: int) -> str:
        """Return the piece of one id; `XmodelError` outside the vocabulary."""
        piece: str | None = self._fast.id_to_token(token_id)
        if piece is None:
            raise XmodelError(f"token id {token_id}: must be below the vocabulary size {self.vocab_size}")
        return piece

    def bytes_of(self, token_id: int) -> bytes:
        """Return what one id adds to a text: none for a special token, and for a row of a model beyond the vocabulary."""
        if not 0 <= token_id < self.vocab_size:
            return b""
        piece = self.token(token_id)
        if self._byte_level and token_id not in self._added and all(character in _BYTE_OF for character in piece):
            return bytes(_BYTE_OF[character] for character in piece)
        if is_byte(piece):
            return bytes.fromhex(piece[3:5])
        # After itself: some decoders take a space from the beginning of a text.
        once, twice = (self.decode([token_id] * times, skip_special_tokens=True) for times in (1, 2))
        return twice[len(once) :].encode()

    @cached_property
    def _byte_level(self) -> bool:
        return "ByteLevel" in str(self._fast.decoder)

    @cached_property
    def _added(self) -> frozenset[int]:
        return frozenset(self._fast.get_added_tokens_decoder())

    def encode_document(self, text: str) -> list[int]:
        """Return ``<s> text </s>``."""
        return [self.bos_id, *self.encode(text), self.eos_id]

    def encode_chat(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
        """Return ids and loss mask of a whole chat.

        The mask is 1 on what the assistant must learn to say: its content, its ``<|end|>`` and, after it, the final
        ``</s>``. Raises `XmodelError` for a wrong message.
        """
        ids, mask = [self.bos_id], [0]
        last_role = ""
        for last_role, content in self._turns(messages):
            learn = int(last_role == "assistant")
            ids += [self.role_ids[last_role], *content, self.end_id]
            mask += [0, *[learn] * (len(content) + 1)]
        return [*ids, self.eos_id], [*mask, int(last_role == "assistant")]

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids of a chat up to where the assistant speaks next. Raises `XmodelError` for a wrong message."""
        ids = [self.bos_id]
        for role, content in self._turns(messages):
            ids += [self.role_ids[role], *content, self.end_id]
        return [*ids, self.role_ids["assistant"]]

    def _turns(self, messages: Sequence[Message]) -> list[tuple[str, list[int]]]:
        if not messages:
            raise XmodelError("messages: the chat is empty; give at least one message")
        for number, message in enumerate(messages):
            role, content = message.get("role"), message.get("content")
            if role not in self.role_ids:
                hint = nearest(str(role), ROLES)
                raise XmodelError(f"messages[{number}].role: {role!r} must be user, assistant or system.{hint}")
            if role == "system" and number:
                raise XmodelError(f"messages[{number}].role: a system message must come first")
            if not isinstance(content, str):
                raise XmodelError(f"messages[{number}].content: must be text, not {type(content).__name__}")
        contents = self.encode_batch([message["content"] for message in messages])
        return [(message["role"], ids) for message, ids in zip(messages, contents, strict=True)]


def load_tokenizer(directory: Path) -> Tokenizer:
    """Load a tokenizer directory. Raises `XmodelError` if its tokenizer.json is missing, damaged or not ours."""
    path = Path(directory) / "tokenizer.json"
    if not path.is_file():
        raise XmodelError(f"{path}: not found; give a directory written by 'xmodel2 tokenizer train'")
    try:
        fast = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise XmodelError(f"{path}: not a tokenizer ({error}); train or copy it again") from error
    try:
        return Tokenizer(fast, sha256_file(path), Path(directory))
    except XmodelError as error:
        raise XmodelError(f"{directory}: {error}") from error


def is_unicode(text: str) -> bool:
    """Tell whether a text is without lone surrogates, so that UTF-8 can write it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
