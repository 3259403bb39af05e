"""The open connections of a server, and which of them is closed if there are too many.

A connection on which half a request or nothing was sent costs its client nothing, and a client that opens thousands of
them must not keep others out. So each address may have few of them. If all places are taken, a connection that waits
for its client is closed in favour of a new one. Connections with a request that is being answered stay.
"""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

MAX_CONNECTIONS = 2000  # each takes an open file and some buffers
# Connections beyond these, while all of them are being answered, that may ask for `PROBE_PATHS` only. Otherwise a full
# server would look like a dead one and be restarted.
NUM_RESERVED = 100
# Half-open connections that an address may have for longer than `GRACE_SECONDS`. A browser opens six ahead of its
# requests, and many people can share the address of an office.
MAX_HALF_OPEN = 100
# For so long a half-open connection is not counted: when a hundred clients come at once, all are accepted before the
# first request is read.
GRACE_SECONDS = 1.0
CACHED_GROUPS = 4096  # addresses whose group is remembered
IPV6_PREFIX_LENGTH = 64  # bits of the network that a provider gives to one client

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Connection(Protocol):
    """A connection of the server."""

    address: str

    def abort(self) -> None:
        """Close the connection at once."""


def parse_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address of a client, an IPv4 address within IPv6 as IPv4; None if `host` is no address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@lru_cache(CACHED_GROUPS)
def client_group(host: str) -> str:
    """Return what counts as one client: an IPv4 address, or the network of an IPv6 address."""
    address = parse_address(host)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, IPV6_PREFIX_LENGTH), strict=False))
    return str(address or host)


class Connections:
    """The open connections of one event loop, each in one of four states.

    Half-open: nothing or a part of a request has arrived. Busy: a request is being answered. Unread: the client does
    not read its answer. Idle: the last request has been answered.

    Args:
        trusted_proxies: addresses that may have any number of half-open connections, since a proxy has many clients
            and limits slow ones itself.
    """

    def __init__(self, trusted_proxies: Sequence[Network] = ()):
        self._trusted_proxies = trusted_proxies
        # Dictionaries for their order: the first connection has been in its state for the longest time.
        # The half-open ones, and the slow ones among them, are grouped by client.
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
        """Return whether reserved places are in use."""
        return len(self._open) > MAX_CONNECTIONS

    def open(self, connection: Connection) -> bool:
        """Register a new connection, and close an older one if that is needed.

        Returns:
            Whether it may ask for anything. If not, it has a reserved place and may ask for `PROBE_PATHS` only.
        """
        if len(self._open) < MAX_CONNECTIONS or self._close_oldest():
            self._open.add(connection)
            self.set_half_open(connection)
            return True
        # All others are being answered: this one gets a reserved place, unless these are taken too.
        self._open.add(connection)
        self.set_half_open(connection)
        if len(self._open) > MAX_CONNECTIONS + NUM_RESERVED:
            self._abort(connection)
        return False

    def close(self, connection: Connection) -> None:
        """Forget a connection."""
        self._open.discard(connection)
        self._forget_state(connection)

    def set_half_open(self, connection: Connection) -> None:
        """Record that a client has begun a request."""
        if connection not in self._open:
            return
        self._forget_state(connection)
        if self.is_trusted(connection.address):
            self._trusted_half_open[connection] = None
        else:
            self._half_open.setdefault(client_group(connection.address), {})[connection] = None

    def set_slow(self, connection: Connection) -> None:
        """Record that a connection has been half-open for `GRACE_SECONDS`; of too many the oldest is closed."""
        group = client_group(connection.address)
        if connection not in self._half_open.get(group, ()):
            return
        slow = self._slow.setdefault(group, {})
        slow[connection] = None
        if len(slow) > MAX_HALF_OPEN:
            self._abort(next(iter(slow)))

    def set_busy(self, connection: Connection) -> None:
        """Record that a request is being answered."""
        self._move(connection, self._busy)

    def set_unread(self, connection: Connection) -> None:
        """Record that the client does not read its answer."""
        self._move(connection, self._unread)

    def set_idle(self, connection: Connection) -> None:
        """Record that the last request has been answered."""
        self._move(connection, self._idle)

    def is_trusted(self, host: str) -> bool:
        """Return whether an address is that of a trusted proxy."""
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
        """Close the oldest connection that waits for its client, and return whether there was one."""
        # The client with the most half-open connections loses one first: it is probably the cause.
        empty: dict[Connection, None] = {}
        largest_group = max(self._half_open.values(), key=len, default=empty)
        for connections in (largest_group, self._idle, self._unread, self._trusted_half_open):
            if connections:
                self._abort(next(iter(connections)))
                return True
        return False

    def _abort(self, connection: Connection) -> None:
        self.close(connection)
        connection.abort()
