"""The command line: every command by its name, in the order of --help; `xmodel2.commands` holds their arguments.

Exit codes: 0 done, 1 failed (one clear message), 2 wrong usage, 130 stopped by a signal.
"""

import errno
import io
import logging
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version

import tyro
from rich.console import Console

from xmodel2 import __version__
from xmodel2.arguments import command_fault, normalise
from xmodel2.commands import INTERRUPTED
from xmodel2.commands.ablate import ablate
from xmodel2.commands.calibrate import calibrate
from xmodel2.commands.chat import chat
from xmodel2.commands.check import check
from xmodel2.commands.data import data_inspect, data_prepare, data_starter, data_verify
from xmodel2.commands.demo import demo
from xmodel2.commands.eval import evaluate
from xmodel2.commands.eval_articles import eval_articles
from xmodel2.commands.eval_compare import eval_compare
from xmodel2.commands.eval_fetch import eval_fetch
from xmodel2.commands.export import export
from xmodel2.commands.import_model import import_model
from xmodel2.commands.law import law
from xmodel2.commands.peer import peer
from xmodel2.commands.quantize import quantize
from xmodel2.commands.ratio import ratio
from xmodel2.commands.recipe import recipe
from xmodel2.commands.report import report
from xmodel2.commands.reproduce import reproduce
from xmodel2.commands.rivals import rivals
from xmodel2.commands.scaling import scaling
from xmodel2.commands.search import search
from xmodel2.commands.serve import serve
from xmodel2.commands.tokenizer import tokenizer_inspect, tokenizer_train
from xmodel2.commands.train import average, plan, train
from xmodel2.commands.transfer import transfer
from xmodel2.errors import Terminated, XmodelError

COMMANDS: dict[str, Callable[..., int | None]] = {
    "demo": demo,
    "tokenizer train": tokenizer_train,
    "tokenizer inspect": tokenizer_inspect,
    "data starter": data_starter,
    "data prepare": data_prepare,
    "data inspect": data_inspect,
    "data verify": data_verify,
    "recipe": recipe,
    "train": train,
    "average": average,
    "plan": plan,
    "search": search,
    "transfer": transfer,
    "ratio": ratio,
    "law": law,
    "peer": peer,
    "ablate": ablate,
    "eval": evaluate,
    "rivals": rivals,
    "eval fetch": eval_fetch,
    "eval articles": eval_articles,
    "eval compare": eval_compare,
    "calibrate": calibrate,
    "scaling": scaling,
    "export": export,
    "quantize": quantize,
    "import": import_model,
    "chat": chat,
    "serve": serve,
    "report": report,
    "reproduce": reproduce,
    "check": check,
}

_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)

app = tyro.extras.SubcommandApp()
for _name, _command in COMMANDS.items():
    app.command(name=_name)(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; a user's mistake is one message and exit code 1."""
    # Read by PyTorch at its first tensor: huge pages (train/allocator.py).
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # transformers imports torchao where it is installed, and that tells of kernels for other machines.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal or pipe that does not take all characters
        sys.stdout.reconfigure(errors="replace")
    arguments = normalise(list(sys.argv[1:] if arguments is None else arguments), COMMANDS)
    if arguments[:1] in (["--version"], ["-V"]):
        print(f"xmodel2 {__version__}, PyTorch {version('torch')}, Python {platform.python_version()}")
        sys.exit(0)
    if fault := command_fault(arguments, COMMANDS):
        print(f"xmodel2: {fault}", file=sys.stderr)
        group = any(name.startswith(f"{arguments[0]} ") for name in COMMANDS)
        sys.exit(0 if group and arguments[1:2] in (["--help"], ["-h"]) else 2)
    try:
        _refuse_torchrun(arguments)
        with _sigterm_as_ctrl_c():
            code = app.cli(
                prog="xmodel2", args=arguments, description="Train, understand and ship small language models."
            )
    except BrokenPipeError:  # what read our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (XmodelError, OSError) as error:  # OSError: a full disk, a file that may not be read; it names the file
        advice = "; where a command writes, --out names another place" if getattr(error, "errno", 0) in _DENIED else ""
        Console(stderr=True).print(
            f"xmodel2: {error}{advice}", style="red", highlight=False, markup=False, soft_wrap=True
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(code or 0)


def _refuse_torchrun(arguments: Sequence[str]) -> None:
    """Raise `XmodelError` for a command that torchrun would start several times over the same folder."""
    size = os.environ.get("WORLD_SIZE", "1")
    if "RANK" in os.environ and size not in ("", "1") and arguments[:1] != ["train"]:
        raise XmodelError(f"only `train` goes under torchrun (WORLD_SIZE={size}); start this command without it")


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """End a command on SIGTERM, which batch systems and containers send, as on Ctrl-C: nothing half-written stays behind."""
    own = os.getpid()

    def stop(number: int, frame: object) -> None:
        if os.getpid() != own:  # a fork, which has nothing to put away
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


if __name__ == "__main__":
    main()
