"""The four agent benchmarks by name, each with the world that is at hand."""

from dataclasses import replace
from pathlib import Path

from xmodel2.errors import XmodelError
from xmodel2.eval.agents.environment import Benchmark
from xmodel2.eval.agents.options import AgentOptions

AGENTS_FOLDER = "agents"
"""Below the folder of benchmark files; `xmodel2 eval fetch` makes it."""


def open_benchmark(name: str, options: AgentOptions) -> Benchmark:
    """Return a benchmark. Raises `XmodelError` if data that was asked for, or a package, is missing, saying how to get it."""
    try:
        return _opened(name, options)
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("xmodel2"):
            raise
        raise XmodelError(f"{name}: {error.name} is not installed; pip install 'xmodel2[eval]'") from None


def _opened(name: str, options: AgentOptions) -> Benchmark:
    # Each in its own time: ALFWorld's engine takes seconds to import.
    if name in ("hotpotqa", "fever"):
        from xmodel2.eval.agents.fever import fever_benchmark
        from xmodel2.eval.agents.hotpotqa import hotpotqa_benchmark

        return (hotpotqa_benchmark if name == "hotpotqa" else fever_benchmark)(options)
    if name == "alfworld":
        from xmodel2.eval.agents.alfworld import alfworld_benchmark

        return alfworld_benchmark(options)
    if name == "webshop":
        from xmodel2.eval.agents.webshop import webshop_benchmark

        return webshop_benchmark(options)
    raise XmodelError(f"{name}: no agent benchmark")


def with_folder(options: AgentOptions, data_dir: Path | None) -> AgentOptions:
    """Return the options with the agents' folder below the folder of benchmark files, where it is there and none is given.

    Raises `XmodelError` for a folder that is given and not there.
    """
    for name, folder in (
        ("data-dir", data_dir),
        ("agents-dir", options.agents_dir),
        ("games", options.games),
        ("catalogue", options.catalogue),
    ):
        if folder is not None and not folder.is_dir():
            raise XmodelError(f"--{name} {folder}: no such folder; `xmodel2 eval fetch --suite agents` makes one")
    found = data_dir / AGENTS_FOLDER if data_dir else None
    if options.agents_dir is None and found is not None and found.is_dir():
        return replace(options, agents_dir=found)
    return options
