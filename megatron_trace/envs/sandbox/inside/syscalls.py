"""The system calls that a policy's code may make, as a seccomp filter. All others are refused.

A list of what is allowed, not of what is dangerous: a call that a later kernel adds is refused
too. What is missing, and why:

- `clone`, `clone3`, `fork`, `vfork`, `execve`: there is one process of one thread. So there are no
  fork bombs and no children that outlive a call, and the limit of memory is the call's own.
- `kill` and its kin, `ptrace`, `process_vm_*`, `pidfd_*`, `setpriority`, `sched_set*`: nothing that
  names another process. `prlimit64` may name none but the caller.
- `socket`, `socketpair`: vsock and others do not heed network namespaces.
- `shmget`, `memfd_create`, `io_uring_setup`, `mq_open`, `add_key`: memory that no limit counts.
- `flock`, and `fcntl` for locks: calls see the same read-only files, and would see their locks.
- `mount`, `unshare`, `setns`, `bpf`, `perf_event_open`, `userfaultfd`, `clock_settime`, ...
"""

import errno
import platform
import struct
from collections.abc import Iterator

ALLOWED = """
    read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, openat 257 56,
    close 3 57, close_range 436 436, fstat 5 80, newfstatat 262 79, statx 332 291, lseek 8 62,
    faccessat 269 48, faccessat2 439 439, dup 32 23, dup3 292 24, pipe2 293 59, ppoll 271 73,
    pselect6 270 72, getcwd 79 17, chdir 80 49, fchdir 81 50, mkdirat 258 34, unlinkat 263 35,
    renameat 264 38, renameat2 316 276, linkat 265 37, symlinkat 266 36, readlinkat 267 78,
    fchmod 91 52, fchmodat 268 53, truncate 76 45, ftruncate 77 46, fallocate 285 47, fsync 74 82,
    fdatasync 75 83, getdents64 217 61, utimensat 280 88, umask 95 166, statfs 137 43,
    fstatfs 138 44, sendfile 40 71, mmap 9 222, mprotect 10 226, munmap 11 215,
    mremap 25 216, brk 12 214, madvise 28 233, futex 202 98, set_robust_list 273 99,
    set_tid_address 218 96, rseq 334 293, rt_sigaction 13 134, rt_sigprocmask 14 135,
    rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigsuspend 130 133, sigaltstack 131 132,
    setitimer 38 103, getitimer 36 102, restart_syscall 219 128, sched_yield 24 124,
    nanosleep 35 101, clock_nanosleep 230 115, clock_gettime 228 113, clock_getres 229 114,
    gettimeofday 96 169, times 100 153, getrusage 98 165, getrlimit 97 163,
    sched_getaffinity 204 123, getpid 39 172, getppid 110 173, gettid 186 178, getpgid 121 155,
    getsid 124 156, getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177,
    getgroups 115 158, uname 63 160, getrandom 318 278, exit 60 93, exit_group 231 94, ioctl 16 29,
    fcntl 72 25, prlimit64 302 261, open 2 -, stat 4 -, lstat 6 -, access 21 -, dup2 33 -,
    pipe 22 -, poll 7 -, select 23 -, mkdir 83 -, rmdir 84 -, unlink 87 -, rename 82 -, link 86 -,
    symlink 88 -, readlink 89 -, chmod 90 -, alarm 37 -, pause 34 -, time 201 -, getpgrp 111 -
"""
"""Name, number on x86_64, number on aarch64, which lacks older calls."""

MACHINES = {"x86_64": (1, 0xC000003E), "aarch64": (2, 0xC00000B7)}
"""For every machine its column in `ALLOWED` and the kernel's word for it (AUDIT_ARCH_*)."""

ARGUMENTS: dict[str, tuple[int, tuple[int, ...]]] = {
    # Is it a terminal, its size, how much can be read, non-blocking, close at exec. Not TIOCSTI.
    "ioctl": (1, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),
    # Copies and flags. Not F_SETOWN, which sends signals, nor F_SETPIPE_SZ, which is memory.
    "fcntl": (1, (0, 1, 2, 3, 4, 1030)),
    # The limits of the caller. Hard limits can only be lowered.
    "prlimit64": (0, (0,)),
}
"""Calls of which one argument must be one of a few: its position, and the values."""

_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16
"""Where the fields lie in the kernel's `seccomp_data`, in bytes."""

ALLOW, KILL = 0x7FFF0000, 0x80000000
# "No such call", not "not permitted": the C library then tries an older call with the same use.
REFUSE = 0x00050000 | errno.ENOSYS

Instruction = tuple[int, int, int, int]
"""Operation, instructions to skip if equal, instructions to skip if not, operand."""


def filter_program(machine: str | None = None) -> bytes:
    """The filter as the kernel takes it: instructions of 8 bytes.

    Args:
        machine: such as `x86_64`; by default the one this runs on.

    Raises:
        OSError: no list for this machine.
    """
    machine = machine or platform.machine()
    if machine not in MACHINES:
        raise OSError(errno.ENOSYS, f"no list of system calls for machines of type {machine}")
    return b"".join(struct.pack("=HBBI", *one) for one in _instructions(machine))


def numbers(machine: str) -> dict[str, int]:
    """The calls that may be made on `machine`, and their numbers."""
    column, _ = MACHINES[machine]
    rows = [row.split() for row in ALLOWED.split(",")]
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def _instructions(machine: str) -> Iterator[Instruction]:
    # Programs for other machines (32 bits) number their calls otherwise.
    _, word = MACHINES[machine]
    yield from ((_LOAD, 0, 0, _MACHINE), (_IF_EQUAL, 1, 0, word), (_RETURN, 0, 0, KILL))
    yield (_LOAD, 0, 0, _NUMBER)
    for name, number in numbers(machine).items():
        position, values = ARGUMENTS.get(name, (0, ()))
        body: list[Instruction] = [(_RETURN, 0, 0, ALLOW)]
        if values:
            # The low half of an argument: the kernel itself takes these three for 32 bits.
            body = [(_LOAD, 0, 0, _FIRST_ARGUMENT + 8 * position)]
            for value in values:
                body += [(_IF_EQUAL, 0, 1, value), (_RETURN, 0, 0, ALLOW)]
            body.append((_RETURN, 0, 0, REFUSE))
        yield (_IF_EQUAL, 0, len(body), number)
        yield from body
    yield (_RETURN, 0, 0, REFUSE)
