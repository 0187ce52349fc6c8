"""
libbpf by ctypes: compiled programs are opened, given their settings, and loaded.

Only what needs an ELF reader is done here; maps, links and pins go through
``kernel.syscall``.  Maps that are pinned already are taken over with their rows.
The objects are package data, one per hook and IP family; ``OUTGATE_BPF_OBJECTS`` names
another folder, ``OUTGATE_LIBBPF`` another library.
"""

import ctypes
import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from outgate.errors import KernelError
from outgate.kernel import syscall
from outgate.state.entries import Family, Hook

SETTINGS_SECTION = ".rodata.settings"
LOG_SIZE = 1 << 20
LOG_LINES = 15

PROGRAM_TYPE_NETFILTER = 32
"""``enum bpf_prog_type``: libbpf before 1.3 does not know the section's name."""

NO_SIZES: Mapping[str, int] = {}

_UNFIT = re.compile(r"couldn't reuse pinned map at '([^']*)'")
"""What libbpf says of a pinned map whose type, sizes, room or flags are others."""

_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class _OpenOptions(ctypes.Structure):
    """``struct bpf_object_open_opts``, up to the field that we set."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("object_name", ctypes.c_char_p),
        ("relaxed_maps", ctypes.c_bool),
        ("pin_root_path", ctypes.c_char_p),
    )


_SIGNATURES = {
    "bpf_object__open_file": (ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_void_p)),
    "bpf_object__load": (ctypes.c_int, (ctypes.c_void_p,)),
    "bpf_object__close": (None, (ctypes.c_void_p,)),
    "bpf_object__next_program": (ctypes.c_void_p, (ctypes.c_void_p,) * 2),
    "bpf_object__next_map": (ctypes.c_void_p, (ctypes.c_void_p,) * 2),
    "bpf_program__fd": (ctypes.c_int, (ctypes.c_void_p,)),
    "bpf_program__name": (ctypes.c_char_p, (ctypes.c_void_p,)),
    "bpf_program__set_type": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_int)),
    "bpf_program__set_expected_attach_type": (
        ctypes.c_int,
        (ctypes.c_void_p, ctypes.c_int),
    ),
    "bpf_program__set_log_buf": (
        ctypes.c_int,
        (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t),
    ),
    "bpf_map__name": (ctypes.c_char_p, (ctypes.c_void_p,)),
    "bpf_map__set_max_entries": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_uint32)),
    "bpf_map__set_initial_value": (
        ctypes.c_int,
        (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t),
    ),
}


@cache
def _library() -> ctypes.CDLL:
    path = os.environ.get("OUTGATE_LIBBPF", "libbpf.so.1")
    try:
        library = ctypes.CDLL(path, use_errno=True)
    except OSError as error:
        mend = "install libbpf 1.0 or later, or set OUTGATE_LIBBPF to its path"
        raise KernelError(f"open {path}", 0, f"{error}; {mend}") from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@contextmanager
def _captured_messages(library: ctypes.CDLL) -> Iterator[list[str]]:
    """Collect what libbpf would print to stderr."""
    messages: list[str] = []
    libc = ctypes.CDLL(None)

    def note(level: int, text: bytes, arguments: int) -> int:
        line = ctypes.create_string_buffer(2048)
        libc.vsnprintf(line, len(line), text, ctypes.c_void_p(arguments))
        messages.append(line.value.decode(errors="replace").strip())
        return 0

    callback = _PRINT(note)
    library.libbpf_set_print.restype = ctypes.c_void_p
    previous = library.libbpf_set_print(callback)
    try:
        yield messages
    finally:
        library.libbpf_set_print(ctypes.c_void_p(previous))


class UnfitMapError(KernelError):
    """A program was not loaded because the map pinned at *path* has another layout."""

    def __init__(self, operation: str, path: Path) -> None:
        mend = (
            f"the map pinned at {path} has another layout or size: an agent replaces"
            " what another version made; else use another pin directory"
        )
        super().__init__(operation, errno.EINVAL, mend)
        self.path = path


@dataclass(frozen=True, slots=True)
class Program:
    """A loaded program: *fd* is the owner's to close, *number* is the kernel's id."""

    hook: str
    family: Family
    fd: int
    number: int


Pair = Mapping[Family, Program]
"""The programs of one hook."""


def program_name(hook: str, family: Family) -> str:
    """
    Return what the program is called, in its object and beyond.

    >>> program_name(Hook.TO_NETDEV, Family.V6)
    'to_netdev_v6'
    """
    return f"{hook}_v{family}"


def object_path(hook: str, family: Family) -> Path:
    """Return where the compiled program of *hook* for *family* lies."""
    name = f"{program_name(hook, family)}.bpf.o"
    if folder := os.environ.get("OUTGATE_BPF_OBJECTS"):
        return Path(folder) / name
    return Path(str(resources.files("outgate.kernel") / "objects" / name))


def load_program(
    hook: str,
    family: Family,
    pin_dir: Path,
    settings: bytes,
    sizes: Mapping[str, int] = NO_SIZES,
) -> Program:
    """
    Load one program of *hook*; pin its maps below *pin_dir*, or reuse them there.

    *hook* may also name a program that is no hook's (``kernel.collector``).  *sizes*
    are entries by map name, where a map shall not have as many as its object says.

    Errors: KernelError, with the end of the verifier's log where it refused;
    UnfitMapError where a map that is pinned there cannot be reused.
    """
    path = object_path(hook, family)
    if not path.is_file():
        mend = "build the programs (make bpf), or set OUTGATE_BPF_OBJECTS"
        name = program_name(hook, family)
        raise KernelError(f"load {name}", errno.ENOENT, f"no {path}; {mend}")
    library = _library()
    with _captured_messages(library) as messages:
        root = os.fsencode(pin_dir)
        options = _OpenOptions(ctypes.sizeof(_OpenOptions), None, False, root)
        opened = library.bpf_object__open_file(os.fsencode(path), ctypes.byref(options))
        if not opened:
            raise KernelError(f"open {path}", ctypes.get_errno(), _last(messages))
        try:
            prepared = _Opened(library, opened, hook, family)
            _fill_settings(prepared, settings)
            _resize(prepared, sizes)
            fd = _load(prepared, messages)
        finally:
            library.bpf_object__close(opened)
    return Program(hook, family, fd, syscall.program_id(fd))


@dataclass(frozen=True, slots=True)
class _Opened:
    """An object between opening and closing; *handle* is libbpf's pointer."""

    library: ctypes.CDLL
    handle: int
    hook: str
    family: Family

    @property
    def name(self) -> str:
        return program_name(self.hook, self.family)


def _load(opened: _Opened, messages: list[str]) -> int:
    """Return a descriptor of the object's one program, loaded."""
    library, program = opened.library, _program_named(opened)
    log = ctypes.create_string_buffer(LOG_SIZE)
    library.bpf_program__set_log_buf(program, log, LOG_SIZE)
    if opened.hook == Hook.FORWARD_GUARD:
        library.bpf_program__set_type(program, PROGRAM_TYPE_NETFILTER)
        attach_type = syscall.AttachType.NETFILTER
        library.bpf_program__set_expected_attach_type(program, attach_type)
    result = library.bpf_object__load(opened.handle)
    if result < 0:
        if unfit := _UNFIT.search("\n".join(messages)):
            raise UnfitMapError(f"load {opened.name}", Path(unfit[1]))
        verifier = log.value.decode(errors="replace").splitlines()[-LOG_LINES:]
        detail = "\n".join(verifier) or _last(messages)
        reason = _with_mend(opened.hook, detail)
        raise KernelError(f"load {opened.name}", -result, reason)
    # The object closes its own descriptor; ours lives on.
    return os.dup(library.bpf_program__fd(program))


def _program_named(opened: _Opened) -> int:
    library, name = opened.library, opened.name
    program = library.bpf_object__next_program(opened.handle, None)
    while program:
        if library.bpf_program__name(program).decode() == name:
            return int(program)
        program = library.bpf_object__next_program(opened.handle, program)
    detail = f"the object has no program {name}"
    raise KernelError(f"load {name}", errno.ENOENT, detail)


def _maps_of(opened: _Opened) -> Iterator[tuple[str, int]]:
    """Yield the name of each map of the object, and libbpf's pointer to it."""
    library = opened.library
    found = library.bpf_object__next_map(opened.handle, None)
    while found:
        yield library.bpf_map__name(found).decode(), found
        found = library.bpf_object__next_map(opened.handle, found)


def _fill_settings(opened: _Opened, settings: bytes) -> None:
    """Write the settings section, which a program that needs none may lack."""
    size = len(settings)
    for name, section in _maps_of(opened):
        if not name.endswith(SETTINGS_SECTION):
            continue
        result = opened.library.bpf_map__set_initial_value(section, settings, size)
        if result < 0:
            detail = f"it does not have {size} bytes: rebuild the programs"
            raise KernelError(f"fill settings of {opened.name}", -result, detail)


def _resize(opened: _Opened, sizes: Mapping[str, int]) -> None:
    """Set how many entries maps have that are not pinned yet."""
    for name, found in _maps_of(opened):
        if name not in sizes:
            continue
        result = opened.library.bpf_map__set_max_entries(found, sizes[name])
        if result < 0:
            raise KernelError(f"resize {name} of {opened.name}", -result)


def _last(messages: list[str]) -> str:
    return "; ".join(m for m in messages if m)[-600:]


def _with_mend(hook: str, detail: str) -> str:
    if hook == Hook.FORWARD_GUARD:
        return f"{detail}; it needs Linux 6.6 with BPF links for netfilter"
    return detail
