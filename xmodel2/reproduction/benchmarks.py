"""Which of the report's benchmarks are at hand."""

from pathlib import Path

from xmodel2.errors import XmodelError
from xmodel2.eval.mirror import Mirror
from xmodel2.eval.tasks import SUITES, TASKS


def available_tasks(data_dir: Path | None) -> list[str]:
    """Return the tasks of the report whose files a folder of benchmarks has. Raises `XmodelError` if it has none."""
    if data_dir is None:
        return []
    mirror, found = Mirror(data_dir), []
    for name in (*SUITES["commonsense"], *SUITES["reasoning"]):
        try:
            mirror.load(TASKS[name])
        except XmodelError:
            continue
        found.append(name)
    if not found:
        raise XmodelError(
            f"--eval-data {data_dir}: holds no benchmark that is known; `xmodel2 eval fetch` makes such a folder"
        )
    return found
