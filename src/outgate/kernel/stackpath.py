"""
What a gateway path needs of the node's stack, beside programs and maps.

Path "stack" needs its nftables table and the tunnel device's sysctls, and has them put
back now and then: others flush rulesets and reset trees.  Path "direct" needs neither.
Called by ``kernel.linux``.
"""

import asyncio
from collections.abc import Callable

from outgate.kernel import nft, sysctl
from outgate.kernel.settings import DatapathSettings, GatewayPath

PERIOD_SECONDS = 30
"""How often the table and the sysctls are put back."""


async def apply(settings: DatapathSettings) -> None:
    """Make the nftables table be there, or be gone; KernelError."""
    if settings.gateway_path is GatewayPath.STACK:
        await nft.install_table(settings.mark_mask, settings.mark_overlay)
    else:
        await nft.remove_table()


async def keep(settings: DatapathSettings, tunnel: Callable[[], str | None]) -> None:
    """
    Put back what path "stack" needs, for ever; return at once from path "direct".

    *tunnel* returns the name of the tunnel device, None while it is not there.
    """
    while settings.gateway_path is GatewayPath.STACK:
        await asyncio.sleep(PERIOD_SECONDS)
        await apply(settings)
        name = tunnel()
        if name is not None:
            sysctl.accept_any_way_back(name)
