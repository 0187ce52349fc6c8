"""
The one nftables rule of gateway path "stack": tunnelled packets are not tracked.

The host's own masquerade rules translate what its connection tracking sees; a
packet that ``to_netdev`` must translate may not be translated before.  The table is
ours alone (``inet outgate``, for both IP families), made and removed whole.  Path
"direct" needs none of it.
"""

import asyncio
import errno

from outgate.errors import KernelError

TABLES = ("inet outgate", "ip outgate")
"""Ours, and the one that was ours before there was IPv6: it goes when ours comes."""

MISSING = "needs the program nft: install nftables, or set gateway-path to direct"


def ruleset(mark_mask: int, mark_overlay: int) -> str:
    """
    Return the table as text for ``nft -f``; loading it twice changes nothing.

    >>> print(ruleset(0x70, 0x40))
    table inet outgate
    delete table inet outgate
    table ip outgate
    delete table ip outgate
    table inet outgate {
        chain prerouting {
            type filter hook prerouting priority raw; policy accept;
            meta mark & 0x70 == 0x40 notrack
        }
    }
    """
    gone = "".join(f"table {table}\ndelete table {table}\n" for table in TABLES)
    return (
        f"{gone}table {TABLES[0]} {{\n"
        "    chain prerouting {\n"
        "        type filter hook prerouting priority raw; policy accept;\n"
        f"        meta mark & {mark_mask:#x} == {mark_overlay:#x} notrack\n"
        "    }\n"
        "}"
    )


async def install_table(mark_mask: int, mark_overlay: int) -> None:
    """Make the table be there, exactly; one transaction."""
    await _load(ruleset(mark_mask, mark_overlay))


async def remove_table() -> None:
    """Make the table be gone, where it is there."""
    for table in TABLES:
        try:
            await _load(f"list table {table}")
        except KernelError:
            # No such table, no program nft, or a kernel without nftables.
            continue
        await _load(f"delete table {table}")


async def _load(text: str) -> None:
    try:
        process = await asyncio.create_subprocess_exec(
            "nft",
            "-f",
            "-",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise KernelError("change nftables", errno.ENOENT, MISSING) from error
    _, complaint = await process.communicate(f"{text}\n".encode())
    if process.returncode:
        first = complaint.decode(errors="replace").strip().splitlines()[:1]
        raise KernelError("change nftables", 0, " ".join(first))
