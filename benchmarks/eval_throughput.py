"""Multiple-choice items/s of our engine beside plain `lm_eval --model hf`, on the commonsense tasks, answers compared.

    python -m benchmarks.eval_throughput [--quick] [--json] [--vocab-size 65280] [--model DIR] [--data-dir DIR]
    python -m benchmarks.eval_throughput --device cuda --preset xl --vocab-size 65280 --dtype bfloat16 --batches 1 16 64

The same requests, made once, go to all: ours, and the harness's own model class at its default batch size of 1 and at larger
ones (not at `auto`: on a CPU that tries 64 full contexts with all their logits). Tokenization is in what is timed; templates
and metrics, which both have in common, are not. Rates are for the tasks' whole sets, from each task's measured rate.
In fp32 every log-probability must be within 1e-3 nats of the harness's and every chosen option the same but for ties, or it
exits 1. The limit is the rate of a matrix product over the FLOPs that cannot be left out: each different beginning of a
task's questions once, logits where they are asked for.
"""

import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from lm_eval.api.instance import Instance

from benchmarks.evaluation_peers import (
    Arm,
    PlainHarness,
    Questions,
    add_arguments,
    documents,
    least_flops,
    matrix_rate,
    measure,
    memory_note,
    model_directory,
    open_ours,
    open_vllm,
    questions,
    score,
)
from benchmarks.harness import Result, argument_parser, machine
from xmodel2.eval.engine import Engine
from xmodel2.eval.requests import encode_pair
from xmodel2.eval.tasks import SUITES, TASKS

Answers = dict[str, list[tuple[float, bool]]]
"""By task (log-probability, whether greedy)."""
_TOLERANCE = 1e-3
"""Nats."""


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "3 documents a task, batch sizes 1 and 8, no memory")
    add_arguments(parser)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 16, 32], help="batch sizes of lm_eval")
    options = parser.parse_args()
    options.limit = options.limit or 12
    if options.quick:
        options.limit, options.batches, options.skip_memory = 3, [1, 8], True
    with tempfile.TemporaryDirectory() as folder:
        directory = model_directory(Path(folder), options)
        asked = questions(SUITES["commonsense"], options, Path(folder))
        ours, plain = open_ours(directory, options), PlainHarness(directory, options)
        arms: dict[str, Arm] = {"ours": partial(score, ours)}
        arms |= {f"lm_eval, batch {size}": partial(plain.score, size) for size in options.batches}
        if options.peer:
            arms["vllm"] = partial(score, open_vllm(directory, options))
        found = measure(arms, asked, options)
        sizes = {name: documents(requests) for name, requests in asked.items()}
        times = {name: TASKS[name].rows / size for name, size in sizes.items()}
        rates = found.rates(sizes, times)
        speed = rates.pop("ours")
        harness = max((arm for arm in rates if arm.startswith("lm_eval")), key=rates.__getitem__)
        rows = sum(TASKS[name].rows for name in asked)
        least = sum(times[name] * least_flops(ours, _sequences(ours, requests)) for name, requests in asked.items())
        limit = rows * matrix_rate(ours, 2048) / least
        memory = memory_note("loglikelihood", directory, asked, harness, options)
    wrong, notes = _compared(asked, found.answers["ours"], found.answers[f"lm_eval, batch {options.batches[0]}"])
    seconds, theirs = found.seconds["ours"], found.seconds[harness]
    by_task = ", ".join(
        f"{name} {sizes[name] / seconds[name]:.1f} ({theirs[name] / seconds[name]:.2f})" for name in asked
    )
    default = f"{speed / rates[once]:.2f} times" if (once := "lm_eval, batch 1") in rates else "not measured beside"
    Result(
        name="eval_throughput",
        machine=machine(),
        ours=speed,
        peers=rates,
        unit="items/s",
        ratio_to_best_peer=speed / max(rates.values()),
        share_of_limit=speed / limit,
        limit=limit,
        notes=f"{options.model or options.preset}, vocabulary {ours.network.config.vocab_size}, {options.dtype},"
        f" {options.limit} documents a task; {default} lm_eval's default batch size; items/s by task (times {harness}):"
        f" {by_task}; the whole sets of these tasks, {rows:,} items, whose rate is given: {rows / speed:.0f} s; {notes}{memory}",
    ).show(options.json)
    sys.exit(1 if wrong and options.dtype == "float32" else 0)


def _compared(asked: Questions, ours: Answers, theirs: Answers) -> tuple[int, str]:
    """Return how many answers differ by more than rounding, and what is to be said of the comparison."""
    worst, far, moved, ties = 0.0, 0, 0, 0
    for name, requests in asked.items():
        options = defaultdict[int, list[tuple[float, float]]](list)
        for request, (a, _), (b, _) in zip(requests, ours[name], theirs[name], strict=True):
            options[request.doc_id].append((a, b))
            worst, far = max(worst, abs(a - b)), far + (abs(a - b) > _TOLERANCE)
        for scores in options.values():
            chosen, wanted = (max(range(len(scores)), key=lambda n: scores[n][arm]) for arm in (0, 1))
            if chosen != wanted:
                tie = abs(scores[chosen][1] - scores[wanted][1]) < 2 * _TOLERANCE
                moved, ties = moved + (not tie), ties + tie
    answers = sum(map(len, ours.values()))
    return far + moved, (
        f"{answers} log-probabilities, {far} further than {_TOLERANCE} nats from lm_eval's (furthest {worst:.1e}),"
        f" {moved} options chosen differently (and {ties} ties)"
    )


def _sequences(engine: Engine, requests: Sequence[Instance]) -> Iterator[tuple[list[int], int]]:
    """Yield the ids that a request feeds, and how many of the last are to predict."""
    for request in requests:
        context, option = encode_pair(engine.encode, request.args[0], request.args[1], engine.prefix_token_id)
        yield (context + option)[:-1], len(option)


if __name__ == "__main__":
    main()
