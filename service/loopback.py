"""Whether an address can be reached from other machines; server and client ask the same question."""

from __future__ import annotations

import ipaddress


def is_loopback(address: str) -> bool:
    """Returns whether only this machine is reached, or can reach, `address`.

    Args:
        address: `HOST:PORT` or `unix:PATH`. Names other than `localhost` are taken to be elsewhere.
    """
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
