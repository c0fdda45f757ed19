"""Hostile and careless programs: none may pass, outlive its judgement, or touch what is not its."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dllm.errors import ConfigError
from dllm.tasks.sandbox import sandbox
from dllm.tasks.sandbox.sandbox import Judgement, Result, Sandbox


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's namespaces")

BOX = Sandbox(seconds=5, memory_mb=256)
BRIEF = Sandbox(seconds=1, memory_mb=256)


def judged(body: str, tests: str = "assert f(1) == 2", box: Sandbox = BOX) -> Judgement:
    """A program whose `f` has the given body."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return box.judge(code=f"import os, sys\ndef f(x):\n{lines}", tests=tests)


def test_right_and_wrong() -> None:
    assert judged("return x + 1") == Judgement(Result.PASSED)
    assert judged("return x").result is Result.FAILED
    assert judged("raise KeyError(x)").reason.startswith("KeyError")
    assert BOX.judge(code="def f(x) return", tests="f(1)").reason.startswith("SyntaxError")
    assert BOX.judge(code="g = 1", tests="assert f(1) == 2").reason.startswith("NameError")


VALUES = (
    "None, True, 7, 2.5, 1 + 2j, 'a\\ud800', b'x', [1, (2,)], {3}, frozenset({4}), {(1, 2): [5]}, "
    "range(3), 10 ** 9000, float('inf')"
)


def test_values_arrive_as_they_are() -> None:
    tests = f"for value in ({VALUES}):\n    got = f(value)\n    assert got == value, value\n"
    tests += "    assert type(got) is type(value), value"
    assert judged("return x", tests) == Judgement(Result.PASSED)


def test_library_values_iterators_and_subclasses_arrive_as_plain_ones() -> None:
    code = """
from collections import Counter, namedtuple
from decimal import Decimal
from fractions import Fraction
P = namedtuple("P", "x y")
def f(): return [Counter("aa"), P(1, 2), Decimal("0.1"), Fraction(1, 3)]
def g(): return (i for i in range(3))
"""
    tests = """
from decimal import Decimal
from fractions import Fraction
assert f() == [{"a": 2}, (1, 2), Decimal("0.1"), Fraction(1, 3)]
assert list(g()) == [0, 1, 2]
"""
    assert BOX.judge(code=code, tests=tests) == Judgement(Result.PASSED)


def test_objects_stay_in_the_program_and_can_be_handed_back() -> None:
    code = """
class Node:
    def __init__(self, value): self.value, self.left = value, None
def depth(node): return 0 if node is None else 1 + depth(node.left)
"""
    tests = "n = Node(1)\nn.left = Node(2)\nassert depth(n) == 2 and n.left.value == 2"
    assert BOX.judge(code=code, tests=tests) == Judgement(Result.PASSED)


def test_exceptions_keep_their_type() -> None:
    tests = "try:\n    f(1)\nexcept ZeroDivisionError:\n    pass\nelse:\n    assert False"
    assert judged("return 1 // 0", tests) == Judgement(Result.PASSED)


# What only pretends to pass ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "class Equal:\n    __eq__ = lambda *a: True\n    __bool__ = lambda a: True\n"
        "def f(x): return Equal()",
        "class Equal(int):\n    __eq__ = lambda *a: True\ndef f(x): return Equal(0)",
        "import builtins\nbuiltins.AssertionError = None\nbuiltins.__build_class__ = None\n"
        "def f(x): return 0",
        "import sys\nsys.excepthook = lambda *a: None\ndef f(x): return 0",
        "import os\nos._exit(0)",
        "import os\ndef f(x): os._exit(0)",
        "import sys\ndef f(x): sys.exit(0)",
        "def f(x):\n    print('passed')\n    return 0",
        # a verdict of its own on every pipe it can find
        "import os, json, struct\n"
        "data = json.dumps(['passed']).encode()\n"
        "for pipe in range(3, 64):\n"
        "    try: os.write(pipe, struct.pack('>I', len(data)) + data)\n"
        "    except OSError: pass\n"
        "def f(x): return 2",
        # its judge's memory, were it within reach
        "import gc, sys\n"
        "frame = sys._getframe()\n"
        "while frame.f_back: frame = frame.f_back\n"
        "frame.f_globals.clear()\n"
        "def f(x): return 0",
        "def len(x): return 2\ndef f(x): return 0",
        # answers sent before they are asked for
        "import os, json, struct\n"
        "for pipe in range(3, 64):\n"
        "    for reply in (['value', ['list', []]], ['value', ['int', '0x3']]):\n"
        "        data = json.dumps(reply).encode()\n"
        "        try: os.write(pipe, struct.pack('>I', len(data)) + data)\n"
        "        except OSError: pass\n",
        "import os\n"
        "def f(x):\n"
        "    for pipe in range(3, 64):\n"
        "        try: os.write(pipe, b'\\xff' * 100)\n"
        "        except OSError: pass\n"
        "    return 2",
        "class Two(dict):\n    __class__ = int\n    __index__ = lambda a: 2\n"
        "def f(x): return Two()",
        "class Silent(Exception):\n    def __str__(self): raise SystemExit\ndef f(x): raise Silent",
        "def f(x):\n    x = []\n    x.append(x)\n    return x",
        "def f(x): return '\ud800'",
        "(" * 200_000,
        "def f(x): return 2\0",
    ],
)
def test_pretending_is_not_passing(code: str) -> None:
    assert BOX.judge(code=code, tests="assert f(1) == 2").result is not Result.PASSED


def test_built_in_names_are_not_taken_from_the_program() -> None:
    code = "def len(x): return 5\nimport math\nmath.floor = lambda x: 5\ndef f(x): return [x]"
    tests = "assert len(f(1)) == 1 and math.floor(1.5) == 1"
    assert BOX.judge(code=code, tests=tests) == Judgement(Result.PASSED)


@pytest.mark.parametrize("support", ["import math", ""])
def test_an_object_named_as_a_library_decides_no_test(support: str) -> None:
    code = "class math: isclose = staticmethod(lambda *a: True)\ndef f(x): return 0.0"
    found = BOX.judge(code=code, tests="assert math.isclose(f(5), 78.5)", support=support)
    assert found.result is Result.FAILED


def test_names_of_the_support_are_not_taken_from_the_program() -> None:
    code = "def close(a, b): return True\ndef f(x): return 0.0"
    support = "def close(a, b): return abs(a - b) < 1e-6"
    assert BOX.judge(code=code, tests="assert close(f(5), 78.5)", support=support).result is (
        Result.FAILED
    )


def test_the_tests_are_nowhere_in_the_program() -> None:
    body = (
        "import gc\n"
        "texts = [o for o in gc.get_objects() if isinstance(o, dict)]\n"
        "return any('S3CRET' in repr(t.get('tests', '')) for t in texts)"
    )
    assert judged(body, "assert f('S3C' + 'RET') is False").result is Result.PASSED


# What takes too much ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "import time\ntime.sleep(60)",
        "import signal\nfor s in range(1, 32):\n    try: signal.signal(s, lambda *a: None)\n"
        "    except (OSError, ValueError): pass\nwhile True: pass",
    ],
)
def test_endless_programs_end(body: str) -> None:
    assert judged(body, box=BRIEF).result is Result.TIMEOUT


@pytest.mark.parametrize(
    "body",
    [
        "return bytearray(1 << 30)",
        "data = [0]\nwhile True: data += data",
        "return f(x)",
        "return 'x' * (1 << 25)",
        "while True: os.open('/dev/null', 0)",
        "for n in range(100):\n    with open(str(n), 'wb') as file: file.write(bytes(1 << 20))",
        "with open('big', 'wb') as file:\n    for _ in range(100): file.write(bytes(1 << 20))",
        "nested = []\nfor _ in range(100000): nested = [nested]\nreturn nested",
        "import itertools\nreturn itertools.count()",
    ],
)
def test_too_much_of_anything_is_a_failure(body: str) -> None:
    assert judged(body).result is Result.FAILED


def test_floods_of_output_are_nothing() -> None:
    body = "for _ in range(1000): print('x' * 10000); print('y' * 10000, file=sys.stderr)\nreturn 2"
    assert judged(body).result is Result.PASSED


def processes_of(user: range) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid in user:
                found.append(int(entry.name))
        except FileNotFoundError:
            pass
    return found


def test_a_fork_bomb_is_small_and_leaves_nothing() -> None:
    body = "while True:\n    try: os.fork()\n    except OSError: pass"
    assert judged(body, box=BRIEF).result is Result.TIMEOUT
    if os.getuid() == 0:
        assert processes_of(range(60_000, 65_000)) == []
    assert judged("return x + 1").result is Result.PASSED


def test_a_background_process_does_not_outlive_its_program() -> None:
    body = "if os.fork() == 0:\n    os.setsid()\n    while True: pass\nreturn 2"
    assert judged(body).result is Result.PASSED
    if os.getuid() == 0:
        assert processes_of(range(60_000, 65_000)) == []


# What is not its own ----------------------------------------------------------------------------


def test_signals_reach_no_one_outside() -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda *_: got.append(1))
    try:
        body = (
            "import signal\n"
            f"for pid in (os.getppid(), {os.getpid()}, {os.getppid()}, 1, -1):\n"
            "    try: os.kill(pid, signal.SIGTERM)\n"
            "    except OSError: pass\n"
            "return 2"
        )
        assert judged(body, box=BRIEF).result in Result  # it may have ended itself
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == []


def test_files_can_be_neither_written_nor_deleted(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("kept")
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/") and folder.stat().st_uid == os.getuid():
            folder.chmod(folder.stat().st_mode | 0o005)
    kept.chmod(0o666)
    tmp_path.chmod(0o777)
    body = (
        "done = []\n"
        f"for act in (lambda: os.remove({str(kept)!r}), lambda: open({str(kept)!r}, 'w'),\n"
        f"            lambda: open({str(tmp_path / 'new')!r}, 'w'),\n"
        "            lambda: open('/tmp/new', 'w'),\n"
        "            lambda: open('/dev/shm/new', 'w'), lambda: os.mkdir('/var/tmp/new')):\n"
        "    try: act()\n"
        "    except OSError: continue\n"
        "    done.append(act)\n"
        "return len(done)"
    )
    assert judged(body, "assert f(1) == 0") == Judgement(Result.PASSED)
    assert kept.read_text() == "kept" and list(tmp_path.iterdir()) == [kept]


def test_a_folder_of_its_own_is_there_and_goes() -> None:
    body = "import tempfile\nwith tempfile.TemporaryFile() as f: f.write(b'a')\nreturn os.getcwd()"
    folder = BOX.judge(
        code=f"import os\ndef f(x):\n    {body.replace(chr(10), chr(10) + '    ')}",
        tests="raise ValueError(f(1))",
    ).reason.removeprefix("ValueError: ")
    assert folder.startswith("/") and not Path(folder).exists()


def test_the_environment_and_other_processes_cannot_be_read(monkeypatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    body = (
        "seen = dict(os.environ)\n"
        "pids = [n for n in os.listdir('/proc') if n.isdigit()]\n"
        "return 'SECRET_TOKEN' in seen or bool(pids)"
    )
    assert judged(body, "assert f(1) is False") == Judgement(Result.PASSED)


def test_there_is_no_network() -> None:
    body = (
        "import socket\n"
        "try:\n"
        "    socket.create_connection(('127.0.0.1', x), timeout=1)\n"
        "except OSError:\n"
        "    return 0\n"
        "return -1"
    )
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert judged(body, f"assert f({port}) == 0") == Judgement(Result.PASSED)


def test_it_is_no_user_that_may_do_anything() -> None:
    body = (
        "import ctypes\n"
        "tried = [lambda: os.setuid(0), lambda: os.chown('/', 0, 0), lambda: os.chroot('/')]\n"
        "done = ctypes.CDLL(None).mount(b'none', b'/', None, 32, None) == 0\n"
        "for act in tried:\n"
        "    try: act()\n"
        "    except OSError: continue\n"
        "    done = True\n"
        "return done"
    )
    assert judged(body, "assert f(1) is False") == Judgement(Result.PASSED)


CALLS = """
import ctypes, os, platform
C = ctypes.CDLL(None, use_errno=True)
C.syscall.restype = ctypes.c_long
"""


@pytest.mark.parametrize(
    "act",
    [
        "__import__('socket').socket(__import__('socket').AF_UNIX)",
        "os.memfd_create('unbounded')",
        "C.unshare(0x10000000)",  # a user namespace, in which it may mount
        "C.shmget(0, 1 << 20, 0o1777)",
        "C.msgget(0, 0o1777)",
        "C.ptrace(0, 0, 0, 0)",
        "C.syscall(425, 4, ctypes.create_string_buffer(256))",  # io_uring_setup
        "C.syscall({'x86_64': 250, 'aarch64': 219}[platform.machine()], 0, -3, 1, 0, 0)",  # keyctl
        "C.syscall({'x86_64': 56, 'aarch64': 220}[platform.machine()], 0x10000011, 0, 0, 0, 0)",
        "os.chmod('/dev', 0o777)",
        "os.chmod('/run', 0o777)",
        "[open(str(n), 'w').close() for n in range(5000)]",  # files without a byte
        "os.open('/dev/ptmx', os.O_RDWR)",
    ],
)
def test_no_way_past_the_jail(act: str) -> None:
    code = (
        f"{CALLS}\n"
        "def f():\n"
        "    try:\n"
        f"        found = {act}\n"
        "    except OSError:\n"
        "        return True\n"
        "    return found == -1"
    )
    assert BOX.judge(code=code, tests="assert f() is True") == Judgement(Result.PASSED)


def test_sockets_in_the_files_of_the_host_are_out_of_reach() -> None:
    import socket

    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        os.chmod(folder, 0o755)
        server.bind(f"{folder}/agent")
        os.chmod(f"{folder}/agent", 0o777)
        server.listen()
        body = (
            "import socket\n"
            "try:\n"
            "    s = socket.socket(socket.AF_UNIX)\n"
            "    return s.connect_ex(x) == 0\n"
            "except OSError:\n"
            "    return False"
        )
        tests = f"assert f({server.getsockname()!r}) is False"
        assert judged(body, tests) == Judgement(Result.PASSED)


def test_threads_and_pairs_of_sockets_are_still_to_be_had() -> None:
    body = (
        "import asyncio, threading\n"
        "found = []\n"
        "thread = threading.Thread(target=lambda: found.append(asyncio.run(asyncio.sleep(0, x))))\n"
        "thread.start()\n"
        "thread.join()\n"
        "return found[0] + 1"
    )
    assert judged(body) == Judgement(Result.PASSED)


# What the platform denies -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "denied", "named"),
    [
        ("flags = NAMESPACES |", "flags = 1 |", "unshare"),
        ("prctl(22, 2,", "prctl(22, 9,", "prctl seccomp"),
        ('"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)', "", "no list of system calls"),
    ],
)
def test_a_denied_jail_is_refused_not_run(
    part: str, denied: str, named: str, tmp_path: Path, monkeypatch
) -> None:
    folder = Path(sandbox.__file__).parent
    for file in folder.glob("*.py"):
        (tmp_path / file.name).write_text(file.read_text().replace(part, denied))
    monkeypatch.setattr(sandbox, "JAIL", tmp_path / "jail.py")
    found = judged("return x + 1")
    assert found.result is Result.REFUSED and found.reason.startswith(named)
    with pytest.raises(ConfigError, match=rf"not to be had here \({named}"):
        BOX.check()


def test_other_systems_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ConfigError, match="only Linux"):
        BOX.check()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become someone else")
def test_without_root_it_is_the_same() -> None:
    program = (
        "from dllm.tasks.sandbox.sandbox import Sandbox, Result\n"
        "box = Sandbox(seconds=5, memory_mb=256)\n"
        "right = box.judge(code='def f(): return 1', tests='assert f() == 1')\n"
        "wrong = box.judge(code='import os\\ndef f():\\n    try: os.chmod(\"/run\", 0o777)\\n'\n"
        "    '    except OSError: return os.listdir(\"/proc\")', tests='assert f() == []')\n"
        "print(right.result, wrong.result, right.reason)"
    )

    def as_nobody(code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["python3", "-c", code],  # the system's: ours may be readable by root only
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            text=True,
            cwd="/",
            env={"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": "/usr/bin:/usr/local/bin"},
        )

    if as_nobody("import sys, dllm.tasks.sandbox.sandbox").returncode != 0:
        pytest.skip("no interpreter that anyone may use, or this folder is closed")
    result = as_nobody(program)
    words = result.stdout.split()
    if words[:1] == ["refused"]:
        pytest.skip(f"no namespaces without root here: {result.stdout}")
    assert words == ["passed", "passed"], result.stdout + result.stderr


@pytest.mark.parametrize(("seconds", "memory_mb"), [(0, 256), (-1.0, 256), (1, 10)])
def test_limits_are_checked(seconds: float, memory_mb: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        Sandbox(seconds=seconds, memory_mb=memory_mb)
