"""What a run shows: to a reader that is gone, nothing, and the run goes on."""

import os
import subprocess
import sys
from pathlib import Path

from xmodel2.recipe import Recipe, recipe_to_toml


def test_a_reader_that_is_gone_ends_nothing(small_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(recipe_to_toml(small_recipe))
    reader, writer = os.pipe()
    os.close(reader)
    command = [
        sys.executable,
        "-m",
        "xmodel2.cli",
        "train",
        str(tmp_path / "recipe.toml"),
        "--out",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(command, stderr=writer, stdout=subprocess.PIPE, text=True, timeout=120)
    os.close(writer)
    assert done.returncode == 0
    assert "finished at step 20" in done.stdout
