"""The tokenizer of somebody else's directory becomes one that our commands take.

    ours, as `xmodel2 export` writes it       copied
    another tokenizer.json                    its names of <s>, </s>, <unk>, <pad> become ours; the chat's tokens, which it has
                                              not, take the places of reserved ones, or of rows that have no piece
    a tokenizer.model (SentencePiece Unigram) first made a tokenizer.json

Ids of text stay what they were: the model was trained with them.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, processors

from xmodel2.errors import XmodelError
from xmodel2.files import read_json, write_json_atomic, write_text_atomic
from xmodel2.release.importing.sentencepiece_file import fast_tokenizer
from xmodel2.tokenizer import Tokenizer, load_tokenizer
from xmodel2.tokenizer.load import BOS, CHAT_TEMPLATE, EOS, PAD, SPECIAL_TOKENS, UNK

JSON_FILE, MODEL_FILE = "tokenizer.json", "tokenizer.model"
_FILES = (JSON_FILE, MODEL_FILE, "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
_ROLES = {"bos_token": BOS, "eos_token": EOS, "unk_token": UNK, "pad_token": PAD}
_RESERVED = re.compile(r"(reserved|unused|placeholder|extra)[a-z_]*\d+", re.IGNORECASE)
# Text that spells one of our special tokens is cut after its "<", so that no piece of the vocabulary is the token.
_NO_TOKEN = {
    "type": "Split",
    "pattern": {"Regex": f"<(?={'|'.join(re.escape(token[1:]) for token in SPECIAL_TOKENS)})"},
    "behavior": "Isolated",
    "invert": False,
}


def adopt_tokenizer(directory: Path, out: Path, rows: int) -> tuple[Tokenizer, list[str]]:
    """Write the tokenizer of ``directory`` into ``out`` and return it with what was changed, a sentence each.

    ``rows``: of the model's embedding. Raises `XmodelError` if there is none, it is damaged, or there is no place for a token.
    """
    out.mkdir(parents=True)
    changed: list[str] = []
    path = directory / JSON_FILE
    if path.is_file():
        tree = _read(path)
    elif (directory / MODEL_FILE).is_file():
        tree = json.loads(fast_tokenizer(directory / MODEL_FILE).to_str())
        changed.append(f"{JSON_FILE} was made of {MODEL_FILE}, a SentencePiece Unigram model")
    else:
        raise XmodelError(
            f"{directory}: has neither {JSON_FILE} nor {MODEL_FILE}; copy the model's tokenizer there, or name a folder that"
            " has it with --tokenizer"
        )
    if not changed and set(SPECIAL_TOKENS) <= _special(tree):
        for name in _FILES:
            if (directory / name).is_file():
                shutil.copyfile(directory / name, out / name)
    else:
        changed += _make_ours(tree, directory, rows)
        _write(tree, out, path)
    tokenizer = load_tokenizer(out)
    if tokenizer.vocab_size > rows:
        raise XmodelError(
            f"{directory}: its tokenizer has {tokenizer.vocab_size:,} pieces, and its model {rows:,} rows; they do not belong"
            " together"
        )
    return tokenizer, changed


def _read(path: Path) -> dict[str, Any]:
    tree = read_json(path)
    try:
        tokenizers.Tokenizer.from_str(json.dumps(tree))
    except Exception as error:  # the library raises plain Exception
        raise XmodelError(f"{path}: not a tokenizer ({error}); copy it again") from None
    return dict(tree)


def _names(tree: dict[str, Any]) -> set[str]:
    vocabulary = tree["model"]["vocab"]
    pieces = vocabulary if isinstance(vocabulary, dict) else (entry[0] for entry in vocabulary)
    return {*pieces, *(token["content"] for token in tree.get("added_tokens", []))}


def _special(tree: dict[str, Any]) -> set[str]:
    """Return the tokens that text cannot spell; another piece of such a name it could."""
    return {token["content"] for token in tree.get("added_tokens", []) if token.get("special")}


def _make_ours(tree: dict[str, Any], directory: Path, rows: int) -> list[str]:
    """Give the tree our special tokens, and return what was done."""
    names = _names(tree)
    missing = [token for token in SPECIAL_TOKENS if token not in names]
    renamed = {theirs: ours for ours, theirs in _theirs(directory).items() if ours in missing and theirs in names}
    free = sorted(
        (name for name in names if _RESERVED.search(name) and name not in renamed),
        key=lambda name: [int(digits) for digits in re.findall(r"\d+", name)],
    )
    added = [token for token in missing if token not in renamed.values()]
    taken = dict(zip(free, added, strict=False))
    new = added[len(taken) :]
    room = rows - _size(tree)
    if len(new) > room:
        raise XmodelError(
            f"{directory}: its tokenizer has no {', '.join(new)}, which our chat format needs, and neither reserved tokens nor"
            f" rows of the embedding without a piece ({rows:,} rows) to put them in; train a tokenizer with `xmodel2"
            " tokenizer train`, or name a folder that has such a one with --tokenizer"
        )
    _rename(tree, renamed | taken)
    done = [f"{theirs} is now called {ours}" for theirs, ours in renamed.items()]
    done += [
        f"{ours} took the place of {theirs}, which this model was not trained on" for theirs, ours in taken.items()
    ]
    done += [f"{token} was added in a row without a piece, which this model was not trained on" for token in new]
    return done


def _theirs(directory: Path) -> dict[str, str]:
    """Return their name of each of our four tokens that every tokenizer has; no two the same."""
    config: dict[str, Any] = {}
    for path in (directory / "special_tokens_map.json", directory / "tokenizer_config.json"):
        values = read_json(path) or {}
        if not isinstance(values, dict):
            raise XmodelError(f"{path}: holds no JSON object; copy it again")
        config |= values
    found: dict[str, str] = {}
    for role, ours in _ROLES.items():
        value = config.get(role)
        name = value.get("content") if isinstance(value, dict) else value
        if isinstance(name, str) and name not in found.values():
            found[ours] = name
    return found


def _size(tree: dict[str, Any]) -> int:
    return tokenizers.Tokenizer.from_str(json.dumps(tree)).get_vocab_size(with_added_tokens=True)


def _rename(tree: dict[str, Any], names: dict[str, str]) -> None:
    model = tree["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(piece, piece): token_id for piece, token_id in model["vocab"].items()}
        if isinstance(model.get("unk_token"), str):
            model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    for token in tree.get("added_tokens", []):
        token["content"] = names.get(token["content"], token["content"])
    cuts = [_NO_TOKEN, *([tree["pre_tokenizer"]] if tree.get("pre_tokenizer") else [])]
    tree["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": cuts}
    tree["post_processor"] = None  # ours is set once its token has an id


def _write(tree: dict[str, Any], out: Path, path: Path) -> None:
    try:
        fast = tokenizers.Tokenizer.from_str(json.dumps(tree))
    except Exception as error:  # the library raises plain Exception
        raise XmodelError(f"{path}: cannot be given our special tokens ({error})") from None
    fast.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    fast.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, fast.token_to_id(BOS))]
    )
    special = {**_ROLES, "additional_special_tokens": list(SPECIAL_TOKENS[4:])}
    write_text_atomic(out / JSON_FILE, fast.to_str(pretty=True))
    write_json_atomic(out / "special_tokens_map.json", special)
    write_json_atomic(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **special,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    )
