"""The command line: every command, its arguments, and one jump to the function that does the work.

Exit codes: 0 done, 1 failed (one clear message), 2 wrong usage, 130 stopped by a signal.
Heavy imports happen inside a command, so that --help is quick.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from xmodel2.arguments import key_values, normalise
from xmodel2.errors import XmodelError
from xmodel2.files import as_path
from xmodel2.output import (
    busy,
    print_dict,
    print_inspection,
    print_json,
    print_results,
    print_sources,
    progress_bars,
)

app = tyro.extras.SubcommandApp()
_SET = Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE"), tyro.conf.UseAppendAction]
INTERRUPTED = 130
"""Exit code of a command that was stopped by a signal, everything saved: what comes after it in a script must not run."""
_FLAG = tyro.conf.FlagCreatePairsOff


@app.command(name="demo")
def demo(out: Path = Path("demo"), overwrite: Annotated[bool, _FLAG] = False) -> None:
    """The whole road at pico scale on text that this machine already has: minutes on two cores, ends with a report.

    Example: xmodel2 demo --out demo

    Args:
        out: where everything goes
        overwrite: replace an earlier demo in that folder
    """
    from xmodel2.demo import run_demo

    run_demo(out, overwrite)


@app.command(name="tokenizer train")
def tokenizer_train(
    files: tyro.conf.Positional[tuple[Path, ...]],
    /,
    *,
    vocab_size: int,
    out: Path,
    sample_bytes: int = 8_000_000,
    balance: float | None = None,
    overwrite: Annotated[bool, _FLAG] = False,
) -> None:
    """Train a Unigram tokenizer on text, jsonl or parquet files.

    Example: xmodel2 tokenizer train corpus/*.jsonl.zst --vocab-size 8192 --out tokenizer

    Args:
        files: .txt, .parquet, .jsonl, also packed as .gz or .zst
        vocab_size: number of pieces, special tokens and bytes included
        out: tokenizer directory to write (Hugging Face layout)
        sample_bytes: bytes of text to learn from, drawn from all files
        balance: share of each source (folder) in the sample as its size to this power; 0 makes all equal
        overwrite: replace an earlier tokenizer in that directory
    """
    from xmodel2.data.tokenizers import train_on_files

    with busy("training the tokenizer"):
        tokenizer = train_on_files(files, vocab_size, out, sample_bytes, balance, overwrite)
    print(f"{out}: {tokenizer.vocab_size} pieces")


@app.command(name="tokenizer inspect")
def tokenizer_inspect(
    tokenizers: tyro.conf.Positional[tuple[Path, ...]],
    /,
    *,
    files: tuple[Path, ...],
    figure: Path | None = None,
    json: Annotated[bool, _FLAG] = False,
) -> None:
    """Compression and coverage of a tokenizer on text; of several, side by side by source.

    Example: xmodel2 tokenizer inspect tokenizer other/tokenizer.json --files heldout/*.jsonl.gz

    Args:
        tokenizers: tokenizer directories, tokenizer.json or SentencePiece .model files
        files: text, jsonl or parquet files to measure on
        figure: .svg or .png to draw characters a token by source into
        json: print one JSON object
    """
    from xmodel2.data.tokenizers import compare_on_files, inspect_on_files

    if len(tokenizers) == 1 and figure is None:
        return print_dict(inspect_on_files(tokenizers[0], files), json)
    comparison, tables = compare_on_files(tokenizers, files, figure)
    print_json(comparison) if json else print(tables)


@app.command(name="data starter")
def data_starter(*, out: Path, vocab_size: int = 8192, overwrite: Annotated[bool, _FLAG] = False) -> None:
    """Write a corpus to start with, from what this machine already has: text, and questions with answers.

    Example: xmodel2 data starter --out corpus && xmodel2 data prepare corpus/sources.toml --out data

    Args:
        out: folder to write
        vocab_size: pieces of the tokenizer that its sources.toml asks for
        overwrite: replace what is in the folder
    """
    from xmodel2.data.starter import write_starter_corpus

    with busy("collecting text and making questions"):
        counts = write_starter_corpus(out, vocab_size=vocab_size, overwrite=overwrite)
    print_dict(counts, as_json=False)


@app.command(name="data prepare")
def data_prepare(
    sources: tyro.conf.Positional[Path],
    /,
    *,
    out: str,
    strict: Annotated[bool, _FLAG] = False,
    overwrite: Annotated[bool, _FLAG] = False,
    workers: int | None = None,
    executor: Literal["local", "ray", "slurm"] = "local",
    slurm: tuple[str, ...] = (),
    work: Path | None = None,
    json: Annotated[bool, _FLAG] = False,
) -> None:
    """Raw documents to cleaned, deduplicated, decontaminated, tokenized, checksummed shards; goes on where it was stopped.

    Example: xmodel2 data prepare sources.toml --out data/nano

    Args:
        sources: TOML file that names tokenizer, sources and rules (docs/data.md)
        out: directory to write, or URL of an object store
        strict: stop at the first malformed record instead of skipping and counting
        overwrite: replace what is in the directory
        workers: tasks at once (default: one a core)
        executor: where tasks are done
        slurm: partition=NAME time=HH:MM:SS and other arguments of datatrove's Slurm executor
        work: folder for what is half done, on a file system that all machines see (default: beside --out)
        json: print the report as one JSON object
    """
    from xmodel2.data.executors import Cluster
    from xmodel2.data.prepare import Options, prepare

    if workers is not None and workers < 1:
        raise XmodelError(f"--workers {workers}: must be at least 1")
    cluster = Cluster(executor, workers or os.cpu_count() or 1, key_values("slurm", slurm))
    with progress_bars() as show:
        report = prepare(sources, as_path(out), Options(strict, overwrite, cluster, work), show)
    if json:
        return print_json(report)
    print_sources(report["sources"])


@app.command(name="data inspect")
def data_inspect(
    dir: tyro.conf.Positional[str],
    /,
    samples: int = 1,
    out: Path | None = None,
    cache_dir: str = "",
    json: Annotated[bool, _FLAG] = False,
) -> None:
    """Counts, shares and lengths of every source, Figure 2's two pies, and a page of samples and of what was removed.

    Example: xmodel2 data inspect data/nano --samples 3

    Args:
        dir: directory made by `data prepare`
        samples: documents shown of each source
        out: folder for the page and the figures (default: inspect/ in the directory)
        cache_dir: folder that files of an object store are copied to
        json: print one JSON object, and write nothing unless --out is given
    """
    from xmodel2.data.inspect import inspect_data
    from xmodel2.data.inspect_page import write_inspection

    report = inspect_data(dir, samples, cache_dir=cache_dir)
    written = write_inspection(report, out or as_path(dir) / "inspect") if out or not json else []
    if json:
        return print_json(report)
    print_inspection(report["sources"])
    print(f"{written[-1]}: the two pies, lengths, samples, and what was removed")


@app.command(name="data verify")
def data_verify(dir: tyro.conf.Positional[str], /, cache_dir: str = "") -> None:
    """Read every shard and compare sizes and checksums.

    Example: xmodel2 data verify data/nano

    Args:
        dir: directory made by `data prepare`
        cache_dir: folder that files of an object store are copied to
    """
    from xmodel2.data.shards import verify_shards

    with busy("reading"):
        rows = verify_shards(dir, cache_dir)
    print(f"{dir}: {len(rows)} files, all as recorded")


@app.command(name="train")
def train(
    recipe: tyro.conf.Positional[Path],
    /,
    set: _SET = (),
    out: Path | None = None,
    resume: Annotated[bool, _FLAG] = False,
) -> int:
    """Train both stages of a recipe: stable, then decay with instruction data.

    Example: xmodel2 train recipes/nano.toml --set train.learning_rate=0.02 --out runs/nano --resume

    Args:
        recipe: recipe file
        set: override a key of the recipe; may be repeated
        out: run directory (default: runs/NAME)
        resume: go on from the newest checkpoint in the run directory
    """
    from xmodel2.recipe import load_recipe
    from xmodel2.train import train as run

    settings = load_recipe(recipe, set)
    result = run(settings, out or Path("runs") / settings.name, resume)
    if result.finished and result.loss is None:
        print(f"{result.run_dir}: already finished at step {result.step}")
    elif result.finished:
        print(f"{result.run_dir}: finished at step {result.step}, loss {result.loss:.4f}")
    return 0 if result.finished else INTERRUPTED


@app.command(name="plan")
def plan(recipe: tyro.conf.Positional[Path], /, set: _SET = (), json: Annotated[bool, _FLAG] = False) -> None:
    """Parameters, steps, FLOPs and bytes of a recipe, before anything is paid for.

    Example: xmodel2 plan recipes/xmodel2-1.2b.toml

    Args:
        recipe: recipe file
        set: override a key of the recipe; may be repeated
        json: print one JSON object
    """
    from xmodel2.model.count import plan_run
    from xmodel2.recipe import load_recipe

    print_dict(plan_run(load_recipe(recipe, set)), json)


@app.command(name="search")
def search(recipe: tyro.conf.Positional[Path], /, *, trials: int, out: Path, set: _SET = ()) -> None:
    """Search Table 5's hyperparameters by training the recipe's model once a trial; resumable.

    Example: xmodel2 search recipes/nano.toml --trials 20 --out runs/search --set stages.stable.tokens=1_000_000

    Args:
        recipe: recipe file of the search model
        trials: trials to add to the study
        out: study directory; best.toml is a recipe that `train` takes
        set: override a key of the recipe; may be repeated
    """
    from xmodel2.recipe import load_recipe
    from xmodel2.search.study import run_search, trial_loss

    study = run_search(load_recipe(recipe, set), trials, out, lambda r: trial_loss(r, out / "trials"))
    print_dict({"best loss": study["best_value"], **study["best_params"], "recipe": str(out / "best.toml")}, False)


@app.command(name="eval")
def evaluate(
    model: tyro.conf.Positional[Path],
    /,
    suite: str = "heldout,reasoning",
    tasks: str = "",
    data_dir: Path | None = None,
    limit: int | None = None,
    out: Path | None = None,
    json: Annotated[bool, _FLAG] = False,
) -> None:
    """Evaluate a run or checkpoint: held-out losses, reasoning by generation, harness tasks on local files.

    Example: xmodel2 eval runs/nano --tasks arc_easy --data-dir data/eval --limit 100

    Args:
        model: run directory or checkpoint
        suite: comma-separated from heldout, reasoning; empty for none
        tasks: comma-separated lm-evaluation-harness tasks that we ship a local form of
        data_dir: folder of benchmark files, one folder a task
        limit: questions a task at most (default: all)
        out: results.json to write, with a transcript of every question
        json: print the results as one JSON object
    """
    from xmodel2.eval.run import evaluate_model
    from xmodel2.files import write_json_atomic

    names = [name for name in suite.split(",") if name]
    with busy("evaluating"):
        results = evaluate_model(model, names, [task for task in tasks.split(",") if task], data_dir, limit)
    if out:
        write_json_atomic(out, results)
    results.pop("transcripts", None)
    print_json(results) if json else print_results(results)


@app.command(name="export")
def export(
    checkpoint: tyro.conf.Positional[Path],
    /,
    *,
    out: Path,
    to: Literal["hf"] = "hf",
    overwrite: Annotated[bool, _FLAG] = False,
) -> None:
    """Write a directory that `transformers` loads natively, and prove that it repeats our logits.

    Example: xmodel2 export runs/nano --to hf --out nano-hf

    Args:
        checkpoint: run directory or checkpoint
        out: directory to write
        to: format; hf is a native GraniteForCausalLM
        overwrite: replace the directory if it exists
    """
    from xmodel2.release.export import export_checkpoint

    with busy("exporting"):
        report = export_checkpoint(checkpoint, out, overwrite)
    print(f"{out}: largest logit difference {report['max_abs_difference']:.2e} against transformers")


@app.command(name="chat")
def chat(
    model: tyro.conf.Positional[Path], /, temperature: float = 0.0, max_new_tokens: int = 128, seed: int = 0
) -> None:
    """Talk to a trained model in the terminal; an empty line or Ctrl-D ends.

    Example: xmodel2 chat runs/nano

    Args:
        model: run directory or checkpoint
        temperature: 0 is greedy
        max_new_tokens: longest answer, in tokens
        seed: of the sampling
    """
    from xmodel2.release.chat import chat as run

    run(model, temperature, max_new_tokens, seed)


@app.command(name="report")
def report(runs: tyro.conf.Positional[tuple[Path, ...]], /, out: Path | None = None) -> None:
    """One self-contained HTML page of a run: curves, mixtures, tables, samples.

    Example: xmodel2 report runs/nano

    Args:
        runs: run directories
        out: page to write (default: report.html in the first run)
    """
    from xmodel2.release.report import build_report

    if not runs:
        raise XmodelError("report: name at least one run directory")
    print(build_report(list(runs), out or runs[0] / "report.html"))


@app.command(name="check")
def check(names: tyro.conf.Positional[tuple[str, ...]] = (), /, json: Annotated[bool, _FLAG] = False) -> int:
    """Run the project's own proofs on the installed package and print a table.

    Example: xmodel2 check schedule params

    Args:
        names: which checks (default: all)
        json: print one JSON object
    """
    from xmodel2.checks import run_checks

    rows = run_checks(names)
    if json:
        print_json({"checks": rows})
    else:
        table = Table("check", "passed", "figure", "bound")
        for row in rows:
            table.add_row(row["name"], "yes" if row["passed"] else "NO", f"{row['figure']:.6g}", str(row["bound"]))
        Console().print(table)
    return 0 if all(row["passed"] for row in rows) else 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; a user's mistake is one message and exit code 1."""
    arguments = normalise(list(sys.argv[1:] if arguments is None else arguments))
    try:
        code = app.cli(prog="xmodel2", args=arguments, description="Train, understand and ship small language models.")
    except BrokenPipeError:  # what read our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (XmodelError, OSError) as error:  # OSError: a full disk, a file that may not be read; it names the file
        Console(stderr=True).print(f"xmodel2: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
