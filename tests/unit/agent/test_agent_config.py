from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from outgate.agent.config import load_config
from outgate.errors import ConfigError
from outgate.kernel.settings import ExistingFlows, GatewayPath, OtherFamily
from outgate.policy.xdp import GatewayHook
from outgate.settings import HostPort


def test_defaults_need_a_node_only() -> None:
    config = load_config({"node": "k8s-guide-worker"}, {})

    assert config.pin_dir == Path("/sys/fs/bpf/outgate")
    assert (config.tunnel_port, config.tunnel_vni) == (4789, 25959)
    assert config.gateway_path is GatewayPath.DIRECT
    assert config.existing_flows is ExistingFlows.KEEP
    assert config.other_family is OtherFamily.PASS
    assert config.metrics_address is None


def test_flags_win_over_variables_and_variables_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("node: f\ntunnel-port: 1\ntunnel-vni: 1\nport-first: 2000\n")
    variables = {"OUTGATE_TUNNEL_PORT": "2", "OUTGATE_TUNNEL_VNI": "2"}
    config = load_config({"tunnel-port": "3"}, variables, file)

    assert (config.tunnel_port, config.tunnel_vni, config.port_first) == (3, 2, 2000)


def test_file_may_list_networks(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("node: n\ncluster-networks:\n- 10.96.0.0/12\n- 10.0.0.0/16\n")

    assert load_config({}, {}, file).cluster_networks == (
        IPv4Network("10.96.0.0/12"),
        IPv4Network("10.0.0.0/16"),
    )


def test_service_networks_are_of_both_families() -> None:
    networks = "10.96.0.0/12, FD00:96::/108"
    config = load_config({"node": "n", "cluster-networks": networks}, {})

    assert config.cluster_networks == (
        IPv4Network("10.96.0.0/12"),
        IPv6Network("fd00:96::/108"),
    )


def test_choices_reach_the_datapath() -> None:
    flags = {"node": "n", "existing-flows": "redecide", "other-family": "drop"}
    settings = load_config(flags, {}).datapath_settings(jiffies_per_second=250)

    assert settings.existing_flows is ExistingFlows.REDECIDE
    assert settings.other_family is OtherFamily.DROP


@pytest.mark.parametrize(
    ("setting", "value"), [("gateway-path", "stack"), ("tunnel-way", "device")]
)
def test_xdp_is_refused_beside_settings_that_rule_it_out(
    setting: str, value: str
) -> None:
    flags = {"node": "n", "gateway-hook": "xdp", setting: value}
    with pytest.raises(ConfigError) as raised:
        load_config(flags, {})

    assert str(raised.value).startswith(f"gateway-hook: xdp needs {setting} ")
    assert str(raised.value).endswith(f", not {value}; choose auto or tc")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, GatewayHook.AUTO),
        ({"gateway-hook": "xdp"}, GatewayHook.XDP),
        ({"gateway-hook": "tc"}, GatewayHook.TC),
        ({"gateway-path": "stack"}, GatewayHook.TC),
        ({"tunnel-way": "device"}, GatewayHook.TC),
    ],
)
def test_auto_leaves_all_to_tc_where_other_settings_rule_out_xdp(
    flags: dict[str, str], expected: GatewayHook
) -> None:
    assert load_config({"node": "n", **flags}, {}).xdp_setting is expected


def test_metrics_address_may_leave_out_the_host() -> None:
    config = load_config({"node": "n", "metrics-address": ":9100"}, {})

    assert config.metrics_address == HostPort("", 9100)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("tunnel-port", "99999", "--tunnel-port: '99999' is not from 1 to 65535"),
        ("tunnel-vni", "x", "--tunnel-vni: 'x' is not a number from 1 to 16777215"),
        ("gateway-path", "fast", "--gateway-path: 'fast' is none of direct, stack"),
        ("gateway-hook", "fast", "--gateway-hook: 'fast' is none of auto, xdp, tc"),
        ("existing-flows", "x", "--existing-flows: 'x' is none of keep, redecide"),
        ("other-family", "leak", "--other-family: 'leak' is none of pass, drop"),
        (
            "cluster-networks",
            "::1/64",
            "--cluster-networks: '::1/64' is no list of networks:"
            " ::1/64 has host bits set",
        ),
        ("pin-dir", "bpf", "--pin-dir: 'bpf' is not an absolute path"),
        ("metrics-address", "9100", "--metrics-address: '9100' is not host:port"),
        ("port-first", "65535", None),
        ("mark-mask", "0x20", "mark-overlay: 0x40 has bits outside mark-mask 0x20"),
        ("mark-overlay", "0x20", "mark-overlay: 0x20 is also mark-translated"),
        ("mark-seen", "0x40", "mark-seen: 0x40 is also mark-overlay"),
    ],
)
def test_a_bad_value_is_answered_with_its_setting(
    setting: str, value: str, message: str | None
) -> None:
    flags: dict[str, str | None] = {"node": "n", setting: value}
    if message is None:
        flags["port-last"] = "1024"
        message = "port-first: 65535 is beyond port-last 1024"
    with pytest.raises(ConfigError) as raised:
        load_config(flags, {})

    assert str(raised.value) == message


def test_a_bad_network_is_answered_with_the_mend() -> None:
    with pytest.raises(ConfigError, match="has host bits set"):
        load_config({"node": "n", "cluster-networks": "10.0.0.1/8"}, {})


def test_a_bad_variable_is_named_as_such() -> None:
    with pytest.raises(ConfigError, match=r"^OUTGATE_TUNNEL_PORT: '0' is not"):
        load_config({"node": "n"}, {"OUTGATE_TUNNEL_PORT": "0"})


def test_an_unknown_setting_in_the_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("tunel-port: 1\n")
    with pytest.raises(ConfigError, match="unknown setting 'tunel-port'"):
        load_config({"node": "n"}, {}, file)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"node: [", b"0x_: 1", b"- node", b"node: {a: b}"]
)
def test_a_file_that_holds_no_settings_is_refused(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "agent.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^config file {file}: "):
        load_config({"node": "n"}, {}, file)


def test_a_node_must_be_named() -> None:
    with pytest.raises(ConfigError, match=r"^node: not set"):
        load_config({}, {})
