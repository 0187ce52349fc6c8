from outgate.telemetry.health import Vitals, why_not_alive, why_not_ready


def test_a_node_is_not_ready_before_the_first_list() -> None:
    vitals = Vitals(is_source_listed=False, source_errors={"pods": "refused"})

    assert why_not_ready(vitals) == (
        "the source has not been listed yet",
        "source pods: refused",
        "no reconcile round has ended yet",
    )


def test_a_node_stays_ready_while_the_api_is_away() -> None:
    vitals = Vitals(True, {"pods": "refused"}, round_age=1.0)

    assert why_not_ready(vitals) == ()


def test_a_node_is_not_ready_while_the_kernel_refuses_entries() -> None:
    vitals = Vitals(True, round_age=1.0, failed_entries=2)

    assert why_not_ready(vitals) == ("the kernel refuses 2 entries",)


def test_an_agent_without_rounds_for_minutes_is_not_alive() -> None:
    assert why_not_alive(Vitals(True, round_age=301.0)) == (
        "no reconcile round for 301 s",
    )


def test_a_new_agent_is_alive() -> None:
    assert why_not_alive(Vitals(is_source_listed=False)) == ()
