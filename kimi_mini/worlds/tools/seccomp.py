"""What a program in the second engine may ask of the kernel: a list, and a filter that refuses all the rest.

The list holds what CPython needs to compute, to read, to print, to wait and to end. It holds no fork, no clone and no
vfork (one program is one process with one thread, so a limit on a process is a limit on the program), no socket (not
even of the kinds that a network namespace lets through), nothing that keeps memory outside of the process (shmget,
memfd_create, msgget, vmsplice, splice), nothing that changes a file's rights, owner or times, nothing that makes
namespaces or mounts, and none of ptrace, bpf, keyctl, io_uring, perf_event_open and userfaultfd. Of ioctl, which
could reserve space on the disk behind the output, it holds four commands.

The filter is a program in classic BPF, which the kernel runs before every system call (seccomp, man 2 seccomp).
"""

import errno
import os
import struct
from collections.abc import Iterable

from kimi_mini.base.errors import SandboxUnavailable

# name, number on x86_64, number on aarch64 (- where that machine has no such call)
ALLOWED = """
read 0 63   write 1 64   open 2 -   close 3 57   stat 4 -   fstat 5 80   lstat 6 -   newfstatat 262 79
statx 332 291   statfs 137 43   fstatfs 138 44   access 21 -   faccessat 269 48   readlink 89 -
readlinkat 267 78   getcwd 79 17   chdir 80 49   openat 257 56   getdents 78 -   getdents64 217 61   lseek 8 62
pread64 17 67   pwrite64 18 68   readv 19 65   writev 20 66   dup 32 23   dup2 33 -   dup3 292 24   fcntl 72 25
umask 95 166   pipe 22 -   pipe2 293 59   socketpair 53 199   sendto 44 206   recvfrom 45 207
getsockopt 55 209   getsockname 51 204   getpeername 52 205   select 23 -   pselect6 270 72   poll 7 -
ppoll 271 73   epoll_create 213 -   epoll_create1 291 20   epoll_ctl 233 21   epoll_wait 232 -
epoll_pwait 281 22   eventfd2 290 19   mmap 9 222   mprotect 10 226   munmap 11 215   mremap 25 216
madvise 28 233   brk 12 214   membarrier 324 283   futex 202 98   set_robust_list 273 99   rseq 334 293
set_tid_address 218 96   arch_prctl 158 -   sched_yield 24 124   sched_getaffinity 204 123   getcpu 309 168
getrandom 318 278   rt_sigaction 13 134   rt_sigprocmask 14 135   rt_sigreturn 15 139   rt_sigpending 127 136
rt_sigsuspend 130 133   rt_sigtimedwait 128 137   sigaltstack 131 132   kill 62 129   tgkill 234 131
restart_syscall 219 128   pause 34 -   nanosleep 35 101   clock_nanosleep 230 115   clock_gettime 228 113
clock_getres 229 114   gettimeofday 96 169   time 201 -   times 100 153   getitimer 36 102   setitimer 38 103
alarm 37 -   getpid 39 172   getppid 110 173   gettid 186 178   getpgid 121 155   getpgrp 111 -   getsid 124 156
getuid 102 174   geteuid 107 175   getgid 104 176   getegid 108 177   getresuid 118 148   getresgid 120 150
getgroups 115 158   uname 63 160   sysinfo 99 179   getrusage 98 165   prlimit64 302 261   execve 59 221
wait4 61 260   waitid 247 95   exit 60 93   exit_group 231 94
"""
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*
IOCTL = {"x86_64": 16, "aarch64": 29}
IOCTL_COMMANDS = (0x541B, 0x5421, 0x5450, 0x5451)  # FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
FIRST_NEW = (
    424  # from here on all machines count alike; a call up there is answered as by a kernel that lacks it
)

_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_NUMBER, _ARCHITECTURE, _SECOND_ARGUMENT = 0, 4, 24  # where they stand in the kernel's record of a call


def numbers(machine: str) -> dict[str, int]:
    """Name -> number of the allowed calls on that machine ("x86_64" or "aarch64")."""
    words = ALLOWED.split()
    column = 1 + list(ARCHITECTURES).index(machine)
    found = zip(words[0::3], words[column::3])
    return {name: int(number) for name, number in found if number != "-"}


def build_filter(machine: str | None = None) -> bytes:
    """The filter as bytes for `bwrap --seccomp`. Raises SandboxUnavailable on a machine whose calls are not listed."""
    machine = machine or os.uname().machine
    if machine not in ARCHITECTURES:
        raise SandboxUnavailable(
            f"no list of system calls for {machine}: the bubblewrap engine runs on {', '.join(ARCHITECTURES)}"
        )
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),  # a call in the manner of another machine (int 0x80)
        (_LOAD, 0, 0, _NUMBER),
        (_IF_AT_LEAST, 0, 1, FIRST_NEW),
        (
            _RETURN,
            0,
            0,
            _ERRNO | errno.ENOSYS,
        ),  # glibc then uses the older call, which stands in the list or not
    ]
    commands = [(_LOAD, 0, 0, _SECOND_ARGUMENT), *_only(IOCTL_COMMANDS)]
    steps += [(_IF_EQUAL, 0, len(commands), IOCTL[machine]), *commands, *_only(numbers(machine).values())]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _only(values: Iterable[int]) -> list[tuple[int, int, int, int]]:
    """Allow the call if what was loaded is one of the values, refuse it if not."""
    allow = [step for value in values for step in ((_IF_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW))]
    return [*allow, (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
