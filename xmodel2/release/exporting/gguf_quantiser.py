"""llama.cpp's own quantiser, for the K-quants, through the package llama-cpp-python; in a child process, as it is C++.

`python -m xmodel2.release.exporting.gguf_quantiser SOURCE OUT KIND` is that child.
"""

import ctypes
import importlib.util
import subprocess
import sys
from pathlib import Path

from xmodel2.errors import XmodelError

PACKAGE = "llama_cpp"


def check_quantiser(kind: str) -> None:
    """Raise `XmodelError` naming the package if it is missing."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise XmodelError(
            f"gguf: {kind} is made by llama.cpp's own quantiser; pip install llama-cpp-python, or choose q8_0, q5_1, q5_0,"
            " q4_1 or q4_0, which need nothing more"
        )


def quantise(source: Path, out: Path, kind: str) -> None:
    """Write a GGUF file of a kind from one in f32. Raises `XmodelError` with llama.cpp's last words if it fails."""
    command = [sys.executable, "-m", __name__, str(source), str(out), kind]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        said = "\n  ".join((done.stdout + done.stderr).splitlines()[-5:])
        raise XmodelError(f"gguf: llama.cpp could not make {kind} (exit code {done.returncode}):\n  {said}")


def _quantise_here(source: str, out: str, kind: str) -> int:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
    return int(llama_cpp.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(params)))


if __name__ == "__main__":
    sys.exit(_quantise_here(*sys.argv[1:]))
