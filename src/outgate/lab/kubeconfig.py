"""
The user's kubeconfig: add the lab's context, and take exactly that away again.

What this is: pure changes of the file's YAML data, and the reading and writing of
the file.  The context that was current before is kept in an extension of ours, so
that ``down`` restores it without any other memory.
What this is not: the reader that finds an API server (``source.kubeconfig``).

Unknown content is kept as data; comments are lost, as with ``kubectl config``.
"""

import base64
import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from outgate.lab.errors import LabError
from outgate.lab.settings import DEFAULT_NAME, ApiAddress

EXTENSION = "lab.outgate.io"

Config = dict[str, Any]


def context_name(lab: str) -> str:
    """
    The context of a lab.

    >>> context_name("outgate"), context_name("two")
    ('outgate', 'outgate-two')
    """
    return lab if lab == DEFAULT_NAME else f"outgate-{lab}"


def new_config(api: ApiAddress, server: str, name: str) -> Config:
    """A whole kubeconfig of one context, for clients that see the API at *server*."""
    authority = base64.b64encode(api.certificate.encode()).decode()
    cluster = {"server": server, "certificate-authority-data": authority}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"token": api.token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }


def add_context(config: Config, api: ApiAddress, name: str, *, is_new: bool) -> Config:
    """*config* with the lab's cluster, user and context, which becomes current."""
    own = new_config(api, api.server, name)
    former = config.get("current-context") or ""
    memory = _memory(config, name)
    if memory is None or former != name:
        memory = {"formerContext": former, "createdFile": is_new}
    own["contexts"][0]["context"]["extensions"] = [
        {"name": EXTENSION, "extension": memory}
    ]
    result = copy.deepcopy(config)
    for kind in ("clusters", "users", "contexts"):
        others = [item for item in result.get(kind) or () if item.get("name") != name]
        result[kind] = [*others, *own[kind]]
    result.setdefault("apiVersion", "v1")
    result.setdefault("kind", "Config")
    result["current-context"] = name
    return result


def remove_context(config: Config, name: str) -> Config | None:
    """
    *config* without what ``add_context`` added.

    The former context becomes current again if ours still is and it still exists.
    Returns None when the file was made by us and nothing is left in it.
    """
    memory = _memory(config, name) or {}
    result = copy.deepcopy(config)
    for kind in ("clusters", "users", "contexts"):
        items = result.get(kind) or []
        result[kind] = [item for item in items if item.get("name") != name]
    if result.get("current-context") == name:
        former = memory.get("formerContext") or ""
        known = {item.get("name") for item in result["contexts"]}
        result["current-context"] = former if former in known else ""
    left = any(result[kind] for kind in ("clusters", "users", "contexts"))
    return None if memory.get("createdFile") and not left else result


def _memory(config: Config, name: str) -> Mapping[str, Any] | None:
    for item in config.get("contexts") or ():
        if item.get("name") == name:
            for extension in (item.get("context") or {}).get("extensions") or ():
                if extension.get("name") == EXTENSION:
                    memory: Mapping[str, Any] = extension["extension"]
                    return memory
    return None


def default_path() -> Path:
    """The file that kubectl would write: the first of $KUBECONFIG, or the usual one."""
    listed = [part for part in os.environ.get("KUBECONFIG", "").split(":") if part]
    return Path(listed[0]) if listed else Path.home() / ".kube" / "config"


def read_config(path: Path) -> Config | None:
    """The file's data; None when there is no file.  Errors: LabError."""
    try:
        config = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, yaml.YAMLError) as error:
        raise LabError(f"cannot read kubeconfig {path}: {error}") from error
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise LabError(f"{path} is not a kubeconfig; move it away or name another file")
    return config


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Replace *path* atomically, readable by its owner alone; a symlink is followed."""
    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.outgate")
    fresh.touch(mode=0o600)
    fresh.write_text(yaml.safe_dump(dict(config), sort_keys=False))
    fresh.replace(target)


def install(path: Path, api: ApiAddress, lab: str) -> bool:
    """Make the lab the current context of *path*; False when it already was."""
    config = read_config(path)
    name = context_name(lab)
    changed = add_context(config or {}, api, name, is_new=config is None)
    if changed == config:
        return False
    write_config(path, changed)
    return True


def uninstall(path: Path, lab: str) -> bool:
    """Take the lab's context out of *path*; False when it was not there."""
    config = read_config(path)
    if config is None or _memory(config, context_name(lab)) is None:
        return False
    changed = remove_context(config, context_name(lab))
    if changed is None:
        path.resolve().unlink()
    else:
        write_config(path, changed)
    return True
