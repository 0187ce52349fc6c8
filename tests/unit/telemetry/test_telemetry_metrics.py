from outgate.telemetry.metrics import PacketCount, Statistics, exposition


def test_exposition_names_each_drop_reason() -> None:
    statistics = Statistics(
        packets=(PacketCount("drop_no_route", "to_world", 3, 180),),
        entries={("policy", "ipv6", "done"): 2, ("tunnel", "", "done"): 1},
        rounds=5,
        failed_rounds=1,
    )
    lines = exposition(statistics).decode().splitlines()

    assert (
        'outgate_datapath_packets_total{direction="to_world",reason="drop_no_route"}'
        " 3.0"
    ) in lines
    assert 'outgate_entries{family="ipv6",kind="policy",state="done"} 2.0' in lines
    assert 'outgate_entries{family="",kind="tunnel",state="done"} 1.0' in lines
    assert 'outgate_reconcile_rounds_total{outcome="ok"} 4.0' in lines
