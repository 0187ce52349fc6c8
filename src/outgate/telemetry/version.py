"""Which version of the product this is, for logs, status and ``--version``."""

from importlib import metadata


def product_version() -> str:
    """Return the installed version; a bare checkout has none and says so."""
    try:
        return metadata.version("outgate")
    except metadata.PackageNotFoundError:
        return "0+checkout"
