"""Greedy tokens/s of our engine beside plain `lm_eval --model hf` and `transformers`' continuous batching, texts compared.

    python -m benchmarks.generate [--quick] [--json] [--model DIR] [--new-tokens 96] [--data-dir DIR]
    python -m benchmarks.generate --device cuda --preset xl --vocab-size 65280 --dtype bfloat16 --batches 1 16 64

Prompts are the harness's: GSM8K with five examples that differ from question to question, BBH with three that its subtasks
share, HumanEval with none; stop strings are the tasks' own. A model of random weights seldom stops, so that every answer takes
all `--new-tokens`: the least favourable case for an engine that gives a slot to the next prompt. The harness generates at its
default batch size of 1 and at larger ones; `generate_batch` gets token ids, as many pages as it needs and no stop strings, so
its texts are not compared. Tokens of an answer are counted in what ours says, cut before its stop string. Exits 1 if more
than one text in fifty differs in fp32 from the harness's at batch size 1: where two tokens are level to rounding, either is greedy.
"""

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance

from benchmarks.evaluation_peers import (
    Arm,
    PlainHarness,
    add_arguments,
    generate,
    least_flops,
    matrix_rate,
    measure,
    memory_note,
    model_directory,
    open_ours,
    open_vllm,
    questions,
)
from benchmarks.harness import Result, argument_parser, machine
from xmodel2.eval.engine import Engine

_PAGE = 128
"""Tokens of a page of continuous batching."""


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "4 documents of BBH and HumanEval, 8 tokens, no continuous batching, no memory")
    add_arguments(parser)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 16], help="batch sizes of lm_eval")
    parser.add_argument("--tasks", nargs="+", default=["gsm8k", "bbh", "humaneval"])
    parser.add_argument("--new-tokens", type=int, default=96)
    options = parser.parse_args()
    options.limit = options.limit or 16
    if options.quick:
        options.limit, options.tasks, options.new_tokens = 4, ["bbh", "humaneval"], 8
        options.batches, options.skip_memory = [1, 4], True
    with tempfile.TemporaryDirectory() as folder:
        directory = model_directory(Path(folder), options)
        asked = questions(options.tasks, options, Path(folder))
        for request in (request for requests in asked.values() for request in requests):
            settings = {"until": request.args[1]["until"], "do_sample": False, "max_gen_toks": options.new_tokens}
            request.arguments = (request.args[0], settings)
        ours, plain = open_ours(directory, options), PlainHarness(directory, options)
        arms: dict[str, Arm] = {"ours": partial(generate, ours)}
        arms |= {f"lm_eval, batch {size}": partial(plain.generate, size) for size in options.batches}
        if not options.quick:
            arms["transformers, continuous"] = partial(_continuous, plain.model, ours, options.new_tokens)
        if options.peer:
            arms["vllm"] = partial(generate, open_vllm(directory, options))
        found = measure(arms, asked, options)
        answers = {name: [_ids(ours, text) for text in found.answers["ours"][name]] for name in asked}
        tokens = {name: sum(map(len, ids)) for name, ids in answers.items()}
        rates = found.rates(tokens, dict.fromkeys(tokens, 1))
        speed = rates.pop("ours")
        harness = max((arm for arm in rates if arm.startswith("lm_eval")), key=rates.__getitem__)
        prompts = {name: [ours.encode(request.args[0]) for request in requests] for name, requests in asked.items()}
        least = sum(
            least_flops(
                ours,
                (
                    (prompt + new[:-1], len(new))
                    for prompt, new in zip(prompts[name], answers[name], strict=True)
                    if new
                ),
            )
            for name in asked
        )
        limit = sum(tokens.values()) * matrix_rate(ours, 2048) / least
        memory = memory_note("generate_until", directory, asked, harness, options)
    reference = f"lm_eval, batch {options.batches[0]}"
    texts = [
        pair for name in asked for pair in zip(found.answers["ours"][name], found.answers[reference][name], strict=True)
    ]
    wrong = sum(a != b for a, b in texts)
    seconds, theirs = found.seconds["ours"], found.seconds[harness]
    lengths = {name: sum(map(len, found)) / len(found) for name, found in prompts.items()}
    by_task = ", ".join(
        f"{name} {lengths[name]:.0f} tokens a prompt, {tokens[name] / seconds[name]:.1f} tokens/s"
        f" ({theirs[name] / seconds[name]:.2f})"
        for name in asked
    )
    default = f"{speed / rates[once]:.2f} times" if (once := "lm_eval, batch 1") in rates else "not measured beside"
    Result(
        name="generate",
        machine=machine(),
        ours=speed,
        peers=rates,
        unit="tokens/s",
        ratio_to_best_peer=speed / max(rates.values()),
        share_of_limit=speed / limit,
        limit=limit,
        notes=f"{options.model or options.preset}, vocabulary {ours.network.config.vocab_size}, {options.dtype},"
        f" {options.limit} prompts a task, {options.new_tokens} new tokens at most; {default} lm_eval's default batch size;"
        f" by task (times {harness}): {by_task}; {len(texts) - wrong} of {len(texts)} texts equal to {reference}'s{memory}",
    ).show(options.json)
    sys.exit(1 if wrong * 50 > len(texts) and options.dtype == "float32" else 0)


def _ids(engine: Engine, text: str) -> list[int]:
    return engine.text.encode_many([text], special=False)[0]


def _continuous(model: Any, engine: Engine, new_tokens: int, requests: list[Instance]) -> list[str]:
    """Return what `generate_batch` says, from prompts' ids, in pages for all sequences at once."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    prompts = engine.text.encode_many([request.args[0] for request in requests])
    pages = sum(-(-(len(prompt) + new_tokens) // _PAGE) for prompt in prompts)
    found = model.generate_batch(
        prompts,
        generation_config=GenerationConfig(
            max_new_tokens=new_tokens, do_sample=False, eos_token_id=engine.text.tokenizer.eos_token_id, pad_token_id=0
        ),
        continuous_batching_config=ContinuousBatchingConfig(page_size=_PAGE, num_blocks=pages, max_batch_tokens=512),
        progress_bar=False,
    )
    return [engine.text.decode(found[f"req_{index}"].generated_tokens) for index in range(len(prompts))]


if __name__ == "__main__":
    main()
