"""What tests of the chat share: the tiny model of the road, in a folder of their own."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny(road: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A native directory that the tests may write into."""
    return shutil.copytree(road / "hf", tmp_path_factory.mktemp("chat") / "hf")
