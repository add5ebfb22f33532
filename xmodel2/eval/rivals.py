"""The fourteen models the report compares itself with: where they are, how they load, what they need.

    name or hub id --find_rival--> Rival --load_options--> what `AutoModelForCausalLM.from_pretrained` is given

Classes that `transformers` has are used, and nothing of a repository's own code is run. Five rivals have a class of their own
(``code`` says where); they load only when the user allows that code, and `load_options` says what else they need.
Parameters are counted from config.json, tied tables once. Hub ids, classes and sizes were read in public files of the
repository itself or of models derived from it; ``note`` says what was not read, or not tried.
"""

import importlib
from dataclasses import dataclass

from xmodel2.errors import XmodelError, nearest


@dataclass(frozen=True)
class Rival:
    """One model of the report's tables."""

    name: str
    """As the report's Table 2 spells it."""
    hub: str
    parameters: int
    """All of them, embeddings included."""
    model_type: str
    """Of config.json."""
    architecture: str
    """Its class."""
    context: int
    """Tokens the positions were made for."""
    add_bos: bool
    """Whether its tokenizer begins every text with a token of its own; left to the tokenizer unless ``code`` is set."""
    tokenizer: str = ""
    """Repository of the tokenizer, where it is another's."""
    gated: str = ""
    """Repository whose terms must be accepted, with `hf auth login`, before it can be downloaded."""
    tuned: bool = False
    """Tuned on instructions; the others are base models."""
    code: str = ""
    """Where its class comes from; empty if `transformers` has it."""
    modules: tuple[str, ...] = ()
    """What that code imports beyond torch and a present `transformers`; the import also registers a class with it."""
    install: str = ""
    """How to get these modules."""
    dtype: str = "auto"
    """``auto`` is the checkpoint's own."""
    note: str = ""

    @property
    def native(self) -> bool:
        """Whether `transformers` has its class."""
        return not self.code


@dataclass(frozen=True)
class LoadOptions:
    """What a rival's model and tokenizer are loaded with."""

    model: str
    tokenizer: str
    dtype: str
    trust_remote_code: bool
    add_bos: bool | None
    """None leaves it to the tokenizer."""
    revision: str | None = None
    """Commit of the model's repository; None is its newest."""


_HUB_CODE = "code in its repository"
_OLD = (
    "only transformers 4 has, and xmodel2 needs 5; serve the model from an environment of its own (vLLM has the class) "
    "and evaluate that endpoint"
)

RIVALS: tuple[Rival, ...] = (
    Rival(
        name="MobiLlama-1B",
        hub="MBZUAI/MobiLlama-1B",
        parameters=1_261_529_088,
        model_type="llama",
        architecture="MobiLlamaForCausalLM",
        context=2048,
        add_bos=True,
        code=_HUB_CODE,
        modules=("flash_attn",),
        install="pip install flash-attn (needs a CUDA device)",
        dtype="bfloat16",
        note="config.json says model_type llama and 4 key-value heads, but the weights have 32: Llama's class cannot load it",
    ),
    Rival(
        name="TinyLLaMA1.1-1.1B",
        hub="TinyLlama/TinyLlama_v1.1",
        parameters=1_100_048_384,
        model_type="llama",
        architecture="LlamaForCausalLM",
        context=2048,
        add_bos=True,
    ),
    Rival(
        name="OLMo-1B",
        hub="allenai/OLMo-1B-hf",
        parameters=1_176_764_416,
        model_type="olmo",
        architecture="OlmoForCausalLM",
        context=2048,
        add_bos=False,
        note="the February 2024 model; allenai/OLMo-1B holds the same weights for the package hf_olmo",
    ),
    Rival(
        name="OpenELM-1.1B",
        hub="apple/OpenELM-1_1B",
        parameters=1_079_891_456,
        model_type="openelm",
        architecture="OpenELMForCausalLM",
        context=2048,
        add_bos=True,
        tokenizer="meta-llama/Llama-2-7b-hf",
        gated="meta-llama/Llama-2-7b-hf",
        code=_HUB_CODE,
        note="made for transformers 4.39; not tried with 5. That Apple evaluates with the start token was not read again",
    ),
    Rival(
        name="Llama-3.2-1B",
        hub="meta-llama/Llama-3.2-1B",
        parameters=1_235_814_400,
        model_type="llama",
        architecture="LlamaForCausalLM",
        context=131_072,
        add_bos=True,
        gated="meta-llama/Llama-3.2-1B",
    ),
    Rival(
        name="MiniCPM-1.2B",
        hub="openbmb/MiniCPM-1B-sft-bf16",
        parameters=1_360_246_272,
        model_type="minicpm",
        architecture="MiniCPMForCausalLM",
        context=4096,
        add_bos=True,
        tuned=True,
        code=_HUB_CODE,
        modules=("transformers.modeling_attn_mask_utils",),
        install=f"which {_OLD}",
        note="1.2B without embeddings; the only MiniCPM of this size that OpenBMB published is tuned. "
        "That its tokenizer adds the start token was not read",
    ),
    Rival(
        name="Fox-1-1.6B",
        hub="tensoropera/Fox-1-1.6B",
        parameters=1_665_271_808,
        model_type="llama",
        architecture="LlamaForCausalLM",
        context=8192,
        add_bos=True,
        note="its tokenizer is Gemma's by size (256,000 pieces); whether it adds the start token was not read",
    ),
    Rival(
        name="InternLM2.5-1.8B",
        hub="internlm/internlm2_5-1_8b",
        parameters=1_889_110_016,
        model_type="internlm2",
        architecture="InternLM2ForCausalLM",
        context=32_768,
        add_bos=True,
        code=_HUB_CODE,
        modules=("einops", "transformers.modeling_attn_mask_utils"),
        install=f"pip install einops for the first; the second {_OLD}",
        note="its tokenizer is repository code too",
    ),
    Rival(
        name="Qwen2-1.5B",
        hub="Qwen/Qwen2-1.5B",
        parameters=1_543_714_304,
        model_type="qwen2",
        architecture="Qwen2ForCausalLM",
        context=131_072,
        add_bos=False,
    ),
    Rival(
        name="StableLM-2-zephyr-1.6B",
        hub="stabilityai/stablelm-2-zephyr-1_6b",
        parameters=1_644_515_328,
        model_type="stablelm",
        architecture="StableLmForCausalLM",
        context=4096,
        add_bos=False,
        tuned=True,
    ),
    Rival(
        name="SmolLM-1.7B",
        hub="HuggingFaceTB/SmolLM-1.7B",
        parameters=1_711_376_384,
        model_type="llama",
        architecture="LlamaForCausalLM",
        context=2048,
        add_bos=False,
    ),
    Rival(
        name="Qwen2.5-1.5B",
        hub="Qwen/Qwen2.5-1.5B",
        parameters=1_543_714_304,
        model_type="qwen2",
        architecture="Qwen2ForCausalLM",
        context=131_072,
        add_bos=False,
    ),
    Rival(
        name="DCLM-1B",
        hub="TRI-ML/DCLM-1B",
        parameters=1_439_893_504,
        model_type="openlm",
        architecture="OpenLMForCausalLM",
        context=2048,
        add_bos=False,
        code="the package open_lm",
        modules=("open_lm.hf",),
        install="pip install git+https://github.com/mlfoundations/open_lm.git",
        note="the package's wrapper was written for transformers 4.39; not tried with 5",
    ),
    Rival(
        name="Phi-1.5-1.3B",
        hub="microsoft/phi-1_5",
        parameters=1_418_270_720,
        model_type="phi",
        architecture="PhiForCausalLM",
        context=2048,
        add_bos=False,
        note="its config.json also offers repository code, which is not needed",
    ),
)
"""In the order of the report's Table 2, worst average first."""

_SPELLINGS = {"openelm-1-1b": "OpenELM-1.1B", "phi-1.5 1.3b": "Phi-1.5-1.3B"}
"""Table 4's."""


def known_rival(name: str) -> Rival | None:
    """Return the rival of that name or hub id, whatever its case, or None."""
    wanted = _SPELLINGS.get(name.lower(), name).lower()
    return next((rival for rival in RIVALS if wanted in (rival.name.lower(), rival.hub.lower())), None)


def find_rival(name: str) -> Rival:
    """Return the rival of that name or hub id, whatever its case.

    >>> find_rival("qwen/qwen2.5-1.5b").name
    'Qwen2.5-1.5B'

    Raises `XmodelError` with the nearest name if there is none.
    """
    rival = known_rival(name)
    if rival is None:
        names = {key.lower(): key for rival in RIVALS for key in (rival.name, rival.hub)}
        hint = nearest(name.lower(), names)
        for lower, spelt in names.items():
            hint = hint.replace(f"'{lower}'", f"'{spelt}'")
        raise XmodelError(f"{name!r} is not one of the report's rivals ({', '.join(r.name for r in RIVALS)}).{hint}")
    return rival


def load_options(rival: Rival, allow_remote_code: bool) -> LoadOptions:
    """Return what a rival is loaded with; what registers a class of its own with `transformers` is imported.

    Raises `XmodelError` if it needs code from outside `transformers` and ``allow_remote_code`` is false, or if what that
    code imports is not installed.
    """
    tokenizer = rival.tokenizer or rival.hub
    if rival.native:
        return LoadOptions(rival.hub, tokenizer, rival.dtype, trust_remote_code=False, add_bos=None)
    needs = f" It needs {', '.join(rival.modules)}: {rival.install}." if rival.modules else ""
    if not allow_remote_code:
        raise XmodelError(
            f"{rival.name} ({rival.hub}): transformers has no {rival.architecture}; it comes from {rival.code}, which runs "
            f"with your rights on this machine. Read it, then allow it with --trust-remote-code.{needs}"
        )
    for module in rival.modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise XmodelError(f"{rival.name} ({rival.hub}): no {module} ({error}).{needs}") from None
    return LoadOptions(rival.hub, tokenizer, rival.dtype, trust_remote_code=True, add_bos=rival.add_bos)
