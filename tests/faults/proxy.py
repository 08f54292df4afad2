"""A TCP proxy whose connections can be reset, as a network resets them."""

import contextlib
import socket
import struct
import threading

RESET = struct.pack("ii", 1, 0)  # linger on, 0 s: close sends RST and drops what is not sent


class Proxy:
    """Listens on a free port of an address of this machine and passes on to another."""

    def __init__(self, target_port: int, address: str = "127.0.0.1") -> None:
        self._target = target_port
        self._listening = socket.create_server((address, 0))
        self.port = int(self._listening.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self) -> int:
        """Reset every connection that is open; returns how many."""
        with self._lock:
            doomed, self._open = self._open, set()
        for connection in doomed:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                connection.shutdown(socket.SHUT_RD)
            connection.close()
        return len(doomed) // 2

    def close(self) -> None:
        """Take no more, and reset what there is."""
        self._listening.close()
        self.reset()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                here, _ = self._listening.accept()
                try:
                    there = socket.create_connection(("127.0.0.1", self._target), timeout=5)
                except OSError:
                    here.close()
                    continue
                there.settimeout(None)
                with self._lock:
                    self._open |= {here, there}
                for one, other in ((here, there), (there, here)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := one.recv(65536):
                other.sendall(piece)
        with self._lock:
            self._open -= {one, other}
        for each in (one, other):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
