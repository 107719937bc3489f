"""The second sandbox engine: full CPython in Linux namespaces (bubblewrap) under rlimits.

    bwrap   new user, mount, pid, net, ipc, uts and cgroup namespaces; no capabilities; read-only system
            directories and this Python's own files, no place to write to; no environment
    rlimits memory, processor time, output, processes; set inside, before the program begins, as hard limits
            that it cannot raise

How a program's end is told apart from a forged one: the harness writes its verdict, marked with a random
token, to a file descriptor of its own after the program has ended. `os._exit(0)` and `sys.exit(0)` leave no
verdict and therefore do not count as success. (A program that digs the token out of the harness's frames can
forge it: sandbox.py lists that under "not covered".)
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import lru_cache

from kimi_mini.base.errors import SandboxUnavailable

MAX_ADDRESS_SPACE = 512 * 2**20  # bytes; CPython alone takes some 30 MB of it
MAX_PROCESSES = 32  # the kernel does not apply it to a program started by root
SYSTEM_FOLDERS = ("/usr", "/lib", "/lib64", "/bin")

_HARNESS = """
import os, resource, sys
token, seconds, output, space, processes = sys.argv[1], *map(int, sys.argv[2:6])
verdict = os.dup(2)
os.dup2(1, 2)
for limit, value in ((resource.RLIMIT_AS, space), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0),
                     (resource.RLIMIT_FSIZE, output), (resource.RLIMIT_NPROC, processes)):
    resource.setrlimit(limit, (value, value))
line, problem = 0, ""
try:
    exec(compile(sys.stdin.read(), "program.py", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    sys.stdout.flush()
except BaseException as error:
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "program.py":
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, SyntaxError):
        line = error.lineno or 0
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    problem = (type(error).__name__ + ": " + text[:1000]).rstrip(": ")
os.write(verdict, (token + "\\n" + str(line) + "\\n" + problem).encode("utf-8", "replace"))
try:
    sys.stdout.flush()
finally:
    os._exit(0)
"""


def run(code: str, timeout: float, max_output: int) -> tuple[str, str | None, int | None]:
    """Run a program -> (stdout, error or None, line or None). Raises SandboxUnavailable."""
    probe()
    return _run(code, timeout, max_output)


@lru_cache(maxsize=1)
def probe() -> None:
    """Try a tiny program once per process. Raises SandboxUnavailable when it does not come through."""
    if shutil.which("bwrap") is None:
        raise SandboxUnavailable(
            "bubblewrap is not installed; install it (apt install bubblewrap) or use monty"
        )
    stdout, error, _ = _run("print(6 * 7)", 20.0, 4096)
    if stdout != "42\n":
        raise SandboxUnavailable(f"a probe run under bubblewrap failed ({error}); use the monty engine")


def _command(token: str, timeout: float, max_output: int) -> list[str]:
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    folders = list(SYSTEM_FOLDERS)
    for prefix in (sys.base_prefix, sys.base_exec_prefix):
        if not prefix.startswith("/usr"):
            folders.append(prefix)
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--clearenv"]
    command += ["--uid", "65534", "--gid", "65534", "--hostname", "sandbox"]
    for folder in folders:
        command += ["--ro-bind-try", folder, folder]
    command += ["--proc", "/proc", "--dev", "/dev", "--dir", "/tmp", "--chdir", "/tmp"]
    command += ["--remount-ro", "/dev", "--remount-ro", "/"]  # nowhere to write: no disk, no memory to fill
    limits = (int(timeout) + 1, max_output, MAX_ADDRESS_SPACE, MAX_PROCESSES)
    return [*command, python, "-I", "-S", "-B", "-X", "utf8", "-c", _HARNESS, token, *map(str, limits)]


def _run(code: str, timeout: float, max_output: int) -> tuple[str, str | None, int | None]:
    token = secrets.token_hex(16)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as verdict:
        process = subprocess.Popen(
            _command(token, timeout, max_output),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=verdict,
            env={"PATH": os.environ.get("PATH", os.defpath)},
            start_new_session=True,
        )
        try:
            process.communicate(code.encode("utf-8", "replace"), timeout=timeout)
            in_time = True
        except subprocess.TimeoutExpired:
            in_time = False
        finally:
            _kill(process)
        stdout, report = _read(out, max_output), _read(verdict, 8192)
    return stdout, *_judge(
        report, token, in_time, timeout, len(stdout.encode()) >= max_output, process.returncode
    )


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


def _judge(report: str, token: str, in_time: bool, timeout: float, full: bool, code: int):
    """The harness's verdict -> (error or None, line or None)."""
    if not in_time:
        return f"TimeoutError: no end after {timeout:g} s", None
    if full:
        return "OutputError: too much printed", None
    lines = report.split("\n", 2)
    if len(lines) == 3 and lines[0] == token:
        return (lines[2] or None), (int(lines[1]) or None)
    reason = " ".join(report.split()) or f"the program left before its end (status {code})"
    return f"SystemExit: {reason}", None


def _read(file, limit: int) -> str:
    file.seek(0)
    return file.read(limit).decode("utf-8", "replace")
