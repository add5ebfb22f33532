"""Tiny random models of every rival whose class `transformers` has, with the peculiarities of the published one.

config.json of the published model (``PUBLISHED``), its sizes shrunk -> random weights, biases and norms as well
a small tokenizer of the family's kind, with its habit of adding a start token or not     -> a directory that loads offline
"""

import json
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from xmodel2.eval.rivals import RIVALS, Rival

NATIVE = [rival for rival in RIVALS if rival.native]

_LLAMA = {"model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10_000.0}
_QWEN = {
    "model_type": "qwen2",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151_936,
    "max_position_embeddings": 131_072,
    "rope_theta": 1_000_000.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "max_window_layers": 28,
}

PUBLISHED: dict[str, dict[str, Any]] = {
    "TinyLLaMA1.1-1.1B": _LLAMA
    | {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": 32_000,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    },
    "OLMo-1B": {
        "model_type": "olmo",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "vocab_size": 50_304,
        "max_position_embeddings": 2048,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": True,
    },
    "Llama-3.2-1B": _LLAMA
    | {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
        "max_position_embeddings": 131_072,
        "rope_theta": 500_000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "tie_word_embeddings": True,
    },
    "Fox-1-1.6B": _LLAMA
    | {
        "hidden_size": 2048,
        "intermediate_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "vocab_size": 256_000,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "Qwen2-1.5B": _QWEN,
    "StableLM-2-zephyr-1.6B": {
        "model_type": "stablelm",
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 100_352,
        "max_position_embeddings": 4096,
        "partial_rotary_factor": 0.25,
        "use_qkv_bias": True,
        "layer_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    },
    "SmolLM-1.7B": _LLAMA
    | {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 49_152,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    },
    "Qwen2.5-1.5B": _QWEN,
    "Phi-1.5-1.3B": {
        "model_type": "phi",
        "hidden_act": "gelu_new",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 51_200,
        "max_position_embeddings": 2048,
        "partial_rotary_factor": 0.5,
        "tie_word_embeddings": False,
    },
}
"""config.json of each, by the report's name (facts of the public files)."""

_SHRUNK: dict[str, dict[str, Any]] = {
    # Other OLMos clip their projections (at 8, out of reach of so small a model); this one is to show a backend that forgets.
    "OLMo-1B": {"clip_qkv": 0.5},
    # Heads of 16, so that the quarter of each that rotates is a whole number of pairs.
    "StableLM-2-zephyr-1.6B": {"num_attention_heads": 2},
}
_END = "<|endoftext|>"
_KINDS = {
    "TinyLLaMA1.1-1.1B": "sentencepiece",
    "Fox-1-1.6B": "gemma",
    "Llama-3.2-1B": "llama3",
    "Qwen2-1.5B": "qwen",
    "Qwen2.5-1.5B": "qwen",
    "OLMo-1B": "neox",
    "Phi-1.5-1.3B": "neox",
    "StableLM-2-zephyr-1.6B": "gpt2",
    "SmolLM-1.7B": "smollm",
}
_TEXT = [
    "The quick brown fox jumps over the lazy dog, and then it sleeps in the sun for an hour or two.",
    "Question: What is the capital of France?\nAnswer: Paris is the capital, and the answer is known to all.",
    "def add(a, b):\n    return a + b\n\n\nassert add(2, 3) == 5  # the answer is 5",
    "Natalia sold 48 clips in April, and half as many in May: 48 / 2 = 24, so 48 + 24 = 72 in all. #### 72",
    "Water boils when it is heated; a plant needs light, water and air to grow. Which of these is true?",
] * 2
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3_SPLIT = _QWEN_SPLIT.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)


def published_parameters(name: str) -> int:
    """Return how many parameters the published configuration gives, tied tables once."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**PUBLISHED[name]))
    return sum(parameter.numel() for parameter in model.parameters())


def tiny_rival(rival: Rival, folder: Path, context: int = 2048) -> Path:
    """Write a model directory of the rival's class, 32 wide and 2 layers deep, and return it; equal weights each time.

    ``context`` caps its positions (tokens).
    """
    path = folder / rival.name
    tokenizer = tiny_tokenizer(_KINDS[rival.name])
    tokenizer.save_pretrained(path)
    published = PUBLISHED[rival.name]
    settings = published | {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2 if published["num_key_value_heads"] < published["num_attention_heads"] else 4,
        "vocab_size": -(-len(tokenizer) // 16) * 16,  # more rows than pieces, as published
        "max_position_embeddings": min(context, published["max_position_embeddings"]),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    settings |= _SHRUNK.get(rival.name, {})
    settings["num_key_value_heads"] = min(settings["num_key_value_heads"], settings["num_attention_heads"])
    if "rope_scaling" in published:
        original = settings["max_position_embeddings"] // 16  # as 8,192 is to 131,072
        settings["rope_scaling"] = published["rope_scaling"] | {"original_max_position_embeddings": original}
    _random_model(settings, zlib.crc32(rival.name.encode())).save_pretrained(path)
    return path


def tiny_model(settings: dict[str, Any], folder: Path) -> Path:
    """Write a model directory of any class, 32 wide and 2 layers deep with a context of 128, and return it."""
    tokenizer = tiny_tokenizer("sentencepiece")
    tokenizer.save_pretrained(folder)
    ours = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 8,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 128,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    _random_model(ours | settings, 0).save_pretrained(folder)
    return folder


def _random_model(settings: dict[str, Any], seed: int) -> Any:
    """Return a model with every tensor drawn at random: fresh ones have biases of 0 and norms of 1, which hide mistakes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings), dtype=torch.float32)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                norm = parameter.ndim == 1 and name.endswith("weight")
                parameter.normal_(1.0 if norm else 0.0, 0.15)
    return model.eval()


@lru_cache
def tiny_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer of about 500 pieces, trained on a few sentences, of one family's kind.

    ``sentencepiece`` and ``gemma`` write a space as "▁", fall back to bytes and begin with a start token (the first also
    puts a space before every text); the others are byte-level, of which only ``llama3`` begins with a start token, in its
    post-processor. ``neox`` has added tokens for runs of spaces; ``qwen`` has no start token at all.
    """
    if kind in ("sentencepiece", "gemma"):
        return _sentencepiece(prefix_space=kind == "sentencepiece")
    tokenizer = Tokenizer(models.BPE())
    splits = {"qwen": _QWEN_SPLIT, "llama3": _LLAMA3_SPLIT}
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind not in splits)
    if kind in splits:
        first: Any = pre_tokenizers.Split(Regex(splits[kind]), behavior="isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, byte_level])
    elif kind == "smollm":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    else:
        tokenizer.pre_tokenizer = byte_level
    if kind == "qwen":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    start = "<|begin_of_text|>" if kind == "llama3" else _END
    end = "<|end_of_text|>" if kind == "llama3" else _END
    special = list(dict.fromkeys([start, end])) + (["<|padding|>"] if kind == "neox" else [])
    tokenizer.train_from_iterator(
        _TEXT,
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if kind == "neox":
        tokenizer.add_tokens([AddedToken(" " * run, normalized=True) for run in range(8, 1, -1)])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    if kind == "llama3":
        begin = processors.TemplateProcessing(
            single=f"{start} $A", pair=f"{start} $A {start} $B:1", special_tokens=[(start, 0)]
        )
        tokenizer.post_processor = processors.Sequence([tokenizer.post_processor, begin])
    names = {"eos_token": end} | ({} if kind in ("qwen", "neox") else {"bos_token": start})
    if kind in ("qwen", "neox"):
        names["pad_token"] = _END if kind == "qwen" else "<|padding|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _sentencepiece(prefix_space: bool) -> PreTrainedTokenizerFast:
    steps: list[Any] = [normalizers.Prepend("▁")] if prefix_space else []
    normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizer
    learner.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    learner.train_from_iterator(_TEXT, trainers.BpeTrainer(vocab_size=560, special_tokens=pieces, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    # Built anew, since the trainer leaves the byte pieces as special tokens, which decoding would drop.
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(learned["vocab"], merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizer
    strip = [decoders.Strip(" ", 1, 0)] if prefix_space else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", add_bos_token=True
    )
