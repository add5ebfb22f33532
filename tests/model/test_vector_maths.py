"""Vector maths: the first call of many threads gives the bits of all others."""

import os
import subprocess
import sys

import pytest
import torch

FORKED = """
import os
import torch
from xmodel2.model import Xmodel2
from xmodel2.recipe import ModelSettings
torch.set_num_threads(2)
with torch.device("meta"):
    Xmodel2(ModelSettings(num_hidden_layers=1))
values = torch.rand(4096) + 0.1
wrong = 0
for _ in range(300):
    child = os.fork()
    if not child:
        first = torch.sqrt(values)
        os._exit(not torch.equal(first, torch.sqrt(values)))
    wrong += os.waitpid(child, 0)[1] != 0
print(wrong)
"""


@pytest.mark.skipif(
    not hasattr(os, "fork") or not torch.backends.mkl.is_available() or (os.cpu_count() or 1) < 2,
    reason="needs MKL, two cores and fork",
)
def test_the_first_square_roots_after_a_model_is_made_are_those_of_later_calls() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) == 0
