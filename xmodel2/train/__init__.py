"""Training: schedule, optimizer groups, the loop, checkpoints and metrics; from Python: docs/python.md."""

from xmodel2.train.build import new_model
from xmodel2.train.checkpoint import load_model
from xmodel2.train.heldout import heldout_losses
from xmodel2.train.metrics import read_metrics
from xmodel2.train.run import RunResult, make_loader, train
from xmodel2.train.steps import Steps

__all__ = ["RunResult", "Steps", "heldout_losses", "load_model", "make_loader", "new_model", "read_metrics", "train"]
