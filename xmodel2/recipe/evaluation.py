"""Which benchmarks are scored while a run trains, and how often."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from xmodel2.recipe.bounds import CONFIG, NotNegative, Positive


@dataclass(frozen=True, config=CONFIG, kw_only=True)
class EvaluationSettings:
    """Benchmark scores on the way (`xmodel2 train`); what they mean and how noisy they are stands in docs/training.md."""

    every: NotNegative = 0
    """Steps between evaluations; one more at the end of each stage. 0: none."""
    tasks: Annotated[tuple[str, ...], Field(min_length=1)] = ("arc_easy", "piqa", "sciq")
    """Tasks and suites of `xmodel2 eval`; by default those of the report's that a small model leaves chance in first."""
    limit: Positive = 200
    """Items a task, the first ones; all evaluations of a run see the same."""
    prompts: tuple[str, ...] = ()
    """Texts that the model goes on with, greedily, whenever held-out loss is measured; the report shows what it writes."""
    prompt_tokens: Positive = 60
    """Tokens that it writes after each."""
    data_dir: str = ""
    """Folder of benchmark files that `xmodel2 eval fetch` made; empty: the Hugging Face Hub."""
