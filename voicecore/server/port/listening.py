"""The sockets that a server listens on, and how many it may have."""

from __future__ import annotations

import errno
import resource
import socket

import trio

from ...errors import CannotListen

BACKLOG = 1024


async def listen(host: str, port: int, *, share: bool) -> list[trio.SocketListener]:
    """Bind and listen; with `share`, other workers may listen on the same port (SO_REUSEPORT).

    An empty host means every address of the machine.

    Raises:
        CannotListen: the port is taken, or the host is not ours.
    """
    where = f"{host or '*'}:{port}"
    try:
        found = await trio.socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise CannotListen(f"cannot listen on {where}: {error.strerror}") from None
    listeners: list[trio.SocketListener] = []
    try:
        for family, kind, proto, _, address in found:
            listeners.append(await _bound(trio.socket.socket(family, kind, proto), address, share))
    except OSError as error:
        for listener in listeners:
            listener.socket.close()
        taken = error.errno == errno.EADDRINUSE
        why = "address already in use" if taken else (error.strerror or str(error)).lower()
        raise CannotListen(f"cannot listen on {where}: {why}") from None
    return listeners


async def _bound(
    sock: trio.socket.SocketType, address: tuple[object, ...], share: bool
) -> trio.SocketListener:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        await sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return trio.SocketListener(sock)


def file_limit() -> int:
    """Return how many descriptors this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_file_limit() -> None:
    """Allow this process as many descriptors as it may allow itself: a call needs several."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass  # the system has its own idea; the soft limit stays
