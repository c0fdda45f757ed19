"""Locks this process in and then runs one side: `python -I jail.py program|tests`, on Linux.

The request comes as JSON on stdin. What the jail is made of: namespaces for processes, network,
mounts, IPC and, without root, users (with root: a user of its own); every mount read-only, /proc,
/run and /dev empty, one small temporary folder; an empty environment; limits on CPU time, memory,
file size, files and processes; no capabilities, none to be gained; no system call that reaches past
all this (`syscalls`). All of it ends with its first process, and this one only after it, on SIGTERM
at the latest. Whatever of this the platform denies ends the process before the code is read.

Standard library only, and no import of this project.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any


sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import program  # pyright: ignore[reportMissingImports]
import syscalls  # pyright: ignore[reportMissingImports]
import tests_side  # pyright: ignore[reportMissingImports]
import wire  # pyright: ignore[reportMissingImports]


NAMESPACES = 0x20000 | 0x4000000 | 0x8000000 | 0x20000000 | 0x40000000  # mount uts ipc pid net
USER_NAMESPACE = 0x10000000
FIRST_USER = 60_000  # ids that no account has
PROCESSES = 16
FILES = 64
CAPSET = {"x86_64": 126, "aarch64": 91}.get(os.uname().machine, -1)  # number of the system call
FILE_BYTES = 8 << 20
SCRATCH_BYTES = 16 << 20
SCRATCH_FILES = 4096
READ_ONLY, NO_SET_USER, NO_DEVICES = 1, 2, 4  # flags of mount

LIBC = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> None:
    if result != 0:
        raise OSError(f"{what}: {os.strerror(ctypes.get_errno())}")


def die_with_parent() -> None:
    checked(LIBC.prctl(1, signal.SIGKILL, 0, 0, 0), "prctl")


def enter_namespaces() -> None:
    user, group = os.getuid(), os.getgid()
    flags = NAMESPACES | (USER_NAMESPACE if user else 0)
    checked(LIBC.unshare(flags), "unshare")
    if user:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def show(folder: str) -> None:
    """Makes a folder readable for the jail's user where one above it is closed to him: all else in
    that one is hidden."""
    above = folder.split("/")
    parents = ["/".join(above[:n]) for n in range(2, len(above))]
    closed = next((path for path in parents if not os.stat(path).st_mode & 1), None)
    if closed is None:
        return
    inside = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    made = LIBC.mount(b"tmpfs", closed.encode(), b"tmpfs", 2 | 4, b"mode=755")
    checked(made, f"mount {closed}")
    os.makedirs(folder, 0o755)
    bind = 4096 | 16384
    made = LIBC.mount(f"/proc/self/fd/{inside}".encode(), folder.encode(), None, bind, None)
    checked(made, f"bind {folder}")
    os.close(inside)


def shut_mounts(scratch: str) -> None:
    """Nothing can be written but in `scratch`, and no process or service of the host be found."""
    checked(LIBC.mount(b"none", b"/", None, 16384 | 1 << 18, None), "mount private")
    if os.getuid() == 0:
        show(os.path.realpath(sys.base_prefix))  # the standard library
    read_only = (ctypes.c_uint64 * 4)(1 | 2, 0, 0, 0)  # read-only, no set-user-id
    number = 442  # mount_setattr, the same on every architecture
    checked(LIBC.syscall(number, -100, b"/", 0x8000, read_only, 32), "mount_setattr")
    bare_devices()
    hidden = ["/proc", "/run"]
    room = f"size={SCRATCH_BYTES},nr_inodes={SCRATCH_FILES},mode=777"
    for folder, flags, options in (
        (scratch, 0, room),
        *((folder, READ_ONLY, "mode=555") for folder in hidden if os.path.isdir(folder)),
    ):
        flags |= NO_SET_USER | NO_DEVICES
        made = LIBC.mount(b"tmpfs", folder.encode(), b"tmpfs", flags, options.encode())
        checked(made, f"mount {folder}")


def bare_devices() -> None:
    """Of the devices (terminals, accelerators) only those that hold nothing."""
    kept = [path for path in ("/dev/null", "/dev/zero", "/dev/urandom") if os.path.exists(path)]
    inside = {path: os.open(path, os.O_PATH) for path in kept}
    made = LIBC.mount(b"tmpfs", b"/dev", b"tmpfs", NO_SET_USER, b"mode=755")
    checked(made, "mount /dev")
    for path, file in inside.items():
        os.close(os.open(path, os.O_CREAT))
        made = LIBC.mount(f"/proc/self/fd/{file}".encode(), path.encode(), None, 4096, None)
        checked(made, f"bind {path}")
        os.close(file)
    flags = 32 | 4096 | READ_ONLY | NO_SET_USER  # remount, this place only
    checked(LIBC.mount(b"tmpfs", b"/dev", None, flags, None), "remount /dev")


def set_limits(seconds: int, memory_bytes: int) -> None:
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, FILES),
        (resource.RLIMIT_NPROC, PROCESSES),
        (resource.RLIMIT_AS, memory_bytes),
    ):
        resource.setrlimit(limit, (value, value))


def drop_rights(user: int) -> None:
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    checked(LIBC.prctl(38, 1, 0, 0, 0), "prctl no_new_privs")
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    checked(LIBC.syscall(CAPSET, header, (ctypes.c_uint32 * 6)()), "capset")
    syscalls.deny(LIBC)


def run_side(side: str, request: dict[str, Any]) -> None:
    if side == "program":
        program.serve(request["calls"], request["replies"], request["code"])
    else:
        tests_side.judge(
            request["calls"],
            request["replies"],
            request["verdicts"],
            request["support"],
            request["names"],
            request["tests"],
        )


def as_child(action: Any) -> None:
    """Runs `action` in a child and ends after it; SIGTERM ends it. None of the parent's files stays
    open here."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    child = os.fork()
    if child == 0:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            action()
        finally:
            os._exit(0)
    os.closerange(3, 1 << 16)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.waitpid(child, 0)


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    side, request = sys.argv[1], json.load(sys.stdin)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    try:
        enter_namespaces()
        die_with_parent()
    except OSError as error:
        refuse(request, error)
    user = FIRST_USER + os.getpid() % 5000

    def first_process() -> None:  # all others of its namespace are killed when it ends
        try:
            shut_mounts(request["scratch"])
            os.chdir(request["scratch"])
            set_limits(request["seconds"], request["memory_bytes"])
            drop_rights(user)
            die_with_parent()
        except OSError as error:
            refuse(request, error)
        as_child(lambda: run_side(side, request))

    as_child(first_process)


def refuse(request: dict[str, Any], error: OSError) -> None:
    if "verdicts" in request:
        wire.send(request["verdicts"], ["refused", str(error)])
    os._exit(1)


if __name__ == "__main__":
    main()
