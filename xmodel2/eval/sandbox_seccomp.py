"""The system calls that a program in the sandbox may make: a seccomp filter, built and installed without any library.

What is not listed fails with EPERM: sockets, locks, new processes and programs, mounts, namespaces, ptrace, other processes'
memory, shared memory, keys, bpf, io_uring, clocks ... A call newer than this list fails with ENOSYS, as on an older kernel.
Numbers: Linux's asm/unistd_64.h (x86_64) and asm-generic/unistd.h (aarch64).
"""

import ctypes
import os
import platform
import struct

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Machine to AUDIT_ARCH_* and column of the tables below."""

# fmt: off
_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67), "pwrite64": (18, 68),
    "preadv": (295, 69), "pwritev": (296, 70), "lseek": (8, 62), "close": (3, 57), "close_range": (436, 436),
    "open": (2, None), "openat": (257, 56), "creat": (85, None), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24),
    "pipe": (22, None), "pipe2": (293, 59), "sendfile": (40, 71), "copy_file_range": (326, 285),
    "stat": (4, None), "fstat": (5, 80), "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291),
    "statfs": (137, 43), "fstatfs": (138, 44), "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439),
    "getdents": (78, None), "getdents64": (217, 61), "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50),
    "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None), "unlinkat": (263, 35),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "link": (86, None), "linkat": (265, 37),
    "symlink": (88, None), "symlinkat": (266, 36), "readlink": (89, None), "readlinkat": (267, 78),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "umask": (95, 166), "utimensat": (280, 88),
    "truncate": (76, 45), "ftruncate": (77, 46), "fallocate": (285, 47), "fadvise64": (221, 223),
    "fsync": (74, 82), "fdatasync": (75, 83),
    "mmap": (9, 222), "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216), "madvise": (28, 233),
    "brk": (12, 214), "msync": (26, 227),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132), "restart_syscall": (219, 128),
    "select": (23, None), "pselect6": (270, 72), "poll": (7, None), "ppoll": (271, 73), "pause": (34, None),
    "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None), "epoll_pwait": (281, 22),
    "futex": (202, 98), "set_robust_list": (273, 99), "set_tid_address": (218, 96), "rseq": (334, 293),
    "membarrier": (324, 283), "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "getcpu": (309, 168),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153), "getitimer": (36, 102),
    "setitimer": (38, 103), "alarm": (37, None), "getrusage": (98, 165), "getrlimit": (97, 163),
    "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "getresuid": (118, 148), "getresgid": (120, 150),
    "getgroups": (115, 158), "getpgrp": (111, None), "getpgid": (121, 155), "getsid": (124, 156),
    "uname": (63, 160), "sysinfo": (99, 179), "getrandom": (318, 278),
    "wait4": (61, 260), "waitid": (247, 95), "exit": (60, 93), "exit_group": (231, 94),
}
_WITH_ARGUMENTS = {
    "clone": (56, 220), "clone3": (435, 435), "ioctl": (16, 29), "fcntl": (72, 25), "kill": (62, 129),
    "tgkill": (234, 131), "prlimit64": (302, 261),
}
# fmt: on

_CLONE_THREAD = 0x10000
_IOCTLS = (
    0x5401,
    0x541B,
    0x5421,
    0x5450,
    0x5451,
)  # TCGETS, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX: none that types into a terminal
_FCNTLS = (
    0,
    1,
    2,
    3,
    4,
    1030,
)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC: no locks, leases and signals

_LOAD, _EQUAL, _GREATER_EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_EPERM, _ENOSYS = 0x00050000 | 1, 0x00050000 | 38

_Instruction = tuple[int, int, int, int]


def supported() -> bool:
    """Whether this machine's system calls are known."""
    return platform.system() == "Linux" and platform.machine() in _ARCHITECTURES


def restrict_calls() -> None:
    """Install the filter on this process, for good; ``OSError`` where the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    program = _program(os.getpid())
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    zero = ctypes.c_ulong(0)
    if libc.prctl(38, ctypes.c_ulong(1), zero, zero, zero):  # PR_SET_NO_NEW_PRIVS
        raise OSError(ctypes.get_errno(), "no_new_privs")
    if libc.prctl(22, ctypes.c_ulong(2), ctypes.c_char_p(header), zero, zero):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        raise OSError(ctypes.get_errno(), "seccomp")


def _program(pid: int) -> list[_Instruction]:
    """Return the filter of the process ``pid``: the first return that is reached decides."""
    architecture, column = _ARCHITECTURES[platform.machine()]

    def call(name: str, *body: _Instruction) -> list[_Instruction]:
        return [(_EQUAL, 0, len(body), _WITH_ARGUMENTS[name][column]), *body]

    def argument(index: int) -> _Instruction:
        return (_LOAD, 0, 0, 16 + 8 * index)  # its lower half: all compared here are 32-bit

    def only(index: int, values: tuple[int, ...], then: int, otherwise: int) -> list[_Instruction]:
        tests = [part for value in values for part in ((_EQUAL, 0, 1, value), (_RETURN, 0, 0, then))]
        return [argument(index), *tests, (_RETURN, 0, 0, otherwise)]

    allowed = [pair[column] for pair in _ALLOWED.values()]
    return [
        (_LOAD, 0, 0, 4),  # architecture
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # number of the call
        *(
            part
            for number in allowed
            if number is not None
            for part in ((_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW))
        ),
        # Threads, no processes; clone3 passes its flags in memory, and libc falls back to clone where it is missing.
        *call("clone", argument(0), (_ANY_BIT, 0, 1, _CLONE_THREAD), (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _EPERM)),
        *call("clone3", (_RETURN, 0, 0, _ENOSYS)),
        *call("ioctl", *only(1, _IOCTLS, _ALLOW, _EPERM)),
        *call("fcntl", *only(1, _FCNTLS, _ALLOW, _EPERM)),
        *call("kill", *only(0, (pid,), _ALLOW, _EPERM)),
        *call("tgkill", *only(0, (pid,), _ALLOW, _EPERM)),
        *call("prlimit64", *only(0, (0,), _ALLOW, _EPERM)),
        (_GREATER_EQUAL, 0, 1, 450),
        (_RETURN, 0, 0, _ENOSYS),
        (_RETURN, 0, 0, _EPERM),
    ]
