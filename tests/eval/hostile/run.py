"""Run programs in the sandbox as another user than the tests' own, or on a machine that has no namespaces.

    programs (JSON) on standard input -> python run.py [ordinary] [bare] [insist] -> verdicts or refusal (JSON) on standard output

``ordinary``, as root and in mounts of one's own, opens the way to the interpreter for everybody and goes on as nobody.
``bare``, as root, goes on where no namespaces can be made, as root still.
"""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

_NOBODY = 65534
_STAGE = Path("/mnt")


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def _become_ordinary(paths: list[str]) -> None:
    """Lose root's identity, where ``paths`` may lie in folders that only root can enter."""
    _mount("-t", "tmpfs", "-o", "mode=755", "none", _STAGE)
    for number, path in enumerate(paths):
        (_STAGE / str(number)).mkdir()
        _mount("--rbind", path, _STAGE / str(number))
    parents = {parent for path in paths for parent in Path(path).parents}
    closed = [parent for parent in parents if not parent.stat().st_mode & 0o001]
    for folder in closed:
        if not any(other in folder.parents for other in closed):
            _mount("-t", "tmpfs", "-o", "mode=755", "none", folder)
    for number, path in enumerate(paths):
        if any(folder in Path(path).parents for folder in closed):
            Path(path).mkdir(parents=True, exist_ok=True)
            _mount("--rbind", _STAGE / str(number), path)
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def _lose_namespaces() -> None:
    """Enter a user namespace that knows every user, and forbid others within it."""
    (unshared, mark_unshared), (mapped, mark_mapped) = os.pipe(), os.pipe()
    if child := os.fork():
        os.read(unshared, 1)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{child}/{name}").write_text(Path(f"/proc/self/{name}").read_text())
        os.write(mark_mapped, b"m")
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    assert ctypes.CDLL(None).unshare(0x10000000) == 0
    os.write(mark_unshared, b"u")
    os.read(mapped, 1)
    Path("/proc/sys/user/max_user_namespaces").write_text("0")


def _main() -> None:
    if "bare" in sys.argv:
        _lose_namespaces()
    if "ordinary" in sys.argv:
        _become_ordinary([sys.base_prefix, sys.prefix, str(Path(__file__).parents[3])])
        os.execv(sys.executable, [sys.executable, *(part for part in sys.argv if part != "ordinary")])
    from xmodel2.errors import XmodelError
    from xmodel2.eval.code_tasks import score_programs
    from xmodel2.eval.sandbox import Limits, Program

    given = json.load(sys.stdin)
    programs = [Program(**program) for program in given["programs"]]
    try:
        verdicts = score_programs(programs, Limits(**given["limits"]), workers=4, insist="insist" in sys.argv)
    except XmodelError as error:
        print(json.dumps(str(error)))
    else:
        print(json.dumps([[verdict.passed, verdict.reason, verdict.seconds] for verdict in verdicts]))


if __name__ == "__main__":
    _main()
