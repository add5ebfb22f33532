"""A model in vLLM, on this machine, as a `Backend`.

    pairs   -> token ids -> LLM.generate(prompt_logprobs=1)   -> nats of the continuation's tokens
    prompts -> token ids -> LLM.generate(stop, temperature)   -> text, cut here as well

Written for vLLM 0.33. It batches by itself; it gets portions, so that answers are kept while more are computed.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from xmodel2.errors import XmodelError
from xmodel2.eval.backend import Prompt
from xmodel2.eval.requests import cut_at_stop, distinct, encode_pair, fit_pair, fit_prompt, fit_windows, sum_windows
from xmodel2.eval.text import TextTokenizer, model_files, tokenizer_hash
from xmodel2.files import sha256_file

_PORTION = 1024
"""Requests that vLLM gets at a time: several times what it runs at once."""


class VllmBackend:
    """A `transformers` directory or hub id in vLLM. ``dtype`` is auto (as stored), float32, bfloat16 or float16; ``max_length``
    the context in tokens, None for the model's own; ``gpu_memory_utilization`` the share of a GPU's memory that it may take.

    Raises `XmodelError` where vLLM is not installed or does not load the model.
    """

    def __init__(
        self,
        model: str,
        *,
        tokenizer: str | None = None,
        revision: str | None = None,
        dtype: str = "auto",
        max_length: int | None = None,
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        trust_remote_code: bool = False,
        seed: int = 0,
    ) -> None:
        try:
            import vllm
        except ImportError as error:
            raise XmodelError(
                f"--backend vllm: vLLM is not installed or does not start here ({error}); install it into an environment of its "
                "own, since it brings its own torch (pip install vllm), or use --backend transformers, or start its server "
                "elsewhere and use --backend endpoint"
            ) from None
        self._vllm = vllm
        try:
            self._llm = vllm.LLM(
                model,
                tokenizer=tokenizer,
                revision=revision,
                tokenizer_revision=None if tokenizer else revision,
                dtype=dtype,
                max_model_len=max_length,
                tensor_parallel_size=tensor_parallel_size,
                gpu_memory_utilization=gpu_memory_utilization,
                trust_remote_code=trust_remote_code,
                enable_prefix_caching=True,
                seed=seed,
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise XmodelError(f"{model}: vLLM does not load it ({str(error).strip().splitlines()[0]})") from None
        self._config = self._llm.llm_engine.model_config
        self._tokenizer = TextTokenizer(self._llm.get_tokenizer())
        self._source, self._tokenizer_name = model, tokenizer

    @property
    def description(self) -> dict[str, Any]:
        """As `Backend` has it; the fingerprint is of a directory's files, or of hub id and commit."""
        folder = Path(self._source)
        if folder.is_dir():
            weights = [f"{path.name} {sha256_file(path)}" for path in model_files(folder)]
        else:
            weights = [self._source, str(getattr(self._config.hf_config, "_commit_hash", None))]
        dtype = str(self._config.dtype).removeprefix("torch.")
        own = tokenizer_hash(self._tokenizer.tokenizer) if self._tokenizer_name else None
        parts = [*weights, own, dtype, self.max_length, "vllm"]
        return {
            "name": folder.name,
            "backend": "vllm",
            "fingerprint": hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16],
            "parameters": None,
            "dtype": dtype,
            "source": self._source,
        }

    @property
    def max_length(self) -> int:
        """Context, in tokens."""
        return int(self._config.max_model_len)

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """As `Backend` has it."""
        return self._tokenizer.count_tokens(texts)

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[int, tuple[float, bool]]]:
        """As `Backend` has it; one token of the context is left for the token that vLLM has to generate."""
        encode, prefix_id = self._tokenizer.encode, self._tokenizer.prefix_id
        yield from self._scores(
            [fit_pair(*encode_pair(encode, *pair, prefix_id), self.max_length - 1) for pair in pairs]
        )

    def rolling(self, texts: Sequence[str]) -> Iterator[tuple[int, float]]:
        """As `Backend` has it."""
        encoded = self._tokenizer.encode_many(texts, special=False)
        rows, owners = fit_windows(encoded, self._tokenizer.prefix_id, self.max_length)
        yield from sum_windows(((window, nats) for window, (nats, _) in self._scores(rows)), owners, len(texts))

    def generate(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, str]]:
        """As `Backend` has it; prompts that begin alike stand together, for the prefix cache."""
        order = sorted(distinct(prompts).items(), key=lambda item: item[0].text)
        for portion in _portions(order):
            ids, settings = [], []
            for prompt, _ in portion:
                row = self._tokenizer.encode(prompt.text) or [self._tokenizer.prefix_id]
                row, room = fit_prompt(row, prompt.max_new_tokens, self.max_length)
                ids.append(row)
                settings.append(self._sampling(prompt, room))
            for (prompt, places), output in zip(portion, self._run(ids, settings), strict=True):
                text = cut_at_stop(output.outputs[0].text, prompt.until)
                yield from ((index, text) for index in places)

    def _sampling(self, prompt: Prompt, room: int) -> Any:
        stop = [text for text in prompt.until if text]
        if prompt.temperature > 0:
            chance = {"temperature": prompt.temperature, "top_p": prompt.top_p, "seed": prompt.seed}
        else:
            chance = {"temperature": 0.0}
        return self._vllm.SamplingParams(max_tokens=room, stop=stop or None, **chance)

    def _scores(self, rows: Sequence[tuple[tuple[int, ...], int]]) -> Iterator[tuple[int, tuple[float, bool]]]:
        """Yield nats of the last tokens of each row, and whether each is the most probable.

        vLLM computes a row whole: its prefix cache keeps no logits.
        """
        # Nothing is generated that anyone wants, but vLLM has no request without.
        settings = self._vllm.SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=1, detokenize=False)
        # The longest first: a row that does not fit into memory fails at once.
        order = sorted(distinct(rows).items(), key=lambda item: -len(item[0][0]))
        for portion in _portions(order):
            outputs = self._run([list(ids) for (ids, _), _ in portion], settings)
            for ((ids, scored), places), output in zip(portion, outputs, strict=True):
                answer = _sum(ids, output.prompt_logprobs, len(ids) - scored)
                yield from ((index, answer) for index in places)

    def _run(self, rows: Sequence[list[int]], settings: Any) -> list[Any]:
        prompts = [self._vllm.TokensPrompt(prompt_token_ids=row) for row in rows]
        return list(self._llm.generate(prompts, settings, use_tqdm=False))


def _portions(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[start : start + _PORTION] for start in range(0, len(items), _PORTION))


def _sum(ids: Sequence[int], logprobs: Sequence[Any], start: int) -> tuple[float, bool]:
    """Add up a prompt's {token: Logprob}, which hold the token itself and the most probable one, from ``start`` on."""
    nats, greedy = 0.0, True
    for token, found in zip(ids[start:], logprobs[start:], strict=True):
        own = found[token].logprob
        nats += own
        greedy = greedy and own >= max(other.logprob for other in found.values())
    return nats, greedy
