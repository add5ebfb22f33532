"""How a model is loaded and run: options of every command that evaluates one. Nothing heavy is imported here."""

from dataclasses import dataclass, fields
from typing import Literal

BackendName = Literal["transformers", "vllm", "endpoint", "baseline"]


@dataclass(frozen=True)
class ModelOptions:
    """How the model is loaded and run."""

    backend: BackendName = "transformers"
    """transformers runs here; endpoint is an OpenAI-compatible server; baseline plays the agents without a model"""
    device: str | None = None
    """cpu, cuda, cuda:1 (default: the GPU if there is one)"""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """default: as stored on a GPU, float32 on a CPU"""
    max_length: int | None = None
    """tokens of context (default: what the model was made for)"""
    batch_tokens: int = 0
    """tokens of a forward pass; lower it where memory runs out (default: by the device)"""
    tokenizer: str | None = None
    """directory or hub id of another tokenizer than the model's"""
    revision: str | None = None
    """commit of a hub repository"""
    trust_remote_code: bool = False
    """run the Python code that comes with a model, with your rights"""
    base_url: str | None = None
    """of the endpoint, ending in /v1"""
    api_key_env: str | None = None
    """environment variable with the endpoint's key"""
    chat: bool = False
    """use the endpoint's chat completions; they give no log-probabilities"""
    concurrency: int = 8
    """requests that the endpoint gets at a time"""
    timeout: float = 300.0
    """seconds that the endpoint has for an answer"""

    def given(self) -> list[str]:
        """Return the options that are not their defaults, as they are written.

        >>> ModelOptions(device="cpu", max_length=64).given()
        ['--device', '--max-length']
        """
        changed = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        return [f"--{name.replace('_', '-')}" for name in changed]


DEFAULTS = ModelOptions()
