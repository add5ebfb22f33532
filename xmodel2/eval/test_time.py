"""The test-time scaling law (Figure 5): how the loss falls with the token's index in the context, as a + b t^-c.

    text -> ids, documents end to end -> windows of the whole context, prefix token first -> losses.npy -> curve -> law

Documents stand end to end, as is usual for WikiText-2: one by one, only long articles would reach high indices, and the curve
would be of ever other texts. The price is that a window sees the end of other articles before its own, so the curve flattens
where windows are longer than articles (`document_tokens`); the report does not say which it took.

Each window's losses are written as they come: what a kill leaves is not measured again.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from xmodel2 import __version__
from xmodel2.errors import XmodelError
from xmodel2.eval.test_time_curve import Ints, Sums, add_up, sampling_units, window_starts
from xmodel2.eval.test_time_figure import draw
from xmodel2.eval.test_time_fit import SHORTEST, CurveFit, compare_forms, fit_curve, goodness, interval
from xmodel2.eval.test_time_text import Text
from xmodel2.files import alone_in, read_json, write_json_atomic, write_text_atomic
from xmodel2.search.law_fit import LEVEL

LOSSES_FILE, SETTING_FILE, RESULT_FILE, FIGURE_FILE = "losses.npy", "setting.json", "scaling.json", "scaling.svg"
FEWEST_WINDOWS = 20
_WINDOWS = 64
"""By default at least, however short the text is."""
_MOST_TIMES = 64
"""That a token is read; by default 4, or in a text of one window as often as there are windows."""
_GRID = 80
_TWO_SIDED = 1.96  # standard errors of a 95% interval

Show = Callable[[str, int, int], None]


class Scorer(Protocol):
    """What of an `Engine` is needed."""

    @property
    def description(self) -> dict[str, Any]: ...

    @property
    def max_length(self) -> int: ...

    @property
    def prefix_token_id(self) -> int: ...

    def encode(self, text: str) -> list[int]: ...

    def token_losses(self, rows: Sequence[Sequence[int]]) -> Iterator[tuple[int, np.ndarray]]: ...


@dataclass(frozen=True)
class Windows:
    """Windows of a text as a ring of tokens."""

    ids: Ints
    """[N]"""
    document: Ints
    """Number of each token's document [N]."""
    context: int
    """Losses of a window: indices 1 to this."""
    starts: Ints

    def row(self, number: int, prefix: int) -> list[int]:
        """Return a window's ids after the prefix token, which stands for the model's beginning of text."""
        place = (self.starts[number] + np.arange(self.context)) % len(self.ids)
        return [prefix, *self.ids[place].tolist()]


def lay_windows(scorer: Scorer, text: Text, max_context: int | None = None, stride: int | None = None) -> Windows:
    """Return windows of ``max_context`` (None: the model's) whose starts are about ``stride`` tokens apart (None: a quarter).

    Raises `XmodelError` for a context beyond the model's or too short for a law, and a text shorter than a window.
    """
    context = max_context or scorer.max_length
    if context > scorer.max_length:
        raise XmodelError(f"--max-context {context}: is beyond the model's context of {scorer.max_length} tokens")
    if context < SHORTEST:
        raise XmodelError(f"scaling: a context of {context} tokens is too short for a law; it needs {SHORTEST} or more")
    prefix, documents = scorer.prefix_token_id, []
    for document in text.documents:
        ids = scorer.encode(document.strip("\n") + "\n\n")
        documents.append(ids[1:] if ids[:1] == [prefix] else ids)
    numbers = np.repeat(np.arange(len(documents)), [len(ids) for ids in documents])
    stream = np.array([token for ids in documents for token in ids], dtype=np.int64)
    if len(stream) < context:
        raise XmodelError(
            f"{text.name}: its {len(stream):,} tokens are less than one window of {context:,};"
            " give a longer text, or a smaller --max-context"
        )
    windows = round(len(stream) / stride) if stride else max(_WINDOWS, round(4 * len(stream) / context))
    if windows < FEWEST_WINDOWS:
        raise XmodelError(
            f"--stride {stride}: makes {windows} windows of {len(stream):,} tokens; at least {FEWEST_WINDOWS} are needed"
            f" to see an error, so give {len(stream) // FEWEST_WINDOWS} or less"
        )
    if (times := windows * context / len(stream)) > _MOST_TIMES and windows > _WINDOWS:
        raise XmodelError(
            f"--stride {stride}: makes {windows:,} windows of {context:,}, in which each token is read {times:,.0f} times;"
            f" beyond {_MOST_TIMES} there is nothing to learn, so give {-(-context // _MOST_TIMES)} or more"
        )
    return Windows(stream, numbers, context, window_starts(len(stream), windows))


def measure_losses(scorer: Scorer, windows: Windows, out: Path | None, show: Show | None = None) -> NDArray[np.float32]:
    """Return the losses of all windows [W, T], nats; with ``out``, those in its losses.npy are not measured again.

    Raises `XmodelError` if ``out`` holds those of another model, text or windows, and if the model gives no finite loss.
    """
    shape = len(windows.starts), windows.context
    losses = _opened(out, shape, _setting(scorer, windows)) if out else np.full(shape, np.nan, dtype=np.float32)
    # A row that a kill tore has a NaN left in it.
    missing = [number for number in range(shape[0]) if not np.isfinite(losses[number]).all()]
    rows = [windows.row(number, scorer.prefix_token_id) for number in missing]
    done = shape[0] - len(missing)
    if show:
        show("windows", done, shape[0])
    for index, nats in scorer.token_losses(rows):
        if not np.isfinite(nats).all():
            raise XmodelError(
                f"{scorer.description['name']}: gives a loss that is not finite (window {missing[index]}); its weights are"
                " damaged, or overflow in this precision"
            )
        losses[missing[index]] = nats  # in a mapped file: the kernel keeps it, however this process ends
        done += 1
        if show:
            show("windows", done, shape[0])
    if isinstance(losses, np.memmap):
        losses.flush()
    return losses


def _setting(scorer: Scorer, windows: Windows) -> dict[str, Any]:
    """Return all that the losses depend on."""
    model = scorer.description
    return {
        "model": model.get("fingerprint") or model["name"],
        "dtype": model.get("dtype"),
        "prefix": scorer.prefix_token_id,
        "tokens": hashlib.sha256(windows.ids.tobytes()).hexdigest(),
        "context": windows.context,
        "windows": len(windows.starts),
    }


def _opened(out: Path, shape: tuple[int, int], setting: dict[str, Any]) -> NDArray[np.float32]:
    before = read_json(out / SETTING_FILE)
    if before is not None and before != setting:
        changed = ", ".join(key for key in setting if before.get(key) != setting[key])
        raise XmodelError(f"{out}: holds losses of another measurement ({changed} changed); choose another --out")
    path = out / LOSSES_FILE
    if before is None or not path.exists():
        write_json_atomic(out / SETTING_FILE, setting)
        beside = path.with_name(f".{path.name}")  # has its name only when all of it is NaN
        new = np.lib.format.open_memmap(beside, mode="w+", dtype=np.float32, shape=shape)
        new[:] = np.nan
        new.flush()
        beside.replace(path)
    try:
        losses = np.lib.format.open_memmap(path, mode="r+")
    except ValueError as error:
        raise XmodelError(f"{path}: is damaged ({error}); remove it, and its windows are measured again") from None
    if losses.shape != shape or losses.dtype != np.float32:
        raise XmodelError(f"{path}: holds {losses.shape} {losses.dtype} and not {shape} float32; remove it")
    return losses


def scaling_law(
    scorer: Scorer,
    text: Text,
    out: Path | None = None,
    *,
    max_context: int | None = None,
    stride: int | None = None,
    draws: int = 400,
    seed: int = 0,
    show: Show | None = None,
) -> dict[str, Any]:
    """Measure, fit and return what scaling.json holds; with ``out``, write it and the figure. Resumable; raises `XmodelError`."""
    begun = time.monotonic()
    windows = lay_windows(scorer, text, max_context, stride)
    if out is None:
        return _result(scorer, text, windows, measure_losses(scorer, windows, None, show), draws, seed, begun)
    with alone_in(out):
        losses = measure_losses(scorer, windows, out, show)
        result = _result(scorer, text, windows, losses, draws, seed, begun)
        write_json_atomic(out / RESULT_FILE, result)
        write_text_atomic(out / FIGURE_FILE, draw([result]))
    return result


def _result(
    scorer: Scorer,
    text: Text,
    windows: Windows,
    losses: NDArray[np.float32],
    draws: int,
    seed: int,
    begun: float,
) -> dict[str, Any]:
    unit, unit_of_token = sampling_units(windows.document, windows.starts)
    sums = add_up(losses, windows.starts, unit_of_token)
    fit = fit_curve(sums, draws, seed)
    return {
        "model": scorer.description,
        "settings": {
            "text": text.name,
            "documents": len(text.documents),
            "document_tokens": int(np.median(np.bincount(windows.document))),
            "tokens": len(windows.ids),
            "context": windows.context,
            "windows": len(windows.starts),
            "drawn": unit,
            "draws": draws,
            "interval": LEVEL,
            "seed": seed,
        },
        "bins": _bins(sums, fit),
        "fit": _fitted(sums, fit, seed),
        "curve": [round(float(loss), 4) for loss in losses.mean(axis=0, dtype=np.float64)],
        "seconds": round(time.monotonic() - begun, 1),
        "xmodel2": __version__,
    }


def _bins(sums: Sums, fit: CurveFit) -> list[dict[str, Any]]:
    columns = zip(
        sums.edges[:-1], sums.edges[1:] - 1, fit.t, fit.loss, sums.curve(adjusted=False), fit.error, strict=True
    )
    return [
        {
            "first": int(first),
            "last": int(last),
            "t": float(t),
            "loss": float(loss),
            "mean": float(mean),
            "error": float(e),
        }
        for first, last, t, loss, mean, e in columns
    ]


def _fitted(sums: Sums, fit: CurveFit, seed: int) -> dict[str, Any]:
    """Return constants with intervals, the law on a grid to twice the context, and how good it is; without, why not."""
    forms = compare_forms(sums, fit, seed)
    shared = {
        "determined": not fit.complaint,
        "complaint": fit.complaint,
        "falls": dict(zip(("low", "high"), fit.falls, strict=True)),
        "forms": forms,
    }
    if fit.complaint:
        return {**shared, "remarks": [], "constants": None, "goodness": None, "law": None, "ahead": None}
    context = int(sums.edges[-1]) - 1
    low, high = interval(fit.drawn)
    constants = {
        name: {"value": float(fit.constants[n]), "low": float(low[n]), "high": float(high[n])}
        for n, name in enumerate("abc")
    }
    grid = np.union1d(np.geomspace(1, 2 * context, _GRID), [context])
    law = dict(zip(("loss", "low", "high"), (part.tolist() for part in fit.band(grid)), strict=True))
    return {
        **shared,
        "remarks": fit.remarks,
        "constants": constants,
        "goodness": goodness(fit),
        "law": {"t": grid.tolist(), **law},
        "ahead": {"t": 2 * context, **_ahead(fit, 2 * context, forms["a + b t^-c"]["on later indices"])},
    }


def _ahead(fit: CurveFit, t: int, off: float) -> dict[str, float]:
    """Return the loss at ``t``, its interval widened by what the law was ``off`` by when it predicted as far ahead before."""
    loss, low, high = (float(part[0]) for part in fit.band(np.array([float(t)])))
    return {
        "loss": loss,
        "low": loss - float(np.hypot(loss - low, _TWO_SIDED * off)),
        "high": loss + float(np.hypot(high - loss, _TWO_SIDED * off)),
    }
