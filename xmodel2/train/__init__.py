"""Training: schedule, optimizer groups, the loop, checkpoints and metrics."""

from xmodel2.train.checkpoint import load_model
from xmodel2.train.heldout import heldout_losses
from xmodel2.train.metrics import read_metrics
from xmodel2.train.run import RunResult, train

__all__ = ["RunResult", "heldout_losses", "load_model", "read_metrics", "train"]
