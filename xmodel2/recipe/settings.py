"""Typed settings of a whole run: what a recipe file may say, with units, bounds and the report's values as defaults.

A recipe is a tree: `model`, `data`, `stages` (stable, decay), `train`, `parallel`, `guard`, `evaluation` and `search`. Every key
is checked by type and range (pydantic); nothing is read from the environment. Symbols of the report keep their names.
"""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from xmodel2.recipe.bounds import CONFIG, BelowOne, NotNegative, NotNegativeFloat, Positive, PositiveFloat, Share
from xmodel2.recipe.evaluation import EvaluationSettings
from xmodel2.recipe.search import SearchSettings


@dataclass(frozen=True, config=CONFIG, kw_only=True)
class ModelSettings:
    """The decoder and its tensor-program constants (Tables 1, 5 and 6)."""

    preset: str | None = None
    """Family member that fills the sizes below; a key given beside it wins."""
    hidden_size: Positive = 1536
    """Width of the residual stream (d_model)."""
    intermediate_size: Positive = 3840
    """Width of the SwiGLU feed-forward."""
    num_hidden_layers: Positive = 48
    """Number of decoder blocks."""
    num_attention_heads: Positive = 24
    """Query heads; hidden_size is a multiple of it."""
    num_key_value_heads: Positive = 8
    """Key/value heads (grouped-query attention); num_attention_heads is a multiple of it."""
    vocab_size: Positive = 65280
    """Pieces in the tokenizer, and rows of the embedding and of the head."""
    tie_word_embeddings: bool = True
    """Embedding and head are one tensor; `false` gives the head its own, of the same size."""
    max_position_embeddings: Positive = 4096
    """Longest context, in tokens."""
    rms_norm_eps: PositiveFloat = 1e-5
    """Added to the mean square in RMSNorm."""
    rope_theta: PositiveFloat = 10000.0
    """Base of the rotary frequencies."""
    attention_scale: Literal["1/sqrt(head_dim)", "1/head_dim"] = "1/sqrt(head_dim)"
    """Factor on query-key products; Table 6 has no attention rule, so the usual one is the default."""
    scale_emb: PositiveFloat = 12.0
    """Factor on the embedding's output (Table 6)."""
    dim_model_base: Positive = 256
    """Width at which the base hyperparameters hold; m = hidden_size / dim_model_base."""
    scale_depth: PositiveFloat = 1.4
    """Each block's output is multiplied by scale_depth / sqrt(num_hidden_layers) (Table 6)."""
    init_std: PositiveFloat = 0.1
    """Standard deviation of two-dimensional tensors at width dim_model_base."""
    parametrization: Literal["tensor_program", "standard"] = "tensor_program"
    """`standard` switches every rule of Table 6 off, for comparison."""
    rules_off: list[Literal["embedding", "residual", "initialisation", "learning_rate", "head"]] = field(
        default_factory=list
    )
    """Rules of Table 6 that are switched off one by one, to see what each is for (`xmodel2 transfer --sweeps coordinate`)."""

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def width_multiplier(self) -> float:
        """m = hidden_size / dim_model_base (Table 6)."""
        return self.hidden_size / self.dim_model_base

    @model_validator(mode="after")
    def _check(self) -> "ModelSettings":
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(
                f"head_dim {self.head_dim} (hidden_size / num_attention_heads) must be even for rotary positions"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} must be a multiple of"
                f" num_key_value_heads {self.num_key_value_heads}"
            )
        return self


@dataclass(frozen=True, config=CONFIG, kw_only=True)
class SourceSettings:
    """Where one source of the mixture comes from."""

    dataset: str | None = None
    """Hugging Face data set id."""
    subset: str | None = None
    """Configuration name inside the data set."""
    kind: Literal["text", "sft"] = "text"
    """`text` for pretraining documents, `sft` for instruction data."""
    language: str = "en"
    """ISO 639-1 code, or `code`."""
    licence: str = ""
    """SPDX name where known."""


@dataclass(frozen=True, config=CONFIG, kw_only=True)
class DataSettings:
    """Token shards and how rows are cut from them."""

    dir: str = "data"
    """Directory made by `xmodel2 data prepare`, relative to where the command runs, or its URL in an object store."""
    cache_dir: str = ""
    """Where the files of an object store are copied to when they are first read; must be given for one."""
    sequence_length: Positive = 4096
    """Tokens a row."""
    packing: Literal["auto", "concatenate", "best_fit"] = "auto"
    """Documents one after another, cut at the row's end, or whole by best fit with padding; auto: best fit for kind sft."""
    mask_documents: bool = True
    """Attention stops at document boundaries inside a packed row."""
    loss_on: Literal["assistant", "all"] = "assistant"
    """For instruction data: loss on the assistant's tokens only, or on all."""
    verify_checksums: bool = True
    """Read (and so copy) and check every shard before training; turn off for data too large to read twice."""
    sources: dict[str, SourceSettings] = field(default_factory=dict)
    """Origin of each source, for the model card: a table of `dataset`, `subset`, `kind`, `language` and `licence` by its name."""


@dataclass(frozen=True, config=CONFIG, kw_only=True)
class StableSettings:
    """Pretraining at the peak rate."""

    tokens: Positive = 1_500_000_000_000
    """Length of the stage in tokens, warm-up included."""
    mixture: dict[str, Share] = field(default_factory=dict)
    """Share of tokens by source; sums to 1."""


@dataclass(frozen=True, config=CONFIG, kw_only=True)
class DecaySettings:
    """Annealing on pretraining kinds mixed with instruction data."""

    tokens: NotNegative = 20_000_000_000
    """Length of the stage in tokens; 0 leaves it out."""
    sft_share: Share = 0.64
    """Share of tokens from `sft_mixture`; the rest follows the stable mixture. Best 0.60-0.69 (report, SFT ratio search)."""
    sft_mixture: dict[str, Share] = field(default_factory=dict)
    """Share of the instruction tokens by source; sums to 1."""


@dataclass(frozen=True, config=CONFIG, kw_only=True)
class StagesSettings:
    """The two stages of Warmup-Stable-Decay."""

    stable: StableSettings = field(default_factory=StableSettings)
    decay: DecaySettings = field(default_factory=DecaySettings)


@dataclass(frozen=True, config=CONFIG, kw_only=True)
class TrainSettings:
    """Optimizer, schedule, and what is written when."""

    learning_rate: PositiveFloat = 0.01
    """Peak rate at width dim_model_base."""
    warmup_steps: NotNegative = 2000
    """Steps of linear warm-up."""
    schedule: Literal["wsd", "cosine"] = "wsd"
    """Warmup-Stable-Decay, or one cosine over both stages after the warm-up, for comparison."""
    decay_shape: Literal["exponential", "linear", "cosine", "1-sqrt"] = "exponential"
    """How the rate falls in the decay stage; all but `exponential` reach final_learning_rate_share at its end."""
    decay_half_life_steps: Positive = 5000
    """T in f(t) = 0.5 ** (t / T): steps in which the rate halves during an exponential decay."""
    final_learning_rate_share: Share = 0.0
    """Share of the peak rate that is left at the end of a linear, cosine or 1-sqrt decay, and of the cosine schedule."""
    batch_tokens: Positive = 3_932_160
    """Tokens an optimizer step, over all ranks and accumulation; a multiple of sequence_length."""
    micro_batch_size: Positive = 4
    """Rows a forward pass."""
    adam_beta1: BelowOne = 0.9
    """AdamW first-moment decay."""
    adam_beta2: BelowOne = 0.95
    """AdamW second-moment decay."""
    adam_eps: PositiveFloat = 1e-8
    """AdamW denominator term."""
    weight_decay: NotNegativeFloat = 0.1
    """On matrix-like tensors only."""
    weight_decay_scaling: Literal["coupled", "constant"] = "coupled"
    """`coupled`: decay per step is rate x weight_decay, so it shrinks as 1/m; `constant`: multiplied by m, so it does not."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` orthogonalises the updates of matrix-like tensors (as the authors' next model does); the others stay with AdamW."""
    muon_learning_rate: PositiveFloat = 0.02
    """Peak rate of the matrix-like tensors under `muon`, at every width."""
    muon_momentum: BelowOne = 0.95
    """Momentum of `muon`."""
    max_grad_norm: PositiveFloat = 1.0
    """Global gradient norm is clipped to this."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the matrix products (weights stay fp32); auto measures which is faster and writes it down."""
    float8: bool = False
    """Matrix products of the blocks in float8 (needs torchao and a Hopper GPU or later)."""
    deterministic: bool = True
    """Only algorithms that give the same bits each time, which an exact resume needs; docs/training.md states the price."""
    compile: bool = True
    """Use torch.compile."""
    compile_mode: Literal["default", "max-autotune-no-cudagraphs", "reduce-overhead"] = "default"
    """Mode of torch.compile; `reduce-overhead` uses CUDA graphs, for models so small that launching kernels is what takes time."""
    attention: Literal["auto", "plain", "documents", "sdpa", "flex"] = "auto"
    """How attention is computed (docs/training.md); auto: by device and document mask."""
    loss_chunk_tokens: NotNegative = 0
    """Positions whose logits are held at once; 0: chosen by the device."""
    activation_memory_budget: Share = 1.0
    """Share of a block's activations that is kept for the backward pass; the rest, cheapest first, is computed again."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    checkpoint_every: Positive = 1000
    """Steps between checkpoints; one is also written at the end of each stage."""
    keep_checkpoints: Positive = 3
    """Latest checkpoints kept; the end of the stable stage is always kept."""
    keep_checkpoint_every: NotNegative = 0
    """Steps between checkpoints that are kept for good, for decays to branch from; a multiple of checkpoint_every, 0 for none."""
    async_checkpoint: bool = True
    """Write checkpoints while training goes on."""
    heldout_every: NotNegative = 1000
    """Steps between held-out losses; 0 means only at the end of each stage."""
    heldout_rows: Positive = 64
    """Rows a source in a periodic held-out loss."""
    norms_every: NotNegative = 100
    """Steps between lines with weight, gradient and update norms of each layer class; 0 for none."""
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = field(default_factory=lambda: ["tensorboard"])
    """Where metrics go beside metrics.jsonl."""


@dataclass(frozen=True, config=CONFIG, kw_only=True)
class ParallelSettings:
    """How a run is laid out over the processes of `torchrun`; their number is the product of the four."""

    data_parallel_replicate: Positive = 1
    """Groups of ranks that hold the same shards of the weights (hybrid sharding)."""
    data_parallel_shard: NotNegative = 0
    """Ranks over which weights, gradients and moments are sharded (FSDP2); 0: all that the others leave."""
    tensor_parallel: Positive = 1
    """Ranks over which heads, feed-forward and vocabulary are cut; divides num_key_value_heads."""
    context_parallel: Positive = 1
    """Ranks over which the positions of a row are cut."""


@dataclass(frozen=True, config=CONFIG, kw_only=True)
class GuardSettings:
    """What is done about a loss or gradient that is not finite or spikes, and about a rank that hangs."""

    window: NotNegative = 128
    """Latest good steps whose loss and gradient norm a step is compared with; 0 lets spikes pass, never what is not finite."""
    max_z_score: PositiveFloat = 10.0
    """Standard deviations above the window's mean at which a step counts as a spike and is skipped."""
    rollback_after: Positive = 3
    """Skipped steps in a row after which the run goes back to the last checkpoint, and passes over their batches."""
    hang_seconds: Annotated[int, Field(ge=0, le=10**8)] = 1800
    """Seconds without a step after which the run is stopped, naming the rank that hangs; 0 waits for ever."""


@dataclass(frozen=True, config=CONFIG, kw_only=True)
class Recipe:
    """Everything needed to repeat a run."""

    name: str = "xmodel2"
    """Name of the run; also the default run directory `runs/NAME`."""
    seed: NotNegative = 1
    """Every random choice derives from it."""
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    stages: StagesSettings = field(default_factory=StagesSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    parallel: ParallelSettings = field(default_factory=ParallelSettings)
    guard: GuardSettings = field(default_factory=GuardSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    search: SearchSettings = field(default_factory=SearchSettings)

    @property
    def batch_rows(self) -> int:
        """Rows an optimizer step."""
        return self.train.batch_tokens // self.data.sequence_length

    @property
    def stable_steps(self) -> int:
        """Steps of the stable stage, warm-up included."""
        return -(-self.stages.stable.tokens // self.train.batch_tokens)

    @property
    def decay_steps(self) -> int:
        """Steps of the decay stage."""
        return -(-self.stages.decay.tokens // self.train.batch_tokens)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.stable_steps + self.decay_steps

    @property
    def decay_mixture(self) -> dict[str, float]:
        """Share of tokens by source in the decay stage: stable kinds and instruction data together."""
        share = self.stages.decay.sft_share
        mixture = {name: weight * (1 - share) for name, weight in self.stages.stable.mixture.items()}
        for name, weight in self.stages.decay.sft_mixture.items():
            mixture[name] = mixture.get(name, 0.0) + weight * share
        return {name: weight for name, weight in mixture.items() if weight > 0}

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if self.train.batch_tokens % self.data.sequence_length:
            raise ValueError(
                f"train.batch_tokens {self.train.batch_tokens} must be a multiple of"
                f" data.sequence_length {self.data.sequence_length}"
            )
        if self.batch_rows % self.train.micro_batch_size:
            raise ValueError(
                f"train.micro_batch_size {self.train.micro_batch_size} must divide the {self.batch_rows} rows of a batch"
            )
        if self.train.warmup_steps > self.stable_steps:
            raise ValueError(
                f"train.warmup_steps {self.train.warmup_steps} must not exceed the {self.stable_steps} steps of the stable"
                " stage; lower it, or raise stages.stable.tokens"
            )
        positions = self.train.micro_batch_size * self.data.sequence_length // self.parallel.context_parallel
        if self.train.float8 and (positions % 16 or self.parallel.tensor_parallel > 1):
            raise ValueError(
                f"train.float8 needs a multiple of 16 positions a forward pass (here {positions}: train.micro_batch_size x"
                " data.sequence_length) and parallel.tensor_parallel = 1"
            )
        if self.train.deterministic and self.train.compile_mode == "max-autotune-no-cudagraphs":
            raise ValueError(
                "train.compile_mode max-autotune-no-cudagraphs picks kernels by timing, so not the same each time; set"
                " train.deterministic = false with it"
            )
        if self.train.compile_mode == "reduce-overhead" and self.batch_rows > self.train.micro_batch_size:
            raise ValueError(
                "train.compile_mode reduce-overhead (CUDA graphs) can't add up gradients: set train.micro_batch_size to the"
                f" {self.batch_rows} rows of a batch"
            )
        if self.train.keep_checkpoint_every % self.train.checkpoint_every:
            raise ValueError(
                f"train.keep_checkpoint_every {self.train.keep_checkpoint_every} must be a multiple of"
                f" train.checkpoint_every {self.train.checkpoint_every}"
            )
        if self.data.sequence_length > self.model.max_position_embeddings:
            raise ValueError(
                f"data.sequence_length {self.data.sequence_length} exceeds"
                f" model.max_position_embeddings {self.model.max_position_embeddings}"
            )
        if self.stages.stable.mixture:
            _check_sum("stages.stable.mixture", self.stages.stable.mixture)
        if self.stages.decay.tokens and self.stages.decay.sft_share > 0 and self.stages.decay.sft_mixture:
            _check_sum("stages.decay.sft_mixture", self.stages.decay.sft_mixture)
        return self


def _check_sum(key: str, mixture: dict[str, float]) -> None:
    total = sum(mixture.values())
    if abs(total - 1) > 1e-6:
        raise ValueError(f"{key} sums to {total:.6g}; the shares must sum to 1")
