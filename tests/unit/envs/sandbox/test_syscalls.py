"""The filter of system calls, computed step by step as the kernel does."""

import re
import struct
from pathlib import Path

import pytest

from megatron_trace.envs.sandbox.inside.syscalls import (
    ALLOW,
    KILL,
    MACHINES,
    REFUSE,
    filter_program,
    numbers,
)

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
each_machine = pytest.mark.parametrize("machine", list(MACHINES))


def _verdict(machine: str, word: int, number: int, *arguments: int) -> int:
    """What the filter of `machine` says to a call."""
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("=IIQ6Q", number, word, 0, *padded)
    program = list(struct.iter_unpack("=HBBI", filter_program(machine)))
    position = value = 0
    while True:
        operation, equal, other, operand = program[position]
        position += 1
        if operation == 0x06:
            return operand
        if operation == 0x20:
            (value,) = struct.unpack_from("=I", data, operand)
        else:
            assert operation == 0x15
            position += equal if value == operand else other


@each_machine
def test_what_is_listed_is_allowed_and_all_else_refused(machine: str) -> None:
    _, word = MACHINES[machine]
    allowed = {n for n in range(1024) if _verdict(machine, word, n) == ALLOW}
    refused = {n for n in range(1024) if _verdict(machine, word, n) == REFUSE}
    listed = numbers(machine)
    assert allowed == set(listed.values()) - {listed["ioctl"]}
    assert allowed | refused == set(range(1024))


@each_machine
def test_one_argument_decides_where_it_matters(machine: str) -> None:
    _, word = MACHINES[machine]
    number = numbers(machine)
    assert _verdict(machine, word, number["prlimit64"], 0, 5) == ALLOW
    assert _verdict(machine, word, number["prlimit64"], 5, 0) == REFUSE
    assert _verdict(machine, word, number["ioctl"], 7, 0x5401) == ALLOW
    assert _verdict(machine, word, number["ioctl"], 0x5401, 0x5412) == REFUSE
    assert _verdict(machine, word, number["fcntl"], 1, 8) == REFUSE


@each_machine
def test_calls_in_the_numbers_of_another_machine_are_fatal(machine: str) -> None:
    assert {_verdict(machine, 0x40000003, n) for n in range(500)} == {KILL}


@each_machine
def test_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip("no headers of the kernel")
    text = HEADERS[machine].read_text()
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text))
    known.setdefault("newfstatat", known.get("fstatat", ""))
    assert {name: known.get(name) for name in numbers(machine)} == {
        name: str(number) for name, number in numbers(machine).items()
    }


@each_machine
def test_nothing_that_makes_reaches_or_traces_is_listed(machine: str) -> None:
    wrong = (
        "clone clone3 fork vfork execve execveat kill tkill tgkill ptrace process_vm_readv mount "
        "umount2 unshare setns pivot_root chroot bpf keyctl add_key perf_event_open userfaultfd "
        "io_uring_setup socket socketpair connect shmget memfd_create mq_open setuid capset prctl "
        "seccomp clock_settime settimeofday sethostname open_by_handle_at init_module kexec_load "
        "mknod mknodat chown fchown fchownat setxattr flock sched_setaffinity setpriority "
        "name_to_handle_at pidfd_open pidfd_getfd iopl ioperm modify_ldt landlock_create_ruleset"
    )
    assert not set(wrong.split()) & set(numbers(machine))


def test_another_machine_has_no_list() -> None:
    with pytest.raises(OSError, match="riscv64"):
        filter_program("riscv64")
