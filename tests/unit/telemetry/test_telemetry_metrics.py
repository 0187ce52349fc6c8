from outgate.telemetry.metrics import PacketCount, Statistics, exposition


def test_exposition_names_each_drop_reason() -> None:
    statistics = Statistics(
        packets=(PacketCount("drop_no_route", "to_world", "EgressPolicy a", 3, 180),),
        entries={("policy", "ipv6", "done"): 2, ("tunnel", "", "done"): 1},
        rounds=5,
        failed_rounds=1,
    )
    lines = exposition(statistics).decode().splitlines()

    assert (
        'outgate_datapath_packets_total{direction="to_world",policy="EgressPolicy a"'
        ',reason="drop_no_route"} 3.0'
    ) in lines
    assert 'outgate_entries{family="ipv6",kind="policy",state="done"} 2.0' in lines
    assert 'outgate_entries{family="",kind="tunnel",state="done"} 1.0' in lines
    assert 'outgate_reconcile_rounds_total{outcome="ok"} 4.0' in lines


def test_exposition_tells_what_was_collected() -> None:
    statistics = Statistics(is_collecting=True, collected={"ipv6": 7})
    lines = exposition(statistics).decode().splitlines()

    assert "outgate_datapath_collecting 1.0" in lines
    assert 'outgate_datapath_collected_flows_total{family="ipv6"} 7.0' in lines


def test_exposition_tells_where_packets_are_met_first() -> None:
    lines = exposition(Statistics(hooks={"eth0": "xdp"})).decode().splitlines()

    assert 'outgate_uplink_hook{hook="xdp",interface="eth0"} 1.0' in lines
