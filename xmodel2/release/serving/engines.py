"""The engines that serve: each a child process on loopback behind a random key, or a server that already runs.

| engine | takes | batches | chosen |
|---|---|---|---|
| vLLM (``vllm serve``) | a native directory | continuously | where there is CUDA and the package |
| llama.cpp's own server | runs, checkpoints, native directories of ours, .gguf | continuously | otherwise |
| ``transformers serve`` | any native directory | on CUDA | no llama.cpp's binding, a foreign model, or its tokenizer BPE |
"""

import importlib.util
import json
import multiprocessing
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from xmodel2.cores import usable_cores
from xmodel2.errors import XmodelError
from xmodel2.files import read_json
from xmodel2.release.exporting.gguf_vocabulary import is_held
from xmodel2.release.served_slots import default_slots, token_bytes
from xmodel2.release.serving.child import DIRECT, Child, Elsewhere, Running
from xmodel2.release.serving.limits import read_keys
from xmodel2.release.serving.options import ServeOptions
from xmodel2.release.serving.ways import LlamaTextWay, LlamaWay, OpenAIWay, Prompts, TransformersWay, Way
from xmodel2.tokenizer import load_tokenizer

T = TypeVar("T")
_WITH_USAGE = {"stream_options": {"include_usage": True}}


@dataclass(frozen=True)
class Engine:
    """What the gateway needs to know of an engine."""

    kind: str
    model: str
    """The name clients ask for."""
    way: Way
    start: Callable[[], Running]
    """Start it and wait until it answers; raises `XmodelError` with its last words."""
    at_once: int
    """Sequences it works on together."""
    context: int | None
    hidden: str = ""
    """Path that no client may see."""


def choose(model: Path, options: ServeOptions) -> Engine:
    """Return the engine for a model. Raises `XmodelError` if there is none that can serve it."""
    if options.engine.startswith(("http://", "https://")):
        return _elsewhere(model, options)
    kind = options.engine
    if kind == "auto":
        kind = _best(model)
    if kind not in _ENGINES:
        raise XmodelError(f"--engine {kind}: must be auto, {', '.join(_ENGINES)} or the URL of a server")
    return _ENGINES[kind](model, options)


def _best(model: Path) -> str:
    native = (model / "config.json").exists()
    if native and _installed("vllm") and _apart(_has_cuda):
        return "vllm"
    if _installed("xllamacpp") and (not native or (_is_ours(model) and is_held(load_tokenizer(model)))):
        return "llama"
    return "transformers"


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _is_ours(model: Path) -> bool:
    try:
        load_tokenizer(model)
    except XmodelError:
        return False
    return bool((read_json(model / "config.json") or {}).get("model_type") == "granite")


def _llama(model: Path, options: ServeOptions) -> Engine:
    if not _installed("xllamacpp"):
        raise XmodelError("--engine llama: llama.cpp's binding is not installed; pip install 'xmodel2[serve]'")
    from xmodel2.release.llama_server import LlamaServer

    name, gguf, tokenizer_dir, trained, bytes_a_token = _apart(_served, model, options.kind)
    context = _context(options, trained)
    slots = options.slots or default_slots(bytes_a_token * context)
    # Its threads wait for one another spinning: one that shares its core with the gateway stops them all.
    threads = options.threads or max(1, usable_cores() - 1)
    way: Way = LlamaTextWay(name, None, {**_WITH_USAGE, "repeat_last_n": context})
    if tokenizer_dir is not None:
        way = LlamaWay(_prompts(tokenizer_dir, context))

    def start() -> Running:
        return LlamaServer(gguf, context=context, slots=slots, threads=threads)

    return Engine("llama", options.name or name, way, start, slots, context, str(gguf))


def _apart(work: Callable[..., T], *arguments: object) -> T:
    """Do what needs PyTorch in a process of its own: it would stay in the gateway's memory."""
    if "torch" in sys.modules:
        return work(*arguments)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as once:
        try:
            return once.submit(work, *arguments).result()
        except BrokenProcessPool:
            raise XmodelError("a process that prepares the model was killed; is memory short?") from None
        except BaseException:  # a signal to this process alone: leaving the block would wait for the work
            for process in list((once._processes or {}).values()):
                process.terminate()
            raise


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _served(model: Path, kind: str) -> tuple[str, Path, Path | None, int, int]:
    from xmodel2.release.exporting.gguf_read import read_metadata
    from xmodel2.release.served import is_servable, served_model

    if not is_servable(model):
        raise XmodelError(
            f"{model}: llama.cpp's files hold Unigram tokenizers with byte fallback, and its own is none; serve it with"
            f" transformers: `xmodel2 export {model} --to hf --out DIR`, then `xmodel2 serve DIR --engine transformers`"
        )
    served = served_model(model, kind)
    return served.name, served.gguf, served.tokenizer_dir, served.context, token_bytes(read_metadata(served.gguf))


def _vllm(model: Path, options: ServeOptions) -> Engine:
    if not _installed("vllm"):
        raise XmodelError("--engine vllm: vLLM is not installed; pip install vllm")
    context = _native_context("vllm", model, options)
    slots, name = options.slots or 64, options.name or model.resolve().name
    prompts = _prompts(model, context) if _is_ours(model) else None

    def command(port: int) -> list[str]:
        arguments = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", name]
        # What a client leaves out is OpenAI's default, not what the model's generation_config.json says.
        settings = ["--max-model-len", str(context), "--max-num-seqs", str(slots), "--generation-config", "vllm"]
        return [*_program("vllm"), "serve", str(model.resolve()), *arguments, *settings]

    def start() -> Running:
        key = secrets.token_urlsafe(24)
        return Child(command, "/health", {"VLLM_API_KEY": key}, key)

    return Engine("vllm", name, OpenAIWay(name, prompts, _WITH_USAGE), start, slots, context, str(model.resolve()))


def _transformers(model: Path, options: ServeOptions) -> Engine:
    context = _native_context("transformers", model, options)
    if not (_installed("fastapi") and _installed("uvicorn") and _installed("openai")):
        raise XmodelError("--engine transformers: `transformers serve` needs pip install 'transformers[serving]'")
    path, batched = str(model.resolve()), _apart(_has_cuda)

    def command(port: int) -> list[str]:
        batching = ["--continuous-batching"] if batched else []
        return [*_program("transformers"), "serve", path, "--host", "127.0.0.1", "--port", str(port), *batching]

    def start() -> Running:
        threads = {"OMP_NUM_THREADS": str(options.threads)} if options.threads else {}
        return Child(command, "/health", {"HF_HUB_OFFLINE": "1", **threads}, "")

    slots = options.slots or (64 if batched else 1)
    counted = _prompts(model, context) if _is_ours(model) else None
    way = TransformersWay(path, read_json(model / "generation_config.json") or {}, counted)
    return Engine("transformers", options.name or model.resolve().name, way, start, slots, context, path)


def _elsewhere(model: Path, options: ServeOptions) -> Engine:
    key = read_keys(options.engine_key_file, "--engine-key-file")[0] if options.engine_key_file else ""
    url = options.engine.rstrip("/").removesuffix("/v1")
    running = Elsewhere(url, key)
    request = urllib.request.Request(url + "/v1/models", headers={"Authorization": f"Bearer {key}"})
    try:
        with DIRECT.open(request, timeout=10) as answer:
            names = [str(found["id"]) for found in json.load(answer)["data"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise XmodelError(
            f"--engine {options.engine}: {url}/v1/models does not answer as it should ({error})"
        ) from None
    asked = str(model)
    if asked not in names:
        raise XmodelError(f"{asked}: the server has the models {', '.join(names[:10])}; give one of them")
    return Engine(
        "other", options.name or asked, OpenAIWay(asked, None, _WITH_USAGE), lambda: running, options.slots or 64, None
    )


def _native_context(engine: str, model: Path, options: ServeOptions) -> int:
    config = read_json(model / "config.json")
    if not config:
        hint = f"`xmodel2 export {model} --to hf --out DIR` writes one"
        raise XmodelError(f"{model}: --engine {engine} takes a native directory with a config.json; {hint}")
    return _context(options, int(config.get("max_position_embeddings", 2048)))


def _context(options: ServeOptions, trained: int) -> int:
    if options.context > trained:
        raise XmodelError(f"--context {options.context}: the model was trained on {trained} tokens")
    return options.context or trained


def _prompts(tokenizer_dir: Path, context: int) -> Prompts:
    tokenizer = load_tokenizer(tokenizer_dir)
    tokenizer.encode("")  # makes what encodes, for which the first client would wait
    return Prompts(tokenizer, context)


def _program(name: str) -> list[str]:
    beside = Path(sys.executable).with_name(name)
    return [str(beside)] if beside.exists() else [name]


_ENGINES = {"vllm": _vllm, "llama": _llama, "transformers": _transformers}
