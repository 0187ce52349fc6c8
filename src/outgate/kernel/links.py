"""
Links: attach programs to an interface (tcx, XDP), and keep them there by pins.

A hook has a link for each IP family, but XDP one for both.  A pinned link outlives the
agent, even ``kill -9``.  The next agent opens the pin and replaces the program in place
(no packet passes without one).  A link whose interface is gone stays behind as a pin
with interface 0: it is stale, and removed or made anew.

Pins are named ``<hook>_v<family>-<interface>`` below ``<pin directory>/outgate_links``;
only these are ever touched, and other users of an interface keep their programs.  The
links of the forwarding path have no interface (``kernel.netfilter``).  Pins without a
family are those of a former version: they end once both families are attached.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from outgate.errors import KernelError
from outgate.kernel import netfilter, syscall
from outgate.kernel.hooks import SIDES, Attached, AttachWay, Side
from outgate.kernel.objects import Pair, program_name
from outgate.kernel.syscall import AttachType
from outgate.state.entries import FORWARD_GUARD, AttachmentKey, Family, Hook

FOLDER = "outgate_links"

ATTACH_TYPES = {
    Side.INGRESS: AttachType.TCX_INGRESS,
    Side.EGRESS: AttachType.TCX_EGRESS,
}

MEND = "tcx needs Linux 6.6; set attach to auto or clsact"

FOREIGN_XDP = "an XDP program of somebody else is there"
XDP_REFUSALS = {
    errno.EBUSY: FOREIGN_XDP,
    errno.EEXIST: FOREIGN_XDP,
    errno.EOPNOTSUPP: "its driver has no native XDP, or not with its MTU and offloads",
}
"""Why XDP was refused, by the kernel's errno."""

XDP_MEND = "; tc does the work; see docs/reference/xdp.md, or set gateway-hook to tc"

_PIN = re.compile(r"([a-z_]+?)(?:_v([46]))?(?:-(.+))?", re.DOTALL)


def families_of(hook: Hook) -> tuple[Family, ...]:
    """Return the families whose programs of *hook* are attached by themselves."""
    return (Family.V4,) if hook is Hook.XDP_NETDEV else tuple(Family)


def pin_name(key: AttachmentKey, family: Family | None) -> str:
    """
    Return the file name of a link's pin; no *family*: of a former version's.

    A bpf file system allows no dot in names, so ``eth0.7`` is written ``eth0%2E7``.

    >>> pin_name(AttachmentKey("eth0.7", Hook.TO_NETDEV), Family.V6)
    'to_netdev_v6-eth0%2E7'
    """
    name = program_name(key.hook, family) if family else str(key.hook)
    if key == FORWARD_GUARD:
        return name
    interface = key.interface.replace("%", "%25").replace(".", "%2E")
    return f"{name}-{interface}"


def parse_pin_name(name: str) -> tuple[AttachmentKey, Family | None] | None:
    """Return what ``pin_name`` was made from; None for a file that is not ours."""
    match = _PIN.fullmatch(name)
    if not match or match[1] not in list(Hook):
        return None
    hook, interface = Hook(match[1]), match[3] or ""
    if bool(interface) == (hook is FORWARD_GUARD.hook):
        return None
    family = Family(int(match[2])) if match[2] else None
    name = interface.replace("%2E", ".").replace("%25", "%")
    return AttachmentKey(name, hook), family


def observe_links(pin_dir: Path, hook: Hook | None = None) -> tuple[Attached, ...]:
    """Return every pinned link of ours, or of one *hook*."""
    folder = pin_dir / FOLDER
    if not folder.is_dir():
        return ()
    found = []
    for path in sorted(folder.glob(f"{hook or ''}*")):
        if parsed := parse_pin_name(path.name):
            key, family = parsed
            with _opened(path) as link:
                state = syscall.link_state(link)
            ifindex = 0 if key == FORWARD_GUARD else state.ifindex
            number = state.program_id
            found.append(Attached(key, AttachWay.TCX, family, number, ifindex))
    return tuple(found)


def attach(pin_dir: Path, key: AttachmentKey, ifindex: int, programs: Pair) -> None:
    """
    Make *programs* run at *key*: in place where links live there, else by new ones.

    What a former version attached there ends after that.  Errors: KernelError; ENODEV
    when the interface has just gone.
    """
    for family in families_of(key.hook):
        if key == FORWARD_GUARD:
            _attach_guard(pin_dir, family, programs[family].fd)
        else:
            _attach(_Place(pin_dir, key, family), ifindex, programs[family].fd)
    _detach(_Place(pin_dir, key, None))


def detach(pin_dir: Path, key: AttachmentKey) -> None:
    """Take the links at *key* off their interface and remove their pins."""
    for family in (None, *Family):
        _detach(_Place(pin_dir, key, family))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one link is pinned."""

    pin_dir: Path
    key: AttachmentKey
    family: Family | None

    @property
    def path(self) -> Path:
        return self.pin_dir / FOLDER / pin_name(self.key, self.family)

    @contextmanager
    def translated(self, verb: str, detail: str = "") -> Iterator[None]:
        """Turn an OSError into a KernelError that names this place."""
        try:
            yield
        except OSError as error:
            name = self.path.name.partition("-")[0]
            at = f" on {self.key.interface}" if self.key.interface else ""
            operation = f"{verb} {name}{at}"
            raise KernelError(operation, error.errno or 0, detail) from error


def _attach_guard(pin_dir: Path, family: Family, program: int) -> None:
    """Make *program* guard what the host forwards, without a gap."""
    place = _Place(pin_dir, FORWARD_GUARD, family)
    with place.translated("attach"):
        place.path.parent.mkdir(parents=True, exist_ok=True)
        netfilter.put_forward_link(place.path, program, family)


def _attach(place: _Place, ifindex: int, program: int) -> None:
    path = place.path
    if path.exists() and _is_updated(path, ifindex, program):
        return
    with place.translated("pin"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
    try:
        fd = _create(place, ifindex, program)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.EBUSY) and _is_renamed(place, ifindex):
            _is_updated(path, ifindex, program)
            return
        with place.translated("attach", _mend(place.key.hook, error.errno or 0)):
            raise
    try:
        with place.translated("pin"):
            syscall.obj_pin(fd, path)
    finally:
        os.close(fd)


def _mend(hook: Hook, number: int) -> str:
    if hook is Hook.XDP_NETDEV:
        return XDP_REFUSALS.get(number, "its driver refuses") + XDP_MEND
    return MEND if number == errno.EINVAL else ""


def _create(place: _Place, ifindex: int, program: int) -> int:
    """Return a new link; that of IPv4 goes before the one of IPv6 that is there."""
    if place.key.hook is Hook.XDP_NETDEV:
        return syscall.link_create_xdp(program, ifindex)
    side = ATTACH_TYPES[SIDES[place.key.hook]]
    other = _Place(place.pin_dir, place.key, Family.V6).path
    if place.family is Family.V4 and other.exists():
        with _opened(other) as link:
            if syscall.link_state(link).ifindex == ifindex:
                return syscall.link_create(program, ifindex, side, link)
    return syscall.link_create(program, ifindex, side)


def _is_renamed(place: _Place, ifindex: int) -> bool:
    """Move the pin of a link whose interface had another name under *place*'s."""
    for link in observe_links(place.pin_dir, place.key.hook):
        is_same = (link.key.hook, link.family) == (place.key.hook, place.family)
        if is_same and link.ifindex == ifindex:
            with place.translated("rename the pin of"):
                _Place(place.pin_dir, link.key, link.family).path.rename(place.path)
            return True
    return False


def _is_updated(path: Path, ifindex: int, program: int) -> bool:
    """Replace the program of the link at *path*; False when it must be made anew."""
    with _opened(path) as link:
        try:
            if syscall.link_state(link).ifindex != ifindex:
                return False
            syscall.link_update(link, program)
        except OSError as error:
            if error.errno == errno.ENOLINK:
                return False
            raise KernelError(f"update link {path.name}", error.errno or 0) from error
    return True


def _detach(place: _Place) -> None:
    """Take one link off its interface and remove its pin, if there is one."""
    path = place.path
    if not path.exists():
        return
    with _opened(path) as link:
        try:
            syscall.link_detach(link)
        except OSError as error:
            # ENOLINK: its interface is gone, and the link with it.
            if error.errno != errno.ENOLINK:
                with place.translated("detach"):
                    raise
    with place.translated("unpin"):
        path.unlink(missing_ok=True)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        fd = syscall.obj_get(path)
    except OSError as error:
        raise KernelError(f"open link {path}", error.errno or 0) from error
    try:
        yield fd
    finally:
        os.close(fd)
