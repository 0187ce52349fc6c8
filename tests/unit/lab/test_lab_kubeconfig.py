"""The user's kubeconfig: what the lab adds, and that it takes exactly that away."""

from pathlib import Path

import pytest
import yaml

from outgate.lab.errors import LabError
from outgate.lab.kubeconfig import install, uninstall
from outgate.lab.settings import ApiAddress

API = ApiAddress(port=6000, token="secret", certificate="PEM")
OTHERS = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "work", "cluster": {"server": "https://192.0.2.1"}}],
    "users": [{"name": "me", "user": {"exec": {"command": "login", "args": None}}}],
    "contexts": [
        {"name": "work", "context": {"cluster": "work", "user": "me"}},
        {"name": "home", "context": {"cluster": "work", "user": "me"}},
    ],
    "current-context": "work",
    "preferences": {"colors": True},
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "config"


def load(path: Path) -> dict[str, object]:
    loaded = yaml.safe_load(path.read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_install_makes_a_private_file_when_there_is_none(config: Path) -> None:
    install(config, API, "outgate")

    assert config.stat().st_mode & 0o777 == 0o600
    assert load(config)["current-context"] == "outgate"


def test_uninstall_removes_a_file_that_only_the_lab_used(config: Path) -> None:
    install(config, API, "outgate")
    uninstall(config, "outgate")

    assert not config.exists()


def test_uninstall_restores_a_file_of_others(config: Path) -> None:
    config.parent.mkdir()
    config.write_text(yaml.safe_dump(OTHERS))
    install(config, API, "outgate")
    assert load(config)["current-context"] == "outgate"
    uninstall(config, "outgate")

    assert load(config) == OTHERS


def test_install_again_changes_nothing(config: Path) -> None:
    assert install(config, API, "outgate")
    before = config.read_bytes()

    assert not install(config, API, "outgate")
    assert config.read_bytes() == before


def test_install_after_a_crash_still_remembers_the_users_context(config: Path) -> None:
    config.parent.mkdir()
    config.write_text(yaml.safe_dump(OTHERS))
    install(config, API, "outgate")
    install(config, ApiAddress(7000, "other", "PEM"), "outgate")
    uninstall(config, "outgate")

    assert load(config) == OTHERS


def test_uninstall_leaves_the_context_that_the_user_chose_since(config: Path) -> None:
    config.parent.mkdir()
    config.write_text(yaml.safe_dump(OTHERS))
    install(config, API, "outgate")
    chosen = load(config) | {"current-context": "home"}
    config.write_text(yaml.safe_dump(chosen))
    uninstall(config, "outgate")

    assert load(config) == OTHERS | {"current-context": "home"}


def test_two_labs_nest(config: Path) -> None:
    config.parent.mkdir()
    config.write_text(yaml.safe_dump(OTHERS))
    install(config, API, "outgate")
    install(config, API, "two")
    assert load(config)["current-context"] == "outgate-two"
    uninstall(config, "two")
    assert load(config)["current-context"] == "outgate"
    uninstall(config, "outgate")

    assert load(config) == OTHERS


def test_uninstall_touches_no_context_that_the_lab_did_not_make(config: Path) -> None:
    config.parent.mkdir()
    context = {"name": "outgate", "context": {"cluster": "work", "user": "me"}}
    config.write_text(yaml.safe_dump(OTHERS | {"contexts": [context]}))
    before = config.read_bytes()

    assert not uninstall(config, "outgate")
    assert config.read_bytes() == before


def test_install_follows_a_symlink(config: Path, tmp_path: Path) -> None:
    target = tmp_path / "real"
    target.write_text(yaml.safe_dump(OTHERS))
    config.parent.mkdir()
    config.symlink_to(target)
    install(config, API, "outgate")

    assert config.is_symlink()
    assert load(target)["current-context"] == "outgate"


def test_install_refuses_what_is_no_kubeconfig(config: Path) -> None:
    config.parent.mkdir()
    config.write_text("- just\n- a list\n")

    with pytest.raises(LabError, match="is not a kubeconfig"):
        install(config, API, "outgate")
