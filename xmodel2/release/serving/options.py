"""What `xmodel2 serve` is told. Nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from xmodel2.release.served_kind import SERVED_KIND

Texts = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


@dataclass(frozen=True)
class ServeOptions:
    """Engine, address, and limits."""

    engine: str = "auto"
    """auto, llama, vllm, transformers, or the URL of a server that runs and speaks OpenAI's protocol"""
    kind: str = SERVED_KIND
    """weights that llama.cpp computes with: q8_0, f16, q4_k_m, ... (`xmodel2 export --help` lists them)"""
    slots: int = 0
    """sequences worked on together, each with memory for a whole context (0: with vLLM 64; with llama.cpp 16, or as many as a
    quarter of the free memory holds)"""
    context: int = 0
    """tokens of prompt and answer together (0: what the model was trained on)"""
    threads: int = 0
    """CPU threads of the engine (0: one a core; llama.cpp: one less, for the gateway)"""
    name: str = ""
    """name that clients ask for (default: the model's own)"""
    engine_key_file: Path | None = None
    """file with the API key of the server that --engine names"""
    host: str = "127.0.0.1"
    """address to listen on; any other than loopback needs an API key"""
    port: int = 8000
    """port to listen on (0: a free one)"""
    api_key: Texts = ()
    """key that clients must send; other users of this machine can see it in the list of processes (may be repeated)"""
    api_key_file: Path | None = None
    """file of keys, one a line: the way to keep them to yourself"""
    allow_no_key: bool = False
    """listen beyond loopback without a key: everybody who reaches the port may ask"""
    allow_host: Texts = ()
    """name by which a proxy asks a server on loopback (Host header; may be repeated)"""
    allow_origin: Texts = ()
    """web origin whose pages may ask (https://example.com; * for all; may be repeated); the server's own page always may"""
    max_body: int = 1_000_000
    """bytes of a request's body at most"""
    requests_per_minute: float = 0
    """requests, or answers of those that ask for several, of one key (without keys: of one address) a minute, in bursts of as
    many (0: no limit)"""
    max_concurrent: int = 0
    """answers that the engine makes at once (0: as many as it has slots)"""
    max_queue: int = 256
    """requests that may wait for a place; more are refused with status 429"""
    timeout: float = 600
    """seconds a request may take, waiting included"""
    drain: float = 30
    """seconds that answers may still take once the server is told to stop"""
    quiet: bool = False
    """no line a request on standard error (prompts are never logged)"""
