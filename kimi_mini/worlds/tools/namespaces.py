"""The second sandbox engine: full CPython in Linux namespaces (bubblewrap), under a filter of system calls and rlimits.

    bwrap    new user, mount, pid, net, ipc, uts and cgroup namespaces, and no further ones from inside; no
             capabilities; this Python and the C libraries, read-only; no /proc, no /sys, no place to write to, no
             environment
    seccomp  a list of allowed system calls: no second process or thread, no socket, no shared memory (seccomp.py)
    rlimits  memory, processor time, output, open files; set inside, before the program begins, as hard limits that
             it cannot raise

One program is one process, so the limit on a process's memory is a limit on the program's. None of this asks for root,
and a program that root starts is confined by the same means: what root owns on the host is not there, or read-only.

How a program's end is told apart from a forged one: the harness writes its verdict, marked with a random token, to a
file descriptor of its own after the program has ended. `os._exit(0)` and `sys.exit(0)` leave no verdict and therefore
do not count as success. (A program that digs the token out of the harness's frames can forge it: sandbox.py lists that
under "not covered".)
"""

import os
import secrets
import shutil
import signal
import site
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

from kimi_mini.base.errors import SandboxUnavailable
from kimi_mini.worlds.tools import seccomp

MAX_ADDRESS_SPACE = 256 * 2**20  # bytes; CPython alone takes some 30 MB of it
MAX_FILES = 64  # open at a time, pipes included: what the kernel keeps for them is bounded with their number
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")

_HARNESS = """
import os, resource, sys
token, seconds, output, space, files = sys.argv[1], *map(int, sys.argv[2:6])
del sys.argv[1:]
verdict, printed = os.dup(2), sys.stdout
os.dup2(1, 2)
for limit, value in ((resource.RLIMIT_AS, space), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0),
                     (resource.RLIMIT_FSIZE, output), (resource.RLIMIT_NOFILE, files), (resource.RLIMIT_MEMLOCK, 0),
                     (resource.RLIMIT_SIGPENDING, files)):
    resource.setrlimit(limit, (value, value))
line, problem = 0, ""
try:
    exec(compile(sys.stdin.read(), "program.py", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    printed.closed or printed.flush()
except BaseException as error:
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "program.py":
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, SyntaxError):
        line = error.lineno or 0
    try:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
    except BaseException:
        text = "(its text cannot be read)"
    problem = (type(error).__name__ + ": " + text[:1000]).rstrip(": ")
os.write(verdict, (token + "\\n" + str(line) + "\\n" + problem).encode("utf-8", "replace"))
try:
    printed.flush()
finally:
    os._exit(0)
"""

# Prints the name of all that it could do, and 42. It writes nothing: what can be opened for writing is closed again.
_PROBE = """
import ctypes, os, socket
def attempt(name, action):
    try:
        action()
    except (OSError, AttributeError):
        return
    print(name)
def call(name, *arguments):
    if getattr(ctypes.CDLL(None), name)(*arguments) == -1:
        raise OSError
def fork():
    if os.fork() == 0:
        os._exit(0)
attempt("processes", fork)
attempt("sockets", lambda: socket.socket(socket.AF_UNIX))
attempt("namespaces", lambda: call("unshare", 0x10000000))
attempt("shared memory", lambda: call("shmget", 0, 4096, 0o1600))
attempt("the host's processes and settings", lambda: os.listdir("/proc"))
for folder in ("/", "/tmp", "/dev", "/usr/lib"):
    attempt("writing below " + folder, lambda: os.open(folder, os.O_TMPFILE | os.O_RDWR))
if set(os.environ) - {"PWD", "LC_CTYPE"}:  # bwrap and Python set these two
    print("the environment")
print(6 * 7)
"""


def run(code: str, timeout: float, max_output: int) -> tuple[str, str | None, int | None]:
    """Run a program -> (stdout, error or None, line or None). Raises SandboxUnavailable."""
    probe()
    return _run(code, timeout, max_output)


@lru_cache(maxsize=1)
def probe() -> None:
    """Once per process, run a program that tries to get out. Raises SandboxUnavailable when it does, or cannot run."""
    if shutil.which("bwrap") is None:
        raise SandboxUnavailable(
            "bubblewrap is not installed; install it (apt install bubblewrap) or use monty"
        )
    stdout, error, _ = _run(_PROBE, 20.0, 4096)
    *open_ways, last = stdout.splitlines() or [""]
    if error or last != "42":
        raise SandboxUnavailable(f"a probe run under bubblewrap failed ({error}); use the monty engine")
    if open_ways:
        raise SandboxUnavailable(
            f"bubblewrap does not confine programs here: {', '.join(open_ways)}; use the monty engine"
        )


def _command(token: str, timeout: float, max_output: int, filter_fd: int) -> list[str]:
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    command = [
        shutil.which("bwrap"),
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        "--die-with-parent",
    ]
    command += [
        "--cap-drop",
        "ALL",
        "--clearenv",
        "--uid",
        "65534",
        "--gid",
        "65534",
        "--hostname",
        "sandbox",
    ]
    command += ["--seccomp", str(filter_fd)]
    prefixes = dict.fromkeys((sys.base_prefix, sys.base_exec_prefix))
    for path in (*LIBRARIES, python, *(f"{prefix}/lib" for prefix in prefixes)):
        command += ["--ro-bind-try", path, path]
    packages = [*map(Path, site.getsitepackages([*prefixes])), *Path("/usr/lib").glob("python3*/*-packages")]
    for folder in dict.fromkeys(packages):
        if folder.is_dir():  # what was installed beside Python is not there: an empty folder lies over it
            command += ["--tmpfs", str(folder), "--remount-ro", str(folder)]
    for device in DEVICES:
        command += ["--dev-bind", device, device]
    command += ["--dir", "/tmp", "--chdir", "/tmp", "--remount-ro", "/"]  # no disk and no memory to fill
    limits = (int(timeout) + 1, max_output + 1, MAX_ADDRESS_SPACE, MAX_FILES)
    return [*command, python, "-I", "-S", "-B", "-X", "utf8", "-c", _HARNESS, token, *map(str, limits)]


def _run(code: str, timeout: float, max_output: int) -> tuple[str, str | None, int | None]:
    token = secrets.token_hex(16)
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as verdict,
        tempfile.TemporaryFile() as rules,
    ):
        rules.write(seccomp.build_filter())
        rules.seek(0)
        process = subprocess.Popen(
            _command(token, timeout, max_output, rules.fileno()),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=verdict,
            env={},
            pass_fds=(rules.fileno(),),
            start_new_session=True,
        )
        try:
            process.communicate(code.encode("utf-8", "replace"), timeout=timeout)
            in_time = True
        except subprocess.TimeoutExpired:
            in_time = False
        finally:
            _kill(process)
        stdout, report = _read(out, max_output + 1), _read(verdict, 8192).decode("utf-8", "replace")
    text = stdout[:max_output].decode("utf-8", "replace")
    if not in_time:
        return text, f"TimeoutError: no end after {timeout:g} s", None
    if len(stdout) > max_output:
        return text, f"OutputError: more than {max_output} bytes printed", None
    return text, *_judge(report, token, process.returncode)


def _kill(process: subprocess.Popen) -> None:
    """End bwrap and all that it started, also when it is only half-way through making its namespaces.

    Its first child is process 1 of the program's namespace, with which everything in there dies. It asks to die
    with bwrap only as its last step before the program; until then, only that it is in bwrap's process group lets
    it be found. So bwrap gets a session of its own from `Popen`, and no `--new-session`, which would take that
    child out of the group before it has asked (3,000 time-outs on a busy machine left one behind).
    """
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _judge(report: str, token: str, code: int) -> tuple[str | None, int | None]:
    """The harness's verdict -> (error or None, line or None)."""
    lines = report.split("\n", 2)
    if len(lines) == 3 and lines[0] == token:
        return (lines[2] or None), (int(lines[1]) or None)
    reason = " ".join(report.split()) or f"the program left before its end (status {code})"
    return f"SystemExit: {reason}", None


def _read(file, limit: int) -> bytes:
    file.seek(0)
    return file.read(limit)
