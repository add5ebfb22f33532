"""Any tokenizer as an `Encoder`: ours, a Hugging Face one or a SentencePiece model, for figures beside each other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import sentencepiece
import tokenizers

from xmodel2.errors import XmodelError
from xmodel2.tokenizer.engine import build_engine, is_byte


@dataclass(frozen=True)
class Encoder:
    """What `tokenizer_statistics` and `compare_tokenizers` measure."""

    pieces: Sequence[str]
    """By id; a space is a space. In a byte-level vocabulary, what is no whole character reads U+FFFD."""
    byte_ids: frozenset[int]
    """Pieces that are bytes of a character, not text."""
    special_ids: frozenset[int]
    """Pieces that no text becomes: controls and the unknown token."""
    unknown_id: int | None
    encode_batch: Callable[[Sequence[str]], list[list[int]]]
    """Ids of each text, no specials added."""
    decode: Callable[[Sequence[int]], str]

    @property
    def vocab_size(self) -> int:
        """Number of pieces."""
        return len(self.pieces)


def load_any(path: Path) -> Encoder:
    """Load a tokenizer directory, a ``tokenizer.json`` or a SentencePiece ``.model`` file, anyone's.

    Raises `XmodelError` if there is none, or it is damaged.
    """
    path = Path(path)
    file = path
    if path.is_dir():
        models = [path / "tokenizer.json", *sorted(path.glob("*.model"))]
        file = next((model for model in models if model.is_file()), path)
    if not file.is_file():
        raise XmodelError(
            f"{path}: no tokenizer there; give a directory with tokenizer.json, or a .json or .model file"
        )
    try:
        if file.suffix == ".json":
            return encoder_of(tokenizers.Tokenizer.from_file(str(file)))
        return _of_sentencepiece(sentencepiece.SentencePieceProcessor(model_proto=file.read_bytes()))
    except Exception as error:  # tokenizers raises plain Exception
        raise XmodelError(f"{file}: not a tokenizer ({error}); give another, or copy it again") from error


def encoder_of(fast: tokenizers.Tokenizer) -> Encoder:
    """Return a Hugging Face tokenizer as an Encoder; names of special tokens inside a text are text to it."""
    fast.encode_special_tokens = True
    byte_level = "ByteLevel" in str(fast.decoder)
    names = [fast.id_to_token(index) or "" for index in range(fast.get_vocab_size(with_added_tokens=True))]
    special = {index for index, token in fast.get_added_tokens_decoder().items() if token.special}
    unknown = getattr(fast.model, "unk_token", None)
    unknown_id = fast.token_to_id(unknown) if unknown else getattr(fast.model, "unk_id", None)

    engine = build_engine(fast)

    def encode_batch(texts: Sequence[str]) -> list[list[int]]:
        if engine:
            return [ids.tolist() for ids in engine.encode(texts)]
        return [encoding.ids for encoding in fast.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(ids: Sequence[int]) -> str:
        text: str = fast.decode(list(ids), skip_special_tokens=False)
        return text

    if byte_level:
        pieces = [name if index in special else decode([index]) for index, name in enumerate(names)]
        bytes_ = {index for index, piece in enumerate(pieces) if "\ufffd" in piece}
    else:
        pieces = [name.replace("▁", " ") for name in names]
        bytes_ = {index for index, name in enumerate(names) if is_byte(name)}
    return Encoder(pieces, frozenset(bytes_), frozenset(special), unknown_id, encode_batch, decode)


def _of_sentencepiece(model: sentencepiece.SentencePieceProcessor) -> Encoder:
    size = range(model.get_piece_size())

    def encode_batch(texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = model.encode(list(texts), num_threads=1)
        return ids

    def decode(ids: Sequence[int]) -> str:
        text: str = model.decode(list(ids))
        return text

    return Encoder(
        pieces=[model.id_to_piece(index).replace("▁", " ") for index in size],
        byte_ids=frozenset(filter(model.is_byte, size)),
        special_ids=frozenset(index for index in size if model.is_control(index) or model.is_unknown(index)),
        unknown_id=model.unk_id(),
        encode_batch=encode_batch,
        decode=decode,
    )
