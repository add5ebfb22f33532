"""The command that measures the test-time scaling law."""

from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from xmodel2.arguments import Flag, Model
from xmodel2.eval.model_options import DEFAULTS
from xmodel2.output import print_wide

_DRAWS, _SEED = 400, 0


def scaling(
    model: tyro.conf.Positional[str | None] = None,
    /,
    text: Path | None = None,
    data_dir: Path | None = None,
    max_context: int | None = None,
    stride: int | None = None,
    out: Path | None = None,
    from_: Annotated[tuple[Path, ...], tyro.conf.arg(name="from", metavar="DIR"), tyro.conf.UseAppendAction] = (),
    draws: int = _DRAWS,
    seed: int = _SEED,
    options: Model = DEFAULTS,
    json: Flag = False,
) -> None:
    """Loss by token index in the context, and its law a + b t^-c (Figure 5), on WikiText-2 or any other text; resumable.

    Example: xmodel2 scaling runs/nano --data-dir data/eval --out runs/nano/scaling

    Several models in one figure: xmodel2 scaling --from runs/nano/scaling --from runs/micro/scaling --out figures

    Args:
        model: run, checkpoint, directory or hub id of a model
        text: file to measure on: plain text, or .jsonl, .jsonl.gz, .parquet with a document a row in `page` or `text`
        data_dir: folder of benchmark files with wikitext/test.jsonl.gz (default: WikiText-2's test split from the Hub)
        max_context: largest token index (default: the model's context)
        stride: tokens between the beginnings of windows (default: a quarter of a window, and 64 windows or more)
        out: folder for scaling.json, scaling.svg and the losses, which are not measured again (default: RUN/scaling/step-N,
            or scaling/NAME)
        from_: folder of an earlier measurement to draw; may be repeated
        draws: of the bootstrap
        seed: of the bootstrap
        json: print scaling.json, or with --from a list of them
    """
    from xmodel2.errors import XmodelError
    from xmodel2.output import busy, print_json, progress_bars

    if (model is None) == (not from_):
        raise XmodelError("scaling: give a MODEL to measure, or --from DIR (repeated) to draw what was measured")
    measured = {"--text": text, "--data-dir": data_dir, "--max-context": max_context, "--stride": stride}
    measured |= {"--draws": draws if draws != _DRAWS else None, "--seed": seed if seed != _SEED else None}
    ignored = [name for name, value in measured.items() if value is not None] + options.given()
    if from_ and ignored:
        raise XmodelError(f"scaling: {', '.join(ignored)} would not be used: --from DIR draws what was measured")
    if options.backend != "transformers":
        raise XmodelError("scaling: needs the loss of every token, which only --backend transformers gives")
    if draws < 20 or any(given is not None and given < 1 for given in (max_context, stride)):
        raise XmodelError("scaling: --draws must be 20 or more, --max-context and --stride 1 or more")
    if text is not None and data_dir is not None:
        raise XmodelError("scaling: give --text FILE or --data-dir DIR, not both")
    if model is None:
        results = _drawn(from_, out)
    else:
        from xmodel2.eval.open_model import default_folder, open_backend
        from xmodel2.eval.test_time import scaling_law
        from xmodel2.eval.test_time_text import read_text

        read = read_text(text, data_dir)
        out = out or default_folder(model, "scaling")
        with busy("loading"):
            scorer: Any = open_backend(model, options)
        with progress_bars() as show:
            law = scaling_law(
                scorer, read, out, max_context=max_context, stride=stride, draws=draws, seed=seed, show=show
            )
        results = [law]
    if json:
        print_json(results[0] if model else results)
    else:
        _print(results, out)


def _drawn(folders: tuple[Path, ...], out: Path | None) -> list[dict[str, Any]]:
    """Return earlier results, drawn together into ``out``."""
    from xmodel2.errors import XmodelError
    from xmodel2.eval.test_time_figure import draw, read_result
    from xmodel2.files import write_text_atomic

    if out is None:
        raise XmodelError("scaling: --from draws into --out DIR; give one")
    results = [read_result(folder) for folder in folders]
    write_text_atomic(out / "scaling.svg", draw(results))
    return results


def _print(results: list[dict[str, Any]], out: Path | None) -> None:
    """Print the constants of each model, or why there are none."""
    console = Console()
    shown = Table("model", "a", "b", "c", "R²", "loss at the end", "at twice the context", box=None)
    for result in results:
        fit, settings = result["fit"], result["settings"]
        name, end = escape(result["model"]["name"]), f"{result['bins'][-1]['loss']:.3f} ({settings['context']:,})"
        if not fit["determined"]:
            shown.add_row(name, "", "", "", "", end, "")
            continue
        constants = (_with_ends(fit["constants"][key]) for key in "abc")
        shown.add_row(name, *constants, f"{fit['goodness']['r2']:.4f}", end, _with_ends(fit["ahead"], "loss"))
    print_wide(shown)
    for result in results:
        fit, name = result["fit"], result["model"]["name"]
        said = [f"no law is given: {fit['complaint']}"] if fit["complaint"] else fit["remarks"]
        for text in said:
            console.print(f"{name}: {text}", highlight=False, markup=False, soft_wrap=True)
    if len(results) == 1:
        rivals = Table("form", *next(iter(results[0]["fit"]["forms"].values())), box=None, title="off by, nats (rms)")
        for form, errors in results[0]["fit"]["forms"].items():
            rivals.add_row(form, *(f"{error:.4f}" for error in errors.values()))
        console.print(rivals)
    if out:
        console.print(f"{out / 'scaling.svg'}", highlight=False, markup=False, soft_wrap=True)


def _with_ends(value: dict[str, float], key: str = "value") -> str:
    return f"{value[key]:.3f} ({value['low']:.3f} to {value['high']:.3f})"
