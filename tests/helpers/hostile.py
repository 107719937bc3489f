"""Hostile programs for the sandbox, and a way to run them all as another user.

A program prints ESCAPED where it could do what no program may, and `held N` for N MB of memory that it keeps.
`python hostile.py ENGINE FOLDER` runs the table in one process and prints the results as JSON. What the programs open
for writing they close unwritten, and what they change they change to what it is.
"""

import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SECONDS = {"monty": 0.5, "bubblewrap": 1.5}  # that each program is given
ROOT = Path(__file__).resolve().parents[2]
TRY = """
import ctypes, mmap, os, platform, signal, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == "aarch64"
def escaped(name, action):
    try:
        result = action()
    except (OSError, AttributeError, ValueError, RuntimeError, MemoryError):
        return
    if not (isinstance(result, int) and result < 0):
        print("ESCAPED", name, result)
"""
GROW = """
held = []
def grow(get):
    try:
        for _ in range(8):
            held.append(get(100 * 2**20))
            print("held", 100 * len(held), flush=True)
    except (OSError, MemoryError, ValueError):
        pass
"""

# ------------------------------------------------------- the system below (what was once open, and its neighbours)
SYSTEM = {
    "kernel settings": """
for folder, _, names in os.walk("/proc/sys"):
    for name in names:
        escaped(name, lambda: os.close(os.open(folder + "/" + name, os.O_WRONLY)))
for name in ("sysrq-trigger", "1/mem", "self/mem", "1/oom_score_adj", "irq/default_smp_affinity"):
    escaped(name, lambda: os.close(os.open("/proc/" + name, os.O_WRONLY)))
""",
    "sysfs": """
for folder, _, names in os.walk("/sys"):
    print("ESCAPED", folder)
    break
""",
    "a user namespace": "escaped('unshare', lambda: libc.unshare(0x10000000))",
    "every namespace": """
for bit in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x80):
    escaped(hex(bit), lambda: libc.unshare(bit))
""",
    "a namespace by fork": "escaped('clone', lambda: libc.syscall(220 if ARM else 56, 0x10000011, 0, 0, 0, 0))",
    "a tmpfs": """
libc.unshare(0x10020000)
escaped("mount", lambda: libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None))
escaped("write", lambda: open("/tmp/x", "w"))
""",
    "remounting": """
for flags in (32, 4096, 32 | 4096):
    escaped("remount", lambda: libc.mount(None, b"/", None, flags, None))
escaped("umount", lambda: libc.umount2(b"/tmp", 2))
escaped("open_tree", lambda: libc.syscall(428, -100, b"/", 1))
escaped("fsopen", lambda: libc.syscall(430, b"tmpfs", 0))
""",
    "chroot": "escaped('chroot', lambda: libc.chroot(b'/tmp'))\nescaped('pivot', lambda: libc.syscall(41 if ARM else 155, b'/', b'/tmp'))",
    "rights of devices": """
for path in ("/dev/null", "/dev/zero", "/dev/urandom"):
    mode = os.stat(path).st_mode & 0o7777
    escaped(path, lambda: os.chmod(path, mode))
    escaped(path, lambda: os.chown(path, -1, -1))
""",
    "keys of the host": """
escaped("add_key", lambda: libc.syscall(217 if ARM else 248, b"user", b"kimi", b"x", 1, -2))
escaped("keyctl", lambda: libc.syscall(219 if ARM else 250, 0, -3, 0))
""",
    "other processes": """
escaped("ptrace", lambda: libc.ptrace(16, os.getppid(), 0, 0))
escaped("trace me", lambda: libc.ptrace(0, 0, 0, 0))
escaped("read", lambda: libc.process_vm_readv(os.getppid(), None, 0, None, 0, 0))
escaped("pidfd", lambda: libc.syscall(434, os.getppid(), 0))
""",
    "roads around the filter": """
for number in (425, 426, 427, 433, 435, 442, 447, 452, 463, 1000, 0x40000000 + 57, 0x40000000 + 39, -1):
    escaped(number, lambda: libc.syscall(number, 0, 0, 0, 0, 0, 0))
for number in (321, 298, 323, 310, 311, 304, 303, 153, 169, 246, 175, 313):
    if not ARM:
        escaped(number, lambda: libc.syscall(number, 0, 0, 0, 0, 0, 0))
""",
    "calls of another machine": """
if ARM: sys.exit(1)
code = mmap.mmap(-1, 4096, prot=7)
code.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")  # mov eax, 20 (getpid); int 0x80; ret
print("ESCAPED", ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))())
""",
    "the disk behind the output": """
for mode in (0, 1):
    escaped("fallocate", lambda: libc.fallocate(1, mode, ctypes.c_long(0), ctypes.c_long(2**21)))
import fcntl, struct
escaped("reserve", lambda: fcntl.ioctl(1, 0x40305828, struct.pack("hhqqIi4i", 0, 0, 0, 2**21, 0, 0, 0, 0, 0, 0)))
escaped("verdict", lambda: libc.fallocate(3, 1, ctypes.c_long(0), ctypes.c_long(2**21)))
""",
    "limits raised": """
import resource
for limit in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
    escaped(limit, lambda: resource.setrlimit(limit, (-1, -1)))
escaped("nice", lambda: os.nice(-5))
""",
    "sockets": """
for family in (1, 2, 10, 16, 17, 38, 40, 44):
    for kind in (1, 2, 3, 5):
        escaped((family, kind), lambda: socket.socket(family, kind))
""",
    "a server": "escaped('listen', lambda: socket.create_server(('127.0.0.1', 0)))",
    "message queues": """
escaped("msgget", lambda: libc.msgget(0, 0o1600))
escaped("semget", lambda: libc.semget(0, 1, 0o1600))
escaped("mq_open", lambda: libc.syscall(180 if ARM else 240, b"kimi", 0o102, 0o600, 0))
""",
    "pages kept in pipes": """
read, write = os.pipe()
vector = (ctypes.c_void_p * 2)(ctypes.addressof(ctypes.create_string_buffer(4096)), 4096)
escaped("vmsplice", lambda: libc.vmsplice(write, vector, 1, 0))
escaped("splice", lambda: libc.splice(os.open("/dev/zero", 0), None, write, None, 4096, 0))
""",
    "watches": """
escaped("inotify", lambda: libc.inotify_init1(0))
escaped("fanotify", lambda: libc.fanotify_init(0, 0))
escaped("aio", lambda: libc.syscall(0 if ARM else 206, 100, ctypes.byref(ctypes.c_long(0))))
""",
}
# ------------------------------------------------------------------------------------------ memory, in all
MEMORY = {
    "shared memory, system V": """
def get(size):
    shm = libc.shmget(0, ctypes.c_size_t(size), 0o1600)
    if shm < 0: raise OSError
    libc.shmat.restype = ctypes.c_void_p
    place = libc.shmat(shm, None, 0)
    if place in (None, 2**64 - 1): raise OSError
    ctypes.memset(place, 1, size)
    libc.shmdt(ctypes.c_void_p(place))
    return shm
grow(get)
""",
    "files in memory": """
def get(size):
    fd = os.memfd_create("x")
    for _ in range(size // 2**15):
        os.write(fd, b"x" * 2**15)
        os.lseek(fd, 0, 1)
    return fd
grow(get)
""",
    "shared mappings": """
def get(size):
    shared = mmap.mmap(-1, size)
    shared.write(b"x" * size)
    return shared
grow(get)
""",
    "lists": "grow(bytearray)",
    "children": """
def get(size):
    if os.fork() == 0:
        x = bytearray(size)
        signal.pause()
    return 1
grow(get)
""",
    "children that were given a third each": """
def get(size):
    if os.fork() == 0:
        held.append(bytearray(3 * size))
        signal.pause()
    return 1
grow(get)
""",
    "children of children": """
def get(size):
    held.append(bytearray(size))
    if os.fork() != 0:
        signal.pause()
    return 1
grow(get)
""",
    "files in /dev/shm": """
def get(size):
    with open(f"/dev/shm/{len(held)}", "wb") as file:
        file.write(b"x" * size)
    return 1
grow(get)
""",
    "pipes": """
def get(size):
    import fcntl
    for _ in range(100):
        read, write = os.pipe()
        fcntl.fcntl(write, 1031, 2**20)
        os.set_blocking(write, False)
        os.write(write, b"x" * 2**20)
    return 1
grow(get)
""",
    "endless device": "open('/dev/zero', 'rb').read()",
}
# ------------------------------------------------------------------------ processes, files, time, output, letters
COMMON = {
    "fork bomb": "import os\nwhile True:\n    os.fork()",
    "thread bomb": "import threading, time\nthreading.stack_size(2**15)\nfor _ in range(10**4):\n"
    "    threading.Thread(target=time.sleep, args=(30,)).start()\nprint('ESCAPED')",
    "zombies": "import os\nfor _ in range(100):\n    if os.fork() == 0:\n        os._exit(0)\nprint('ESCAPED')",
    "a child that outlives": "import os, time\nif os.fork() == 0:\n    time.sleep(60)\nprint('ESCAPED')",
    "a process": "import subprocess, sys\nprint('ESCAPED', subprocess.run([sys.executable, '-c', '1']))",
    "a spawned process": "import os\nprint('ESCAPED', os.posix_spawn('/usr/bin/env', ['env'], {}))",
    "a process pool": "from multiprocessing import Pool\nprint('ESCAPED', Pool(2).map(abs, [1]))",
    "a shell": "import os\nos.execv('/bin/sh', ['sh', '-c', 'echo ESCAPED'])",
    "killing": "import os, signal\nfor pid in (1, os.getppid(), -1):\n    os.kill(pid, 9)\nwhile True: pass",
    "killing its group": "import os\nos.killpg(os.getpgrp(), 9)\nwhile True: pass",
    "stopping itself": "import os\nos.kill(os.getpid(), 19)\nprint('ESCAPED')",
    "deaf to signals": "import signal\nfor one in (15, 2, 24, 14):\n    signal.signal(one, signal.SIG_IGN)\nwhile True: pass",
    "a symbolic link": "import os\nos.symlink('FOLDER', '/tmp/x')\nprint('ESCAPED')",
    "a hard link": "import os\nos.link('FOLDER/canary', '/tmp/x')\nprint('ESCAPED')",
    "roads of /proc": "for road in ('/proc/self/root', '/proc/1/root', '/proc/1/cwd', '/proc/self/cwd/../..', '/..'):\n"
    "    try: print('ESCAPED', open(road + 'FOLDER/canary').read())\n    except OSError: pass",
    "a descriptor left open": "import os\nfor fd in range(3, 64):\n    try: print('ESCAPED', fd, os.listdir(fd))\n"
    "    except OSError: pass\nassert False",
    "environment": "import os\nfor name, text in os.environ.items():\n    if name not in ('PWD', 'LC_CTYPE'):\n"
    "        print('ESCAPED', name, text)\nassert False",
    "environment of others": "for pid in ('1', '2', 'self'):\n    try: print('ESCAPED', open(f'/proc/{pid}/environ').read())\n"
    "    except OSError: pass\nassert False",
    "writing anywhere": "import os\nfor folder, _, _ in os.walk('/'):\n"
    "    try: os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR)); print('ESCAPED', folder)\n"
    "    except OSError: pass\n    try: os.mkdir(folder + '/kimi'); print('ESCAPED', folder)\n    except OSError: pass\nassert False",
    "packages beside Python": "import sys\nsys.path += [p + '/site-packages' for p in sys.path] + [p + '/dist-packages' for p in sys.path]\n"
    "sys.path += ['/usr/lib/python3/dist-packages', 'ROOT']\nimport pip\nprint('ESCAPED', pip)",
    "this project": "import sys\nsys.path.append('ROOT')\nimport kimi_mini\nprint('ESCAPED', kimi_mini)",
    "accounts": "print('ESCAPED', open('/etc/passwd').read(), open('/etc/shadow').read())",
    "standard input": "import sys\nfor line in sys.stdin:\n    print('ESCAPED', line)\nprint('ESCAPED', input())",
    "recursion in C": "x = []\nfor _ in range(10**6):\n    x = [x]\nprint('ESCAPED', len(repr(x)))",
    "recursion without a limit": "import sys\nsys.setrecursionlimit(10**9)\ndef f(n):\n    return f(n + 1) + 1\nprint('ESCAPED', f(0))",
    "parentheses": "print('ESCAPED', eval('(' * 10**5 + ')' * 10**5))",
    "signs": "print('ESCAPED', eval('-' * 10**6 + '1'))",
    "a giant power": "print('ESCAPED', len(str(9**9**9)))",
    "a giant shift": "x = 1 << (1 << 40)\nprint('ESCAPED')",
    "a giant factorial": "import math\nprint('ESCAPED', math.factorial(10**8))",
    "a giant text": "print('ESCAPED', len('x' * 10**11))",
    "a giant range": "print('ESCAPED', list(range(10**10)))",
    "a giant format": "print('ESCAPED', len(f'{1:{10**10}}'))",
    "doubling": "x = 'x'\nwhile True:\n    x += x",
    "a regular expression": "import re\nassert not re.match('(a|aa)+$', 'a' * 60 + 'b')\nassert re.match(r'(.*a){20}', 'a' * 60)\n"
    "assert not re.match(r'(x+x+)+y', 'x' * 40)\nassert not re.search(r'((a*)*)*b', 'a' * 5000)\nassert False",
    "sorting": "class A:\n    def __lt__(self, other):\n        while True: pass\nsorted([A(), A()])",
    "never letting go": "while True:\n    try:\n        x = [0] * 10**12\n    except BaseException:\n        pass",
    "a long sleep": "import time\ntime.sleep(10**6)\nassert False",
    "a time bomb": "import threading, time\nthreading.Timer(0.1, print, ['ESCAPED']).start()\nprint('set')",
    "an alarm": "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)\nwhile True: pass",
    "output on all sides": "import os, sys\nwhile True:\n    sys.stdout.write('x' * 999)\n    sys.stderr.write('y' * 999)\n    os.write(2, b'z' * 999)",
    "output past Python": "import os\nwhile True:\n    os.write(1, b'x' * 10**5)",
    "output far away": "import os\nos.lseek(1, 2**40, 0)\nos.write(1, b'ESCAPED')\nos.lseek(1, 0, 0)\nos.write(1, b'ESCAPED')",
    "a forged verdict": "import os\nfor fd in range(3, 20):\n    try: os.write(fd, b'\\n0\\n')\n    except OSError: pass\nos._exit(0)",
    "no descriptors": "import os\nos.closerange(0, 64)",
    "an error that cannot be read": "class E(Exception):\n    def __str__(self): raise self\nraise E",
    "a very long error": "raise Exception('x' * 10**7)",
    "an error in colours": "raise ValueError('\\x1b[2J\\x07\\x00\\x9b31m\\u2028 red \\r\\n next')",
    "an error of surrogates": "raise ValueError('\\ud800')",
    "a dead interpreter": "import ctypes\nctypes.string_at(0)\nprint('ESCAPED')",
    "leaving": "import os\nos._exit(0)",
    "replacing itself": "import os, sys\nos.execv(sys.executable, [sys.executable, '-c', 'print(1)'])",
    "deep lists compared": "x, y = [], []\nfor _ in range(10**6):\n    x, y = [x], [y]\nprint('ESCAPED', x == y)",
    "deep JSON": "import json\nprint('ESCAPED', json.loads('[' * 10**6 + ']' * 10**6))",
    "a list in itself": "x = []\nx.append(x)\nassert x == [x], hash(str(x))\nassert False",
    "a giant pattern": "import re\nre.compile('((((a{1000}){1000}){1000}){1000})')\nassert False",
    "a giant program": "x = [" + "[" * 90 + "]" * 90 + "]\n" + "x = x + 1\n" * 10**5,
    "a deep program": "x = 0" + " + (1" * 10**4 + ")" * 10**4 + "\nprint('ESCAPED', x)",
    "taking the names away": "import builtins, sys\nbuiltins.print = builtins.compile = builtins.type = None\nsys.modules.clear()\nraise KeyError",
}  # fmt: skip

PROGRAMS = {
    **{name: TRY + code + "\nassert False" for name, code in SYSTEM.items()},
    **{name: TRY + GROW + code for name, code in MEMORY.items()},
    **COMMON,
}


def why_no_bubblewrap(**user) -> str:
    """Why the second engine is not to be had here, or "": found without the engine, so that one that broke is no reason."""
    if platform.machine() not in ("x86_64", "aarch64"):
        return f"no list of system calls for {platform.machine()}"
    command = "bwrap --unshare-all --unshare-user --disable-userns --ro-bind / / true".split()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", **user)
    except OSError as error:
        return f"bubblewrap cannot be started: {error}"
    return done.stderr.strip()


def run_all(engine: str, folder: str) -> dict[str, dict]:
    """Program -> how it ended. `folder` holds a file `canary` that no program may read."""
    from kimi_mini.worlds.tools import run_python

    def run(code: str) -> dict:
        code = code.replace("FOLDER", folder).replace("ROOT", str(ROOT))
        return vars(run_python(code, SECONDS[engine], engine))

    with ThreadPoolExecutor(4) as threads:
        return dict(zip(PROGRAMS, threads.map(run, PROGRAMS.values())))


def run_as(user: str, engine: str, folder: Path) -> dict[str, dict]:
    """`run_all` in a process of its own that belongs to `user`, "root" or "nobody".

    Raises LookupError with the reason where this user, or this engine, is not to be had here.
    """
    if user == "root" and os.geteuid() != 0:
        raise LookupError("not root")
    options: dict = {}
    if user == "nobody" and os.geteuid() == 0:
        options = {"user": 65534, "group": 65534, "extra_groups": []}
    packages = [path for path in sys.path if path.endswith("-packages")]
    if engine == "bubblewrap" and why_no_bubblewrap(**options):
        raise LookupError(why_no_bubblewrap(**options))
    environment = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *packages]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": os.environ["PATH"],
        "MONTY_BIN": str(Path(sys.executable).parent / "monty"),
    }
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            trial = [python, "-c", "import sys, kimi_mini.worlds.tools; print(sys.version_info[:2])"]
            answer = subprocess.run(
                trial, capture_output=True, text=True, env=environment, cwd="/", check=False, **options
            )
        except OSError:
            continue
        if answer.stdout.strip() == str(sys.version_info[:2]):
            command = [python, __file__, engine, str(folder)]
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                env=environment,
                cwd="/",
                check=False,
                timeout=500,
                **options,
            )
            if done.returncode:
                raise RuntimeError(done.stderr)
            return json.loads(done.stdout)
    raise LookupError(f"no Python here that {user} may start")


if __name__ == "__main__":
    print(json.dumps(run_all(*sys.argv[1:])))
