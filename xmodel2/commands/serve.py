"""Serve a trained model over HTTP."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from xmodel2.arguments import Flag
from xmodel2.errors import XmodelError
from xmodel2.release.serving.options import ServeOptions

if TYPE_CHECKING:
    from xmodel2.release.serving.engines import Engine

Options = Annotated[ServeOptions, tyro.conf.arg(name="server"), tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff]


def serve(model: tyro.conf.Positional[Path], /, options: Options = ServeOptions(), json: Flag = False) -> None:  # noqa: B008
    """Serve a model as OpenAI's API does (chat and completions, streamed or not), with a chat page at /.

    Example: xmodel2 serve runs/nano --port 8000

    An engine generates (vLLM on a GPU, llama.cpp on a CPU, else `transformers serve`) in a process of its own; a gateway
    stands before it with keys, limits, checks and metrics. SIGTERM or Ctrl-C lets answers finish; a second one does not.

    Args:
        model: run directory, checkpoint, native directory or .gguf file; with --engine URL, the model's name there
        options: engine, address and limits
        json: print one JSON object once it answers
    """
    try:
        from xmodel2.release.serving.service import serve as run
    except ModuleNotFoundError as error:
        raise XmodelError(
            f"xmodel2 serve needs what is not installed ({error}): pip install 'xmodel2[serve]'"
        ) from None
    from xmodel2.output import print_json

    def announce(url: str, engine: "Engine") -> None:
        if json:
            print_json({"url": url, "model": engine.model, "engine": engine.kind, "slots": engine.at_once})
        else:
            print(f"{engine.model} ({engine.kind}): chat at {url}, API at {url}/v1; Ctrl-C stops")
            key = " -H 'Authorization: Bearer KEY'" if options.api_key or options.api_key_file else ""
            body = '{"messages": [{"role": "user", "content": "Hello"}]}'
            print(f"curl {url}/v1/chat/completions -H 'Content-Type: application/json'{key} -d '{body}'", flush=True)

    run(model, options, announce)
