"""A name becomes a model that can be evaluated.

runs/nano, runs/nano/checkpoints/step-200   ours, as the Granite that `export` would write, in memory
nano-hf                                     a `transformers` directory
Qwen2.5-1.5B                                one of the report's rivals
organisation/name                           a repository of the Hugging Face Hub
anything, with --backend endpoint or vllm   as the server or vLLM names it
oracle, random, scripted, with --backend baseline   what plays the agents' environments without a model
"""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from xmodel2.errors import XmodelError, nearest
from xmodel2.eval.agents.baselines import Baseline
from xmodel2.eval.backend import Backend
from xmodel2.eval.engine import Engine
from xmodel2.eval.model_options import ModelOptions
from xmodel2.eval.rivals import RIVALS, known_rival, load_options
from xmodel2.eval.text import model_files, tokenizer_hash
from xmodel2.files import sha256_file
from xmodel2.model.convert import as_granite, no_progress_bar
from xmodel2.tokenizer import load_tokenizer
from xmodel2.train.checkpoint import MANIFEST_FILE, find_checkpoint, find_tokenizer, load_model, run_of

RUN_SUITES = ("heldout", "questions")
"""What a run of ours is scored on beside the benchmarks: its own held-out documents and questions."""


def is_ours(path: Path) -> bool:
    """Whether a path is a run or checkpoint of ours."""
    return (path / MANIFEST_FILE).exists() or (path / "checkpoints").is_dir()


def default_folder(model: str, kind: str = "evaluation") -> Path:
    """Return where a model's results of a kind go: into the run of a checkpoint of ours, else below a folder of that name."""
    path = Path(model)
    if is_ours(path):
        return run_of(path) / kind / find_checkpoint(path).name
    return Path(kind) / (path.resolve() if path.exists() else path).name


def open_backend(model: str, options: ModelOptions | None = None) -> Backend:
    """Return the model behind a name. Raises `XmodelError` if there is none, or it cannot be loaded as asked."""
    options = options or ModelOptions()
    path = Path(model)
    if options.backend == "endpoint":
        return _endpoint(model, options)
    if options.backend == "baseline":
        return Baseline(model)
    if is_ours(path) and options.backend == "transformers":
        return _own(path, options)
    location, options = _located(model, options)
    return (_vllm if options.backend == "vllm" else _native)(model, location, options)


def _located(model: str, options: ModelOptions) -> tuple[str, ModelOptions]:
    """Return the directory or hub id of a model, and the options with what a rival needs in them.

    Raises `XmodelError` for a name that can be neither.
    """
    path = Path(model)
    if path.is_dir():
        if not (path / "config.json").exists():
            raise XmodelError(f"{path}: neither a run, a checkpoint, nor a model directory (no config.json)")
        return str(path), options
    if rival := known_rival(model):
        found = load_options(rival, options.trust_remote_code)
        return found.model, replace(
            options,
            tokenizer=options.tokenizer or (found.tokenizer if found.tokenizer != found.model else None),
            dtype=options.dtype or cast(Any, found.dtype if found.dtype != "auto" else None),
            revision=options.revision or found.revision,
            trust_remote_code=found.trust_remote_code,
        )
    if re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not path.exists():
        return model, options
    names = [rival.name for rival in RIVALS]
    raise XmodelError(
        f"{model}: no such directory, and neither a hub id (organisation/name) nor one of the report's rivals"
        f" ({', '.join(names)}).{nearest(model, names)}"
    )


def _own(path: Path, options: ModelOptions) -> Engine:
    if options.trust_remote_code or options.revision or options.tokenizer:
        raise XmodelError(f"{path}: --trust-remote-code, --revision and --tokenizer are for other models than our own")
    model, recipe, state = load_model(path)
    folder = find_tokenizer(path)
    native = as_granite(model, recipe.model)
    native.generation_config.eos_token_id = load_tokenizer(folder).stop_ids  # type: ignore[union-attr]
    checkpoint = find_checkpoint(path)
    description = {
        "name": recipe.name,
        "source": f"{path}, step {state['step']} ({state['stage']})",
        "fingerprint": _digest(sha256_file(checkpoint / MANIFEST_FILE), sha256_file(folder / "tokenizer.json")),
    }
    return _engine(native, _load_tokenizer(str(folder), options), description, options)


def _native(model: str, name: str, options: ModelOptions) -> Engine:
    from transformers import AutoModelForCausalLM

    try:
        with no_progress_bar():
            loaded, report = cast(Any, AutoModelForCausalLM).from_pretrained(
                name,
                dtype=options.dtype or "auto",
                revision=options.revision,
                trust_remote_code=options.trust_remote_code,
                use_safetensors=True,  # weights are never unpickled
                output_loading_info=True,
            )
    except Exception as error:  # of transformers, safetensors, or a repository's own code
        raise XmodelError(f"{name}: cannot be loaded: {_first_line(error)}{_remote_hint(error)}") from None
    if missing := sorted(report["missing_keys"]):
        raise XmodelError(f"{name}: {len(missing)} tensors are missing, such as {missing[0]}; fetch or export it again")
    text = _load_tokenizer(options.tokenizer or name, options)
    folder = Path(name)
    if folder.is_dir():
        fingerprint = _digest(*(f"{path.name} {sha256_file(path)}" for path in model_files(folder)))
    else:
        fingerprint = _digest(name, str(getattr(loaded.config, "_commit_hash", options.revision)))
    if options.tokenizer:
        fingerprint = _digest(fingerprint, tokenizer_hash(text))
    rival = known_rival(model)
    description = {"name": rival.name if rival else Path(name).name, "source": name, "fingerprint": fingerprint}
    return _engine(loaded, text, description, options)


def _load_tokenizer(name: str, options: ModelOptions) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            name,
            revision=None if options.tokenizer else options.revision,  # it is the model's
            trust_remote_code=options.trust_remote_code,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise XmodelError(
            f"{name}: its tokenizer cannot be loaded: {_first_line(error)}{_remote_hint(error)}"
        ) from None


def _engine(model: Any, tokenizer: Any, description: dict[str, Any], options: ModelOptions) -> Engine:
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        # A CPU without bfloat16 units is tens of times slower in it, and the harness's numbers are compared in float32.
        kept = getattr(torch, options.dtype) if options.dtype else torch.float32 if device == "cpu" else model.dtype
        model = model.to(device=device, dtype=kept)
    except (RuntimeError, AttributeError, TypeError, ValueError, AssertionError) as error:
        raise XmodelError(f"--device {device}, --dtype {options.dtype}: {_first_line(error)}") from None
    parameters = sum({p.data_ptr(): p.numel() for p in model.parameters()}.values())
    told = {"backend": "transformers", "dtype": str(kept).removeprefix("torch."), "parameters": parameters}
    remote = type(model).__module__.startswith("transformers_modules")
    engine = Engine(
        model,
        tokenizer,
        {**description, **told},
        max_length=options.max_length,
        batch_tokens=options.batch_tokens,
        share_prefixes=not remote,
    )
    engine.description["fingerprint"] = _digest(description["fingerprint"], told["dtype"], str(engine.max_length))
    return engine


def _endpoint(model: str, options: ModelOptions) -> Backend:
    from xmodel2.eval.endpoint import EndpointBackend

    if not options.base_url:
        raise XmodelError("--backend endpoint: give --base-url, such as http://localhost:8000/v1")
    return EndpointBackend(
        options.base_url,
        model,
        api_key_env=options.api_key_env,
        chat=options.chat,
        tokenizer=options.tokenizer,
        max_length=options.max_length,
        concurrency=options.concurrency,
        timeout_s=options.timeout,
    )


def _vllm(model: str, name: str, options: ModelOptions) -> Backend:
    from xmodel2.eval.vllm import VllmBackend

    return VllmBackend(
        name,
        tokenizer=options.tokenizer,
        revision=options.revision,
        dtype=options.dtype or "auto",
        max_length=options.max_length,
        trust_remote_code=options.trust_remote_code,
    )


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]


def _remote_hint(error: BaseException) -> str:
    return (
        "; its code comes with it and runs with your rights: read it, then allow it with --trust-remote-code"
        if "trust_remote_code" in str(error)
        else ""
    )
