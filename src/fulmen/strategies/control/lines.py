"""How processes notice that another one is gone: a connection that its end closes, whatever ended it.

Rank 0 keeps one to each of the others. A process that leaves on purpose says so first. The operating system closes the
connections of a process that is killed at once, and those of a machine that is gone after half a minute.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import struct
import weakref
from typing import Any

_GOODBYE = b"goodbye"
_WELCOME = b"W"
_TIME_TO_CONNECT = 10.0  #: seconds
_all_lines: weakref.WeakSet[Lines] = weakref.WeakSet()


class Lines:
    """The connections of this process that tell who is there. Used by one thread.

    Args:
        store: a connection to the store that all processes share.
        prefix: of the keys in it.
        rank: this process's number.
    """

    def __init__(self, store: Any, prefix: str, rank: int) -> None:
        self._store, self._key, self._rank = store, f"{prefix}/line", rank
        self._host = getattr(innermost(store), "host", "")
        self._listener: socket.socket | None = None
        self._token = b""
        self._strangers: list[socket.socket] = []
        self._lines: dict[socket.socket, int] = {}  #: and the rank at the other end
        self._unread: dict[int, bytes] = {}  #: the beginning of a message, by rank
        self.told: list[str] = []  #: messages that have come
        self.left: set[int] = set()  #: who has said goodbye
        self.gone: set[int] = set()  #: who has not
        _all_lines.add(self)
        if rank == 0:
            self._listen()

    def _listen(self) -> None:
        if socket.has_dualstack_ipv6():
            self._listener = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
        else:
            self._listener = socket.create_server(("", 0), backlog=4096)
        self._listener.setblocking(False)
        self._token = secrets.token_bytes(16)
        self._store.set(self._key, f"{self._listener.getsockname()[1]} {self._token.hex()} {socket.gethostname()}")

    def connect(self) -> bool:
        """Connect to rank 0; False if it does not listen yet. A machine that cannot be reached is left alone."""
        if self._rank == 0 or self._lines:
            return True
        if not self._store.check([self._key]):
            return False
        port, token, name = self._store.get(self._key).decode().split()
        for host in dict.fromkeys((self._host or name, name)):  # the store is at rank 0, as a rule
            try:
                line = socket.create_connection((host, int(port)), timeout=_TIME_TO_CONNECT)
                line.sendall(bytes.fromhex(token) + struct.pack("!i", self._rank))
                if line.recv(1) == _WELCOME:
                    _keep_alive(line)
                    self._lines[line] = 0
                    break
                line.close()
            except OSError:
                continue
        return True

    @property
    def sockets(self) -> list[socket.socket]:
        """What to wait for; then call :meth:`read`."""
        listener = [self._listener] if self._listener is not None else []
        return [*listener, *self._strangers, *self._lines]

    def read(self, ready: list[Any]) -> None:
        """Take what has come."""
        for one in ready:
            if one is self._listener:
                self._accept(one)
            elif one in self._strangers:
                self._welcome(one)
            elif one in self._lines and not self._hears(one):
                rank = self._lines.pop(one)
                one.close()
                if rank not in self.left:
                    self.gone.add(rank)

    def _accept(self, listener: socket.socket) -> None:
        try:
            line, _ = listener.accept()
        except OSError:
            return
        line.settimeout(1.0)
        self._strangers.append(line)

    def _welcome(self, line: socket.socket) -> None:
        self._strangers.remove(line)
        try:
            said = line.recv(len(self._token) + 4)
            if len(said) == len(self._token) + 4 and secrets.compare_digest(said[:-4], self._token):
                line.sendall(_WELCOME)
                _keep_alive(line)
                self._lines[line] = struct.unpack("!i", said[-4:])[0]
                return
        except OSError:
            pass
        line.close()

    def _hears(self, line: socket.socket) -> bool:
        try:
            said = line.recv(65536)
        except OSError:
            return False
        rank = self._lines[line]
        *messages, self._unread[rank] = (self._unread.get(rank, b"") + said).split(b"\n")
        for message in messages:
            if message == _GOODBYE:
                self.left.add(rank)
            else:
                self.told.append(message.decode())
        return said != b""

    def tell(self, message: str) -> None:
        """Send a line of text to all that are connected: rank 0 to everybody, the others to rank 0."""
        self._send(message.encode())

    def _send(self, message: bytes) -> None:
        for line in self._lines:
            with contextlib.suppress(OSError):
                line.sendall(message + b"\n")

    def close(self, goodbye: bool = True) -> None:
        """Let go of all connections; with ``goodbye``, nobody takes it for an accident."""
        if goodbye:
            self._send(_GOODBYE)
        self._close_all()

    def _close_all(self) -> None:
        for one in self.sockets:
            one.close()
        self._listener = None
        self._strangers, self._lines = [], {}


def innermost(store: Any) -> Any:
    """The store that ``store`` gives other names to, or itself."""
    while hasattr(store, "underlying_store"):
        store = store.underlying_store
    return store


def _keep_alive(line: socket.socket) -> None:
    line.settimeout(1.0)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _forget_in_child() -> None:
    for lines in list(_all_lines):  # or a data worker that outlives its process would keep its connections open
        lines._close_all()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
