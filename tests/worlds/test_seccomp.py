"""The filter of system calls, run here step by step for both machines: what it allows, and what it answers otherwise."""

import errno
import re
import struct
from pathlib import Path

import pytest

from kimi_mini.base.errors import SandboxUnavailable
from kimi_mini.worlds.tools import seccomp

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
ALLOW, KILL = 0x7FFF0000, 0x80000000
REFUSE, MISSING = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
machines = pytest.mark.parametrize("machine", list(seccomp.ARCHITECTURES))
FORBIDDEN = {  # name -> numbers on x86_64 and aarch64
    "clone": (56, 220),
    "fork": (57, None),
    "vfork": (58, None),
    "socket": (41, 198),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "memfd_create": (319, 279),
    "vmsplice": (278, 75),
    "mount": (165, 40),
    "unshare": (272, 97),
    "setns": (308, 268),
    "ptrace": (101, 117),
    "bpf": (321, 280),
    "keyctl": (250, 219),
    "fchmodat": (268, 53),
    "fallocate": (285, 47),
    "perf_event_open": (298, 241),
    "open_by_handle_at": (304, 265),
}


def answer(machine: str, number: int, second: int = 0, architecture: int | None = None) -> int:
    """What the kernel would do with a call: the filter, interpreted."""
    code = seccomp.build_filter(machine)
    record = struct.pack("IIQQQ", number, architecture or seccomp.ARCHITECTURES[machine], 0, 0, second)
    steps, at, loaded = list(struct.iter_unpack("HBBI", code)), 0, 0
    while True:
        what, yes, no, value = steps[at]
        at += 1
        if what == 0x20:
            (loaded,) = struct.unpack_from("I", record, value)
        elif what == 0x15:
            at += yes if loaded == value else no
        elif what == 0x35:
            at += yes if loaded >= value else no
        else:
            assert what == 0x06
            return value


@machines
def test_what_stands_in_the_list_is_allowed_and_nothing_else(machine):
    allowed = set(seccomp.numbers(machine).values())
    ioctl = seccomp.IOCTL[machine]
    for number in range(1200):
        if number != ioctl:
            wanted = ALLOW if number in allowed else MISSING if number >= 424 else REFUSE
            assert answer(machine, number) == wanted, number
    assert answer(machine, 0x40000000 + 57) == MISSING  # the x32 manner of calling
    assert answer(machine, 2**32 - 1) == MISSING


@machines
def test_the_dangerous_ones_are_refused(machine):
    for name, numbers in FORBIDDEN.items():
        number = numbers[list(seccomp.ARCHITECTURES).index(machine)]
        assert number is None or answer(machine, number) == REFUSE, name


@machines
def test_only_harmless_commands_to_a_descriptor(machine):
    ioctl = seccomp.IOCTL[machine]
    assert {answer(machine, ioctl, command) for command in seccomp.IOCTL_COMMANDS} == {ALLOW}
    for command in (
        0x40305828,
        0x5412,
        0x5401,
        0x40049409,
        0x40086602,
    ):  # reserve space, type into a terminal, ...
        assert answer(machine, ioctl, command) == REFUSE
    assert answer(machine, 9999, 0x5421) == MISSING and answer(machine, 423, 0x5421) == REFUSE


@machines
def test_the_manner_of_another_machine_ends_the_program(machine):
    for architecture in (0x40000003, 0xC000003E, 0xC00000B7, 0xC00000F3):
        if architecture != seccomp.ARCHITECTURES[machine]:
            assert answer(machine, 1, architecture=architecture) == KILL


@machines
def test_the_numbers_are_those_of_the_kernels_headers(machine):
    """A slip in the table would allow another call than the one that is named."""
    if not HEADERS[machine].exists():
        pytest.skip(f"{HEADERS[machine]} is not here (apt install linux-libc-dev)")
    text = HEADERS[machine].read_text()
    real = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b", text)}
    real.setdefault("newfstatat", real.get("fstatat"))
    for name, number in {**seccomp.numbers(machine), "ioctl": seccomp.IOCTL[machine]}.items():
        assert real[name] == number, name
    for name, numbers in FORBIDDEN.items():
        number = numbers[list(seccomp.ARCHITECTURES).index(machine)]
        assert number is None or real[name] == number, name


def test_a_machine_that_is_not_listed_is_refused():
    with pytest.raises(SandboxUnavailable, match="no list of system calls for riscv64"):
        seccomp.build_filter("riscv64")
