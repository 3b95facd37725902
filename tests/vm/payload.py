"""Suspicious processes that do no harm, in the guest of tests/vm/run.sh.

payload.py [--uid UID] listen ADDRESS PORT | sctp-listen ADDRESS PORT |
           sctp-connect ADDRESS PORT | packet | memfd | vast | hang
"""

import errno
import os
import socket
import struct
import sys
import time

SO_ATTACH_FILTER = 26
ETH_P_ALL = 0x0003
MAP_PRIVATE, MAP_NORESERVE, PROT_READ, PROT_WRITE = 0x02, 0x4000, 1, 2
CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x20000
FUSE_GETATTR, FUSE_OPEN, FUSE_READ, FUSE_INIT = 3, 14, 15, 26
PAGE = 4096


def opened(kind, address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    protocol = socket.IPPROTO_SCTP if kind.startswith("sctp") else 0
    opened = socket.socket(family, socket.SOCK_STREAM, protocol)
    if kind.endswith("connect"):
        opened.connect((address, port))
    else:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((address, port))
        opened.listen()
    return opened


def packet():
    """Sees every packet, through a filter of two instructions that takes none."""
    import ctypes

    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    program = struct.pack("HBBI", 0x28, 0, 0, 12) + struct.pack("HBBI", 0x06, 0, 0, 0)
    held = ctypes.create_string_buffer(program)
    sniffer.setsockopt(
        socket.SOL_SOCKET,
        SO_ATTACH_FILTER,
        struct.pack("HL", 2, ctypes.addressof(held)),
    )
    return sniffer


def memfd():
    program = os.memfd_create("payload")
    with open("/bin/sleep", "rb") as source:
        os.write(program, source.read())
    os.execve(program, ["payload", "3600"], {})


def vast():
    """Has 600 GB of addresses and hardly any memory."""
    import mmap

    return [
        mmap.mmap(-1, 60 << 30, MAP_PRIVATE | MAP_NORESERVE, PROT_READ)
        for _ in range(10)
    ]


def answered(fuse):
    """Serves a file system of one file whose content never comes."""
    while True:
        request = os.read(fuse, 1 << 17)
        _, opcode, unique = struct.unpack_from("<IIQ", request)
        if opcode == FUSE_READ:
            continue
        body = {
            FUSE_INIT: struct.pack("<IIIIHHI", 7, 31, 0, 0, 1, 1, 4096) + bytes(40),
            FUSE_GETATTR: struct.pack("<QII", 3600, 0, 0)
            + struct.pack("<QQQQQQ", 1, PAGE, 8, 0, 0, 0)
            + struct.pack("<IIIIIIIIII", 0, 0, 0, 0o100444, 1, 0, 0, 0, PAGE, 0),
            FUSE_OPEN: struct.pack("<QII", 1, 0, 0),
        }.get(opcode)
        error = 0 if body is not None else -errno.ENOSYS
        body = body or b""
        os.write(fuse, struct.pack("<IiQ", 16 + len(body), error, unique) + body)


def hang():
    """Keeps the lock of its own memory: one thread reads a page that never
    comes and holds it, the other waits to change it, and whoever wants to read
    the arguments waits behind. Any account can do that."""
    import ctypes
    import mmap
    import threading

    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) == -1:
        raise OSError(ctypes.get_errno(), "unshare")
    maps = [("uid_map", f"0 {uid} 1"), ("setgroups", "deny"), ("gid_map", f"0 {gid} 1")]
    for name, text in maps:
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    # A file system whose root is a file, so it is mounted over one.
    place = f"/tmp/hang-{os.getpid()}"
    open(place, "w").close()
    fuse = os.open("/dev/fuse", os.O_RDWR)
    words = f"fd={fuse},rootmode=100000,user_id=0,group_id=0".encode()
    if libc.mount(b"hang", place.encode(), b"fuse", 0, words) == -1:
        raise OSError(ctypes.get_errno(), "mount")
    # Before it is mounted, nothing can be read there.
    server = os.fork()
    if server == 0:
        answered(fuse)
    # Who ends the server, ends the hang.
    os.close(fuse)
    file = os.open(place, os.O_RDONLY)
    # mmap.mmap asks for the size, without which there is nothing to wait for.
    mapped = mmap.mmap(file, PAGE, MAP_PRIVATE, PROT_READ | PROT_WRITE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    memory = os.open("/proc/self/mem", os.O_RDONLY)
    threading.Thread(target=os.pread, args=(memory, 1, address)).start()
    time.sleep(1)
    print(os.getpid(), "hangs", server, flush=True)
    mmap.mmap(-1, PAGE)


def main(arguments):
    uid = None
    if arguments[0] == "--uid":
        uid, arguments = int(arguments[1]), arguments[2:]
    kind = arguments[0]
    held = packet() if kind == "packet" else None
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    if kind == "memfd":
        memfd()
    if kind == "hang":
        hang()
    if kind == "vast":
        held = vast()
    if "listen" in kind or "connect" in kind:
        held = opened(kind, arguments[1], int(arguments[2]))
    # A listener takes what comes, so that its connections are whole.
    taken = []
    while kind.endswith("listen"):
        taken.append(held.accept())
    while True:
        time.sleep(3600)


main(sys.argv[1:])
