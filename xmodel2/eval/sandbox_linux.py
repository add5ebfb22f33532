"""Namespaces, a root of its own and lost privileges, by Linux's own calls: what an unprivileged user may do to himself.

    unshare -> identity maps (written by the parent) -> a tmpfs with read-only binds -> pivot_root -> per program: scratch

Every function raises ``OSError`` naming the step that the kernel refused.
"""

import ctypes
import os
import platform
import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_NEW_MOUNTS, _NEW_PIDS = 0x00020000, 0x20000000
_ALL_NEW = _NEW_MOUNTS | _NEW_PIDS | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x40000000
"""Mounts, processes, cgroups, host name, IPC, users, network."""
_READ_ONLY, _NO_SETUID, _NO_DEVICES, _NO_EXECUTION, _REMOUNT, _BIND, _RECURSIVE = 1, 2, 4, 8, 32, 4096, 16384
_PRIVATE, _DETACH = 1 << 18, 2
_LINUX = platform.system() == "Linux"
_GET_DUMPABLE, _SET_DUMPABLE, _KEEP_CAPABILITIES = 3, 4, 8
_HOST_NAME = b"sandbox"
_READ_ALL_FILES = 1 << 2  # CAP_DAC_READ_SEARCH
_PATH_ONLY = 0o10000000  # O_PATH
_USER, _NOBODY = 1000, 65534
"""The program's user: inside, and what that is outside where root runs the sandbox."""

_libc = ctypes.CDLL(None, use_errno=True)


def _call(step: str, function: Callable[..., int], *arguments: Any) -> None:
    if function(*arguments) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{step}: {os.strerror(error)}")


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    kind_bytes, options_bytes = kind and kind.encode(), options and options.encode()
    arguments = (source.encode(), target.encode(), kind_bytes, ctypes.c_ulong(flags), options_bytes)
    _call(f"mount of {target}", _libc.mount, *arguments)


def leave_all_namespaces() -> None:
    """Enter a namespace of every kind; the next child is the first process of its own process namespace."""
    _call("new user namespace", _libc.unshare, 0x10000000)
    _call("new namespaces", _libc.unshare, _ALL_NEW & ~0x10000000)
    for rename in (_libc.sethostname, _libc.setdomainname):
        _call("another host name", rename, _HOST_NAME, len(_HOST_NAME))


def map_identity(pid: int) -> None:
    """Give ``pid``, in its new user namespace, the caller's identity; where that is root's, a plain user's as well."""
    maps = {"uid_map": os.geteuid(), "gid_map": os.getegid()}
    root = os.geteuid() == 0
    if not root:
        Path(f"/proc/{pid}/setgroups").write_text("deny")
    for name, outside in maps.items():
        lines = f"0 {outside} 1\n{_USER} {_NOBODY} 1\n" if root else f"{_USER} {outside} 1\n"
        Path(f"/proc/{pid}/{name}").write_text(lines)


def enter_root(readable: Mapping[str, str], hidden: Sequence[str]) -> None:
    """Replace the file system by an empty one that holds ``readable`` files and folders (path inside: path outside), read-only.

    ``hidden`` folders within them are covered by empty ones.
    """
    sources = [(path, os.open(outside, _PATH_ONLY | os.O_CLOEXEC)) for path, outside in readable.items()]
    covered = [folder for folder in hidden if os.path.isdir(folder)]
    _mount("none", "/", None, _PRIVATE | _RECURSIVE)
    root = "/tmp"
    _mount("tmpfs", root, "tmpfs", _NO_SETUID | _NO_DEVICES, "size=1m,mode=755")
    for path, descriptor in sources:
        target = root + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            os.makedirs(target, exist_ok=True)
        else:
            Path(target).touch()
        _mount(f"/proc/self/fd/{descriptor}", target, None, _BIND | _RECURSIVE)
        _make_read_only(target, 0 if path.startswith("/dev/") else _NO_DEVICES)
        for folder in covered:
            if folder.startswith(path + "/"):
                _mount("tmpfs", root + folder, "tmpfs", _NO_SETUID | _NO_DEVICES, "size=64k,mode=755")
        os.close(descriptor)
    for folder in covered:
        _make_read_only(root + folder)
    os.makedirs(root + "/tmp", exist_ok=True)
    os.chdir(root)
    _call("pivot_root", _libc.pivot_root, b".", b".")
    _call("detaching the old root", _libc.umount2, b".", _DETACH)
    os.chdir("/")
    _make_read_only("/")


def _make_read_only(target: str, no_devices: int = _NO_DEVICES) -> None:
    """Remount with the flags that it has outside, which can't be taken off here. A device can be written, but not its dates."""
    found = os.statvfs(target).f_flag
    relatime = 1 << 21 if found & 4096 else 0
    kept = found & (_NO_EXECUTION | 1024 | 2048) | relatime  # no atime, no directory's
    _mount("none", target, None, kept | no_devices | _BIND | _REMOUNT | _READ_ONLY | _NO_SETUID)


def own_processes(home: int) -> Callable[[], None]:
    """Let the next child be the first process of a new process namespace; the result makes later ones ordinary again.

    ``home`` is a descriptor of the caller's process namespace.
    """
    _call("new process namespace", _libc.unshare, _NEW_PIDS)
    return lambda: _call("return to the process namespace", _libc.setns, home, _NEW_PIDS)


def mount_scratch(size: int) -> None:
    """Mount a fresh /tmp of ``size`` bytes that only this process sees, and go there."""
    _call("new mounts", _libc.unshare, _NEW_MOUNTS)
    options = f"size={size},nr_inodes=1024,mode=700,uid={_USER},gid={_USER}"
    _mount("tmpfs", "/tmp", "tmpfs", _NO_SETUID | _NO_DEVICES | _NO_EXECUTION, options)
    os.chdir("/tmp")


def drop_privileges() -> None:
    """Give up root's identity and every capability, and become unreadable to other processes of the same user."""
    if os.geteuid() == 0:
        _become(_USER)
    _keep_capabilities(0)
    become_unreadable()


def drop_privileges_outside(folders: Sequence[str]) -> None:
    """Do the same without namespaces, as far as the system lets.

    Root becomes nobody; where that could not read ``folders``, it keeps the right to read every file, and no other.
    """
    kept = 0
    if os.geteuid() == 0:
        with suppress(OSError):  # a container that knows no other user
            if _LINUX:
                _control("keeping capabilities", _KEEP_CAPABILITIES, 1)
            _become(_NOBODY)
        if not all(os.access(folder, os.R_OK | os.X_OK) for folder in folders):
            kept = _READ_ALL_FILES
    if _LINUX:
        _keep_capabilities(kept)
        become_unreadable()


def own_folder_outside(folder: str) -> None:
    """Hand a folder to the user that `drop_privileges_outside` makes of root."""
    if os.geteuid() == 0:
        with suppress(OSError):
            os.chown(folder, _NOBODY, _NOBODY)


def _become(user: int) -> None:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)  # root's sets the saved one too


def _keep_capabilities(kept: int) -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    effective_permitted = (ctypes.c_uint32 * 6)(kept, kept)
    _call("giving up capabilities", _libc.capset, header, effective_permitted)


def become_unreadable() -> None:
    """Close this process's /proc entries (descriptors, memory, environment) to others of its user, and to its own children."""
    if _LINUX:
        _control("becoming undumpable", _SET_DUMPABLE, 0)


@contextmanager
def unreadable() -> Iterator[None]:
    """Be so for a while, where the system can."""
    if not _LINUX or _libc.prctl(_GET_DUMPABLE, *([ctypes.c_ulong(0)] * 4)) != 1:
        yield
        return
    become_unreadable()
    try:
        yield
    finally:
        _control("becoming dumpable", _SET_DUMPABLE, 1)


def _control(step: str, option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    _call(step, _libc.prctl, option, ctypes.c_ulong(value), zero, zero, zero)


def offer_to_end_first() -> None:
    """Have the kernel choose this process and its children when the machine's memory ends, where it can be told."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def limit_resources(memory: int, file_bytes: int) -> None:
    """Set this process's hard limits, which its children inherit; memory is address space, in bytes."""
    limit("RLIMIT_CORE", 0)
    limit("RLIMIT_FSIZE", file_bytes)
    limit("RLIMIT_NOFILE", 64)
    limit("RLIMIT_MEMLOCK", 0)
    limit("RLIMIT_MSGQUEUE", 0)
    if platform.system() != "Darwin":  # whose kernel takes no limit here
        limit("RLIMIT_AS", memory)


def limit(name: str, value: int) -> None:
    """Set one hard limit, where this system has it and it is not lower already."""
    if (kind := getattr(resource, name, None)) is not None:
        _, most = resource.getrlimit(kind)
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (value, value))
