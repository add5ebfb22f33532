"""The optimizer in the groups that the tensor-program rules ask for (Table 6: matrix-like tensors learn at lr / m under AdamW).

A group keeps its `learning_rate_scale`; the loop writes `rate_at(step) * learning_rate_scale` before every update, so no group
ever loses its share of the rate. Under Muon the matrices' share is muon_learning_rate / learning_rate, at every width.
"""

from collections.abc import Iterable

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from xmodel2.model import tensor_program
from xmodel2.recipe import ModelSettings, TrainSettings
from xmodel2.train.muon import Muon

Named = list[tuple[str, nn.Parameter]]


def build_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]], model: ModelSettings, train: TrainSettings
) -> torch.optim.Optimizer:
    """Return fused AdamW in groups of (rate scale, weight decay); or Muon for the matrices, with AdamW for the others inside."""
    named = list(named_parameters)
    matrices = [(name, p) for name, p in named if tensor_program.is_matrix_like(name, p)]
    optimizer: torch.optim.Optimizer
    if train.optimizer == "muon":
        others = _adamw([(name, p) for name, p in named if not tensor_program.is_matrix_like(name, p)], model, train)
        group = {
            "lr": train.muon_learning_rate,
            "learning_rate_scale": train.muon_learning_rate / train.learning_rate,
            "momentum": train.muon_momentum,
            "weight_decay": train.weight_decay,
        }
        optimizer = Muon(matrices, others, model, group)
    else:
        optimizer = _adamw(named, model, train)
    set_rate(optimizer, train.learning_rate)
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the rate at width dim_model_base."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["learning_rate_scale"]


def _adamw(named: Named, model: ModelSettings, train: TrainSettings) -> torch.optim.AdamW:
    groups: dict[tuple[float, float, DeviceMesh | None], list[nn.Parameter]] = {}
    for name, parameter in named:
        scale = tensor_program.learning_rate_scale(name, parameter, model)
        decay = 0.0
        if tensor_program.is_matrix_like(name, parameter):
            constant = train.weight_decay_scaling == "constant"
            decay = train.weight_decay / scale if constant else train.weight_decay
        # One fused call takes tensors of one layout: under tensor parallelism norms are whole, or on a mesh of their own.
        mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
        groups.setdefault((scale, decay, mesh), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "learning_rate_scale": scale}
            for (scale, decay, _), parameters in groups.items()
        ],
        lr=train.learning_rate,
        betas=(train.adam_beta1, train.adam_beta2),
        eps=train.adam_eps,
        fused=True,
    )
