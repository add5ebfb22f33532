"""The peer: `LlamaForCausalLM` of the recipe's sizes under transformers' `Trainer`, on the rows of our loader, in its order.

    Loader row -> {input_ids, labels, shift_labels} -> Trainer (defaults; cosine) -> held-out loss, by the code that measures ours

The labels are our targets as they are, so that both learn from the same tokens; the Trainer alone would shift them itself, and
lose the last of each row.
"""

import math
from collections.abc import Callable, Collection, Sized
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.models.llama import LlamaConfig, LlamaForCausalLM
from transformers.trainer_callback import PrinterCallback

from xmodel2.data.batch import IGNORED, Batch
from xmodel2.data.loader import Loader
from xmodel2.data.shards import ShardSet, open_shards
from xmodel2.errors import XmodelError
from xmodel2.recipe import ModelSettings, Recipe, replace
from xmodel2.search.trial import mean_text_loss
from xmodel2.train.device import DTYPES, pick_device, set_determinism
from xmodel2.train.heldout import measure_heldout
from xmodel2.train.run import make_loader
from xmodel2.train.step import LossModule, MicroBatch
from xmodel2.train.world import World

DEFAULT_RATE = 5e-5
"""Of `TrainingArguments`."""

Row = dict[str, torch.Tensor]


@dataclass(frozen=True)
class PeerRun:
    """What a run of the peer ended with."""

    loss: float
    """Held-out nats a token, mean over text sources, rows as it was trained on; NaN if it diverged."""
    loss_masked: float
    """The same with attention kept inside documents, as ours is measured."""
    curve: dict[int, float] = field(default_factory=dict)
    """Held-out loss by step."""


def check_installed() -> None:
    """Raise `XmodelError` if the Trainer cannot run here."""
    if find_spec("accelerate") is None:
        raise XmodelError("peer: transformers' Trainer needs accelerate: pip install 'xmodel2[peers]'")


def peer_model(settings: ModelSettings, seed: int) -> LlamaForCausalLM:
    """Return a model of the same sizes, drawn as transformers draws it; all else is the default of `LlamaConfig`."""
    set_seed(seed)
    config = LlamaConfig(
        vocab_size=settings.vocab_size,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.num_hidden_layers,
        num_attention_heads=settings.num_attention_heads,
        num_key_value_heads=settings.num_key_value_heads,
        max_position_embeddings=settings.max_position_embeddings,
        tie_word_embeddings=settings.tie_word_embeddings,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def train_peer(recipe: Recipe, rate: float, out: Path, measured_at: Collection[int] = ()) -> PeerRun:
    """Train the peer on the recipe's batches under a cosine with the peak ``rate``; held-out losses at some steps too."""
    device = pick_device(recipe.train.device)
    set_determinism(False, device)
    shards = open_shards(recipe.data.dir, verify=False, cache_dir=recipe.data.cache_dir)
    model = peer_model(recipe.model, recipe.seed)

    def loss(masked: bool) -> float:
        return heldout_loss(model, shards, replace(recipe, {"data.mask_documents": masked}), device)

    curve: dict[int, float] = {}

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step in measured_at:
                curve[state.global_step] = loss(masked=False)

    rows = LoaderRows(make_loader(recipe, shards))
    peer_trainer(recipe, model, rows, rate, out, recipe.total_steps, Watch()).train()
    return PeerRun(loss(masked=False), loss(masked=True), curve)


def peer_trainer(
    recipe: Recipe,
    model: LlamaForCausalLM,
    rows: Dataset[Row],
    rate: float,
    out: Path,
    steps: int,
    callback: TrainerCallback,
    compiled: bool = False,
) -> Trainer:
    """Return the Trainer with its defaults but for what the comparison fixes: batch, warm-up, cosine, precision, length."""
    train = recipe.train
    device = pick_device(train.device)
    if device.type == "cuda" and torch.cuda.device_count() > 1:
        raise XmodelError(
            f"peer: the Trainer would use all {torch.cuda.device_count()} GPUs, and so a larger batch; set"
            " CUDA_VISIBLE_DEVICES to one"
        )
    arguments = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=train.micro_batch_size,
        gradient_accumulation_steps=recipe.batch_rows // train.micro_batch_size,
        max_steps=steps,
        learning_rate=rate,
        lr_scheduler_type="cosine",
        warmup_steps=train.warmup_steps,
        bf16=train.precision == "bf16",
        use_cpu=device.type == "cpu",
        torch_compile=compiled,
        seed=recipe.seed,
        remove_unused_columns=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = _InOrder(model=model, args=arguments, train_dataset=rows, callbacks=[callback])
    trainer.remove_callback(PrinterCallback)
    return trainer


class _InOrder(Trainer):
    """Takes the rows in the order that our loader has drawn, instead of drawing another."""

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> SequentialSampler:
        return SequentialSampler(cast(Sized, self.train_dataset))


class LoaderRows(Dataset[Row]):
    """Rows of a run as examples, read a batch at a time."""

    def __init__(self, loader: Loader) -> None:
        self._loader, self._step = loader, -1
        self._batch: Batch | None = None

    def __len__(self) -> int:
        return self._loader.total_rows

    def __getitem__(self, row: int) -> Row:
        step, place = divmod(row, self._loader.batch_rows)
        if self._batch is None or step != self._step:
            self._batch, self._step = self._loader.batch(step), step
        return example(self._batch, place)


def example(batch: Batch, place: int) -> Row:
    """Return one row of a batch as the Trainer takes it."""
    targets = torch.from_numpy(batch.targets[place])
    return {"input_ids": torch.from_numpy(batch.inputs[place]), "labels": targets, "shift_labels": targets}


def heldout_loss(model: LlamaForCausalLM, shards: ShardSet, recipe: Recipe, device: torch.device) -> float:
    """Return held-out nats a token, mean over text sources: the rows, mask and mean that our own model is measured with."""
    module = _PeerLoss(model, DTYPES[recipe.train.precision], device)
    losses = measure_heldout(
        cast(LossModule, module), shards, recipe, World(), device, max_rows=recipe.train.heldout_rows
    )
    loss = mean_text_loss(losses)
    return loss if math.isfinite(loss) else math.nan


class _PeerLoss(nn.Module):
    """Summed nats of a micro-batch, as `LossModule` gives those of our model."""

    context = None

    def __init__(self, model: LlamaForCausalLM, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.model, self._dtype, self._device = model.to(device), dtype, device
        self._logits: Callable[..., Any] = model

    def forward(self, batch: MicroBatch) -> torch.Tensor:
        mask = None
        if batch.documents_BT is not None:
            documents = batch.documents_BT.to(batch.inputs_BS.device)
            mask = (documents[:, :, None] == documents[:, None, :]).tril()[:, None]
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            logits = self._logits(input_ids=batch.inputs_BS, attention_mask=mask).logits.flatten(0, 1)
        if batch.position_T is not None:
            logits = logits[batch.position_T]
        return nn.functional.cross_entropy(logits.float(), batch.target_T, ignore_index=IGNORED, reduction="sum")
