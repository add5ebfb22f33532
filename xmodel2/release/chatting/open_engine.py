"""From what a user names to the engine that answers."""

import importlib.util
from pathlib import Path
from typing import Literal

from xmodel2.errors import XmodelError
from xmodel2.release.chatting.streams import Engine
from xmodel2.release.served_kind import SERVED_KIND
from xmodel2.tokenizer import Tokenizer, load_tokenizer

EngineName = Literal["auto", "llama", "torch"]


def is_address(model: str) -> bool:
    """Tell an address from a path."""
    return model.lower().startswith(("http://", "https://"))


def open_engine(
    model: str,
    engine: EngineName = "auto",
    *,
    kind: str = SERVED_KIND,
    threads: int = 0,
    api_key_file: Path | None = None,
    name: str = "",
) -> Engine:
    """Return an engine on a run, checkpoint, native directory, .gguf file or address; ``threads`` 0: one a core.

    Raises `XmodelError` for what it cannot open, and for options that do not go together.
    """
    if threads < 0:
        raise XmodelError(f"--threads {threads}: must be 0 (one a core) or more")
    if is_address(model):
        if engine != "auto":
            raise XmodelError(f"--engine {engine}: an address has its own engine; leave the option out")
        from xmodel2.release.chatting.address import Address
        from xmodel2.release.chatting.message_streams import address_engine

        return address_engine(Address(model, api_key_file), name)
    if api_key_file or name:
        raise XmodelError(f"{model}: --api-key-file and --name are for addresses, such as http://127.0.0.1:8000")
    from xmodel2.release.chatting.token_streams import llama_engine, own_engine
    from xmodel2.release.served import is_servable, served_model

    path = Path(model)
    if not path.exists():
        raise XmodelError(f"{model}: does not exist; give a run, checkpoint, model directory, .gguf file or an address")
    file = path.is_file()
    there = importlib.util.find_spec("xllamacpp") is not None and importlib.util.find_spec("gguf") is not None
    if engine == "auto" and not file and not (there and is_servable(path)):
        engine = "torch"
    if engine == "torch":
        if file:
            raise XmodelError(f"{model}: --engine torch runs runs, checkpoints and directories; a file is llama.cpp's")
        if kind != SERVED_KIND:
            raise XmodelError(
                f"{model}: --kind {kind}: is llama.cpp's, and this model is answered by PyTorch; leave it out"
            )
        return own_engine(path, threads)
    if not there:
        raise XmodelError("llama.cpp's binding is not installed; pip install 'xmodel2[serve]'")
    from xmodel2.release.chatting.message_streams import file_engine
    from xmodel2.release.llama_server import LlamaServer

    served = served_model(path, kind)
    what = f"llama.cpp, {served.gguf.name if file else kind}"
    server = LlamaServer(served.gguf, context=served.context, threads=threads)
    try:
        if tokenizer := _own_tokenizer(served.tokenizer_dir):
            return llama_engine(server, served.name, what, tokenizer)
        return file_engine(server, served.name, what)
    except BaseException:
        server.close()
        raise


def _own_tokenizer(directory: Path | None) -> Tokenizer | None:
    """Return a tokenizer of ours, None for any other, of which llama.cpp has its own copy."""
    try:
        return load_tokenizer(directory) if directory else None
    except XmodelError:
        return None
