"""Peak memory of an export, proof included, as a share of the weights' size; and its seconds.

    python -m benchmarks.export [--quick] [--json] [--dir DIR] [--to hf --dtype float32]

A checkpoint of the 1.2B (preset xl, 65,280 pieces, random weights, 5.0 GB) is written, then `xmodel2 export` runs in a process
of its own, whose peak resident set (files that are mapped count) is `ours`; it must stay below 1.2. The peer is
`from_pretrained` and `save_pretrained` of `transformers` on what was exported to hf, which proves nothing. Needs twice the
checkpoint's size on the disk of ``--dir`` and is removed afterwards. `--quick` takes the preset small (8,192 pieces), where the
libraries alone are as large as the weights: their memory is left out of the shares, and the bound does not apply.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.harness import Result, argument_parser, machine
from xmodel2.data.embedded import embedded_corpus
from xmodel2.files import file_record, write_json_atomic, write_text_atomic
from xmodel2.model import Xmodel2, tensor_program
from xmodel2.recipe import Recipe, recipe_from_dict, recipe_to_toml
from xmodel2.release.exporting.shards import write_shards
from xmodel2.tokenizer import train_unigram
from xmodel2.train.checkpoint import FORMAT, MANIFEST_FILE, RECIPE_FILE, STATE_FILE

BOUND = 1.2
OURS = """
import sys
from pathlib import Path
import xmodel2.release.exporting.formats as formats
from benchmarks.export import peak_bytes
import transformers, transformers.models.granite.modeling_granite
before = peak_bytes()
(report,) = formats.export_model(Path(sys.argv[1]), [sys.argv[3]], Path(sys.argv[2]), dtype=sys.argv[4])
print(before, peak_bytes(), report["max_abs_difference"])
"""
THEIRS = """
import sys
from benchmarks.export import peak_bytes
import transformers, transformers.models.granite.modeling_granite
before = peak_bytes()
transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])
print(before, peak_bytes(), 0)
"""


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "the preset small")
    parser.add_argument("--dir", type=Path, help="where the files are written, and removed again (default: temporary)")
    parser.add_argument("--to", choices=("hf", "llama"), default="hf")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    options = parser.parse_args()
    preset, pieces = ("small", 8192) if options.quick else ("xl", 65280)
    if options.dir:
        options.dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        run, out, again = (Path(folder) / name for name in ("run", "out", "again"))
        recipe = recipe_from_dict({"name": "random", "model": {"preset": preset, "vocab_size": pieces}})
        size = write_random_run(run, recipe)
        ours = measure(OURS, str(run), str(out), options.to, options.dtype)
        for file in run.rglob("*.safetensors"):
            file.unlink()  # the peer needs the room
        theirs = measure(THEIRS, str(out), str(again))
    share = {
        name: (peak - options.quick * before) / size
        for name, (before, peak, _, _) in (("ours", ours), ("peer", theirs))
    }
    Result(
        name="export",
        machine=machine(),
        ours=share["ours"],
        peers={"transformers from_pretrained + save_pretrained": share["peer"]},
        unit="peak memory as a share of the weights in fp32",
        ratio_to_best_peer=share["peer"] / share["ours"],
        share_of_limit=None if options.quick else share["ours"] / BOUND,
        limit=None if options.quick else BOUND,
        notes=f"{preset}, {size / 1e9:.3f} GB of weights to {options.to} in {options.dtype}: peak {ours[1] / 1e9:.3f} GB, of"
        f" them libraries {ours[0] / 1e9:.3f}, in {ours[3]:.0f} s, largest logit difference {ours[2]:.2e}; the peer's peak"
        f" {theirs[1] / 1e9:.3f} GB in {theirs[3]:.0f} s"
        + ("; libraries are left out of the shares" if options.quick else ""),
    ).show(options.json)


def measure(code: str, *arguments: str) -> tuple[int, int, float, float]:
    """Run a process; return its peak bytes after imports and at the end, the logit difference, and seconds."""
    started = time.perf_counter()
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    if done.returncode:
        sys.exit(done.stderr)
    before, peak, difference = done.stdout.split()[-3:]
    return int(before), int(peak), float(difference), time.perf_counter() - started


def peak_bytes() -> int:
    """Return the largest resident set of this process so far, of Linux's own account."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def write_random_run(run: Path, recipe: Recipe) -> int:
    """Write a run of one checkpoint of random weights, one tensor in memory at a time; return the bytes of its weights."""
    train_unigram(embedded_corpus(200_000), 2048, run / "tokenizer")
    with torch.device("meta"):
        parameters = dict(Xmodel2(recipe.model).named_parameters())
    generator = torch.Generator().manual_seed(0)

    def drawn() -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in parameters.items():
            tensor = torch.ones(parameter.shape)
            if tensor.dim() > 1:
                tensor.normal_(0, tensor_program.initial_std(name, parameter, recipe.model), generator=generator)
            yield name, tensor

    folder = run / "checkpoints" / "step-1"
    folder.mkdir(parents=True)
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    size = write_shards(folder, shapes, drawn(), torch.float32, limit=1 << 50)
    write_json_atomic(folder / STATE_FILE, {"step": 1, "tokens": 0, "stage": "stable"})
    write_text_atomic(folder / RECIPE_FILE, recipe_to_toml(recipe))
    records = {file.name: file_record(file) for file in folder.iterdir()}
    write_json_atomic(folder / MANIFEST_FILE, {"format": FORMAT, "files": records})
    return size


if __name__ == "__main__":
    main()
