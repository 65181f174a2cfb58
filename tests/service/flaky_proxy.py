"""A TCP proxy that can cut a connection or damage a byte: the network between a real client and a real server."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Self


class FlakyProxy:
    """Forwards to a port of this machine; use it as a context manager.

    Args:
        port: Where to forward to.
        cut_after: Bytes from the client after which a connection is cut; one entry per connection, then no more.
        flip_at: Position of the byte from the client that is damaged, on the first connection.
        flip_back_at: The same for bytes from the server.
        refuse: How many connections are closed at once.
    """

    def __init__(
        self,
        port: int,
        *,
        cut_after: tuple[int, ...] = (),
        flip_at: int | None = None,
        flip_back_at: int | None = None,
        refuse: int = 0,
    ) -> None:
        self.target = port
        self.connections = 0
        self._cut_after = list(cut_after)
        self._flip_at = flip_at
        self._flip_back_at = flip_back_at
        self._refuse = refuse
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._frozen_until = 0.0
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self.cut()

    def freeze(self, seconds: float) -> None:
        """Lets nothing through for a while, without cutting anything."""
        self._frozen_until = time.monotonic() + seconds

    def cut(self) -> None:
        """Cuts all connections."""
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.connections <= self._refuse:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            self._open += [client, server]
            budget = self._cut_after.pop(0) if self._cut_after else None
            flip, self._flip_at = self._flip_at, None
            flip_back, self._flip_back_at = self._flip_back_at, None
            threading.Thread(target=self._pump, args=(client, server, budget, flip), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, None, flip_back), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, budget: int | None, flip: int | None) -> None:
        seen = 0
        with suppress(OSError):
            while data := source.recv(65536):
                if flip is not None and seen <= flip < seen + len(data):
                    damaged = bytearray(data)
                    damaged[flip - seen] ^= 0xFF
                    data = bytes(damaged)
                seen += len(data)
                if budget is not None and seen > budget:
                    break
                time.sleep(max(0.0, self._frozen_until - time.monotonic()))
                sink.sendall(data)
        for side in (source, sink):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
