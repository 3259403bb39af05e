"""Which connections of a server are open, and which one is closed where there are too many.

A connection whose client has sent half a request, or nothing, costs the client nothing: whoever opens thousands of them
must not keep others out. So few of an address may stay, and where all places are taken, a connection that waits for its
client makes room for a new one. Those that are being answered stay.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Protocol

MOST_CONNECTIONS = 2000  # at once
NUM_RESERVED = 100
"""Connections beyond these while all of them are being answered, for the paths of who restarts the server alone."""
MAX_HALF_OPEN = 100
"""Half-open connections of an address that may stay; a browser opens six ahead of its requests, and many people can
share the address of an office."""
GRACE_SECONDS = 1.0
"""Within which a half-open connection is not counted: of a hundred clients that come at once, all are accepted before
the first request is read."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Connection(Protocol):
    """One of a server's connections, as this module sees it."""

    address: str

    def abort(self) -> None:
        """Close it at once."""


def parse_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address of a client, of IPv4 where it is one within IPv6; None if it has none."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@lru_cache(4096)
def client_group(host: str) -> str:
    """Return what counts as one client: an address of IPv4, or the network of 64 bits that a provider hands out."""
    address = parse_address(host)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address or host)


class Connections:
    """The open connections of one event loop, each in one of four states.

    Half-open: nothing or half a request has come. Idle: the last request is answered. Busy: a request is being
    answered. Unread: its answer is not read by the client.

    Args:
        trusted_proxies: addresses of which any number may be half-open; slow clients behind a proxy are its own affair.
    """

    def __init__(self, trusted_proxies: Sequence[Network] = ()):
        self._trusted_proxies = trusted_proxies
        # Dictionaries for their order: the first entry is the one that has been in its state for longest.
        self._half_open: dict[str, dict[Connection, None]] = {}
        self._slow: dict[str, dict[Connection, None]] = {}
        self._trusted_half_open: dict[Connection, None] = {}
        self._idle: dict[Connection, None] = {}
        self._busy: dict[Connection, None] = {}
        self._unread: dict[Connection, None] = {}
        self._open: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._open)

    def are_too_many(self) -> bool:
        """Return whether some of the reserved places are taken."""
        return len(self._open) > MOST_CONNECTIONS

    def open(self, connection: Connection) -> bool:
        """Take a new connection in, for which an older one may be closed.

        Returns:
            Whether it may ask for anything; if not, only for the paths of who restarts the server.
        """
        if len(self._open) < MOST_CONNECTIONS or self._close_oldest():
            self._open.add(connection)
            self.set_half_open(connection)
            return True
        self._open.add(connection)
        self.set_half_open(connection)
        if len(self._open) > MOST_CONNECTIONS + NUM_RESERVED:
            self._abort(connection)
        return False

    def close(self, connection: Connection) -> None:
        """Forget a connection."""
        self._open.discard(connection)
        self._forget_state(connection)

    def set_half_open(self, connection: Connection) -> None:
        """Note that a client has begun a request."""
        if connection not in self._open:
            return
        self._forget_state(connection)
        if self.is_trusted(connection.address):
            self._trusted_half_open[connection] = None
        else:
            self._half_open.setdefault(client_group(connection.address), {})[connection] = None

    def set_slow(self, connection: Connection) -> None:
        """Count a connection that is half-open for longer than a moment; the oldest one too many is closed."""
        group = client_group(connection.address)
        if connection not in self._half_open.get(group, ()):
            return
        slow = self._slow.setdefault(group, {})
        slow[connection] = None
        if len(slow) > MAX_HALF_OPEN:
            self._abort(next(iter(slow)))

    def set_busy(self, connection: Connection) -> None:
        """Note that a request is being answered."""
        self._move(connection, self._busy)

    def set_unread(self, connection: Connection) -> None:
        """Note that the client does not read its answer."""
        self._move(connection, self._unread)

    def set_idle(self, connection: Connection) -> None:
        """Note that the last request is answered."""
        self._move(connection, self._idle)

    def is_trusted(self, host: str) -> bool:
        """Return whether an address is that of a proxy."""
        address = parse_address(host)
        return address is not None and any(address in network for network in self._trusted_proxies)

    def _move(self, connection: Connection, state: dict[Connection, None]) -> None:
        if connection in self._open and connection not in state:
            self._forget_state(connection)
            state[connection] = None

    def _forget_state(self, connection: Connection) -> None:
        for state in (self._trusted_half_open, self._idle, self._busy, self._unread):
            state.pop(connection, None)
        group = client_group(connection.address)
        for groups in (self._half_open, self._slow):
            members = groups.get(group)
            if members is not None:
                members.pop(connection, None)
                if not members:
                    del groups[group]

    def _close_oldest(self) -> bool:
        """Close a connection that waits for its client, of whom has the most of them; return whether there was one."""
        largest = max(self._half_open.values(), key=len, default=dict[Connection, None]())
        candidates: Iterable[dict[Connection, None]] = (largest, self._idle, self._unread, self._trusted_half_open)
        for candidate in candidates:
            if candidate:
                self._abort(next(iter(candidate)))
                return True
        return False

    def _abort(self, connection: Connection) -> None:
        self.close(connection)
        connection.abort()
