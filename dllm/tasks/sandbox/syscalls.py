"""System calls that no program needs and that reach past the jail: the kernel's filter denies them.

Sockets (those of the host's files are seen in any network namespace), new namespaces (whose owner
may mount and fill memory), memory that no limit counts (of System V, of anonymous files), keys,
rings that make calls unseen by a filter, and what reads or drives other processes.

Standard library only, and no import of this project.
"""

import ctypes
import os
import struct
from typing import Any


ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Machine -> (its number in the filter, its column below)."""

DENIED = {
    "socket": (41, 198),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "io_uring_setup": (425, 425),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
}
CLONE, CLONE3 = (56, 220), 435
NEW_NAMESPACES = 0x7E020080  # all flags of clone that ask for one
FOREIGN = 0x40000000  # from here on: calls of another convention on the same machine

LOAD, AT_LEAST, EQUAL, ANY_BIT, RETURN = 0x20, 0x35, 0x15, 0x45, 0x06
ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
NOT_PERMITTED, NOT_KNOWN = ERROR | 1, ERROR | 38


def instructions(machine: str) -> list[tuple[int, int, int, int]]:
    """(code, jump if true, jump if false, number) each, as the kernel reads them."""
    architecture, column = ARCHITECTURES[machine]
    found = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL)]
    found += [(LOAD, 0, 0, 0), (AT_LEAST, 0, 1, FOREIGN), (RETURN, 0, 0, NOT_PERMITTED)]
    for numbers in DENIED.values():
        found += [(EQUAL, 0, 1, numbers[column]), (RETURN, 0, 0, NOT_PERMITTED)]
    # its flags lie in memory, where a filter can't look; libraries fall back on clone
    found += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, NOT_KNOWN)]
    found += [(EQUAL, 0, 3, CLONE[column]), (LOAD, 0, 0, 16)]
    found += [(ANY_BIT, 0, 1, NEW_NAMESPACES), (RETURN, 0, 0, NOT_PERMITTED)]
    return [*found, (RETURN, 0, 0, ALLOW)]


def deny(library: Any) -> None:
    """Filters all further calls of this process and its children; new privileges must be ruled out.

    Raises `OSError` where the platform has no such filter.
    """
    machine = os.uname().machine
    if machine not in ARCHITECTURES:
        raise OSError(f"no list of system calls for {machine}")
    listed = instructions(machine)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in listed))
    header = ctypes.create_string_buffer(
        struct.pack("HxxxxxxQ", len(listed), ctypes.addressof(code))
    )
    if library.prctl(22, 2, header, 0, 0) != 0:
        raise OSError(f"prctl seccomp: {os.strerror(ctypes.get_errno())}")
