"""A GGUF file is proved before it is published: its weights against ours, llama.cpp's answers against those of its weights.

    weights            every tensor is read back; its error is at most what its type's rounding can make
    log-probabilities  after several lengths of each prompt, once of the whole vocabulary and then of the 4,096 likeliest:
                       llama.cpp's, with a key/value cache in f32, against ours with the file's weights
    tokens             llama.cpp's ids of prompts and hostile texts are ours, or an equally likely spelling of the same text

llama.cpp rounds what comes into a matrix to the matrix's precision (f16, bf16, 8 bits for blocks), which weights alone do not
tell. So the bound of f32 is rounding (`BOUND`), and that of others a share of the spread of logits over the vocabulary.
Shares measured (RMS; 2.8M trained, 7M and 65M random, of 6, 8 and 24 layers): f16 0.0003 to 0.002, bf16 0.002 to 0.017,
blocks 0.007 to 0.06. Mistakes, in the trained model: logits scaled by 1.05 0.14, rows in the native order 0.25; a scale inside
off by 5% gives 0.03, which f16 and f32 find.
"""

import importlib.util
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from xmodel2.errors import XmodelError
from xmodel2.release.exporting.gguf_tensors import StoredTensors
from xmodel2.release.exporting.gguf_vocabulary import UNIT, is_raw, vocabulary
from xmodel2.release.exporting.verify import BOUND, PROMPTS, Logits, prompt_ids, reference_logits
from xmodel2.release.llama_server import BINDING, LlamaServer
from xmodel2.release.trained import Trained
from xmodel2.tokenizer import Tokenizer

SHARES = {"f16": 0.01, "bf16": 0.04}
BLOCK_SHARE = 0.12
"""Largest RMS difference of log-probabilities as a share of the logits' spread."""
_TEXTS = (
    *PROMPTS,
    "a  b\n\n\tc \r\n ",
    "<s></s><|user|>hi<|end|><unk>",
    "<0x41>▁\u00a0é\u0301👩\u200d👩\u200d👧 \x01",
    "x" * 300,
)
_LIKELIEST = 4096
"""Tokens that are compared after all but the first prompt: llama.cpp takes three seconds to tell 65,536."""
_SAME_SCORE = 1e-3
"""Nats."""


def check_gguf(trained: Trained, file: Path, kind: str) -> dict[str, Any]:
    """Return {"weights_bytes", "weights_error", "max_abs_difference", "share_of_spread", "tokenizer", "checked_by"}.

    Without llama.cpp's binding the weights alone are checked, and what llama.cpp would tell is None. Raises `XmodelError`
    for what is not proved.
    """
    prompts = prompt_ids(trained)
    stored = StoredTensors(file, trained.settings)
    ours = reference_logits(trained, prompts, stored)
    weights = {"weights_bytes": stored.bytes, "weights_error": stored.worst}
    if importlib.util.find_spec(BINDING) is None:
        unknown = dict.fromkeys(("max_abs_difference", "share_of_spread", "tokenizer"))
        return {**weights, **unknown, "checked_by": "reading it back, without llama.cpp"}
    tokenizer = trained.tokenizer
    context = max(map(len, prompts)) + 2
    with LlamaServer(file, cache_type="f32", context=context, threads=torch.get_num_threads()) as server:
        largest, share = _differences(server, prompts, ours, tokenizer)
        bound = SHARES.get(kind, BLOCK_SHARE)
        if not (largest < BOUND if kind == "f32" else share < bound):  # NaN is not
            limit = f"{BOUND:.0e}" if kind == "f32" else f"{bound:.0%} of the logits' spread"
            raise XmodelError(
                f"gguf: llama.cpp's log-probabilities differ from ours by {largest:.2e}, in the mean {share:.1%} of the"
                f" logits' spread; the bound is {limit}; nothing was published"
            )
        return {
            **weights,
            "max_abs_difference": largest,
            "share_of_spread": share,
            "tokenizer": _compare_tokens(server, tokenizer),
            "checked_by": f"llama.cpp, {BINDING} {version(BINDING)}",
        }


def _differences(
    server: LlamaServer, prompts: list[list[int]], ours: Logits, tokenizer: Tokenizer
) -> tuple[float, float]:
    """Return the largest difference of two log-probabilities, and the RMS one as a share of the logits' spread."""
    largest, squares, spreads = list[float](), list[float](), list[float]()
    for prompt, logits in zip(prompts, ours, strict=True):
        whole = min(len(prompt), server.context - 1)
        for length in sorted({1, (whole + 1) // 2, whole}):
            our_V = logits[length - 1].double()
            count = len(our_V) if not largest else _LIKELIEST
            their_V = log_probabilities(server, tokenizer, prompt[:length], len(our_V), count)
            difference = (torch.log_softmax(our_V, -1) - their_V)[~their_V.isnan()]
            largest.append(float(difference.abs().max()))
            squares.append(float(difference.square().mean()))
            spreads.append(float(our_V.var()))
    if not all(map(math.isfinite, squares)):
        return math.nan, math.nan
    return max(largest), math.sqrt(sum(squares) / max(sum(spreads), 1e-30))


def log_probabilities(
    server: LlamaServer, tokenizer: Tokenizer, prompt: list[int], vocab: int, count: int | None = None
) -> torch.Tensor:
    """Return llama.cpp's of the token after a prompt, by id; of all, or of the ``count`` likeliest and NaN of others."""
    # It tells none beside a token that ends the answer, or is a part of a character: this one is neither.
    letter = tokenizer.encode("e")[-1]
    asked = {"prompt": prompt, "n_predict": 1, "n_probs": count or vocab, "temperature": 0, "cache_prompt": False}
    answer = server.post("/completion", asked | {"logit_bias": [[letter, 1e4]]})  # which changes no probability
    rows = answer["completion_probabilities"][0]["top_logprobs"]
    found_V = torch.full((vocab,), math.nan, dtype=torch.double)
    told = [-math.inf if row["logprob"] is None else row["logprob"] for row in rows]  # JSON has no NaN
    found_V[[row["id"] for row in rows]] = torch.tensor(told, dtype=torch.double)
    return found_V


def _compare_tokens(server: LlamaServer, tokenizer: Tokenizer) -> str:
    """Return how llama.cpp's ids of some texts compare with ours. Raises `XmodelError` if text is not kept."""
    _, scores, _ = vocabulary(tokenizer, tokenizer.vocab_size)
    ties = others = 0
    for text in _TEXTS:
        ours = tokenizer.encode(text)
        theirs = server.post("/tokenize", {"content": text, "add_special": False, "parse_special": False})["tokens"]
        if ours == theirs:
            continue
        gap = abs(sum(scores[i] for i in ours) - sum(scores[i] for i in theirs)) / UNIT
        if tokenizer.decode(ours) == tokenizer.decode(theirs) and gap < _SAME_SCORE:
            ties += 1
        elif is_raw(tokenizer):
            raise XmodelError(f"gguf: llama.cpp's ids of {text!r} are {theirs}, and ours {ours}; nothing was published")
        else:
            others += 1
    if others:
        return (
            f"llama.cpp's ids differ in {others} of {len(_TEXTS)} texts: it does not know this tokenizer's normaliser"
        )
    return f"ids as ours in {len(_TEXTS) - ties} of {len(_TEXTS)} texts, equally likely ones in {ties}"
