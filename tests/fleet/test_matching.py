"""Which process is whose."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.common.report import WorkerReport
from celery_memory_exporter.fleet.facts import Identity, WorkerProcesses
from celery_memory_exporter.fleet.matching import UNKNOWN_BROKER, Key, named, process_of
from tests import samples

WEB1, WEB2 = ("", "celery@web1"), ("", "celery@web2")


def keys(
    table: list[WorkerProcesses],
    reports: dict[Key, WorkerReport | None],
    brokers: tuple[str, ...] = ("",),
) -> list[Key]:
    return [key for key, _ in named(table, reports, boot_id=samples.BOOT, brokers=brokers)]


def report_of(pid: int, **instance: object) -> WorkerReport:
    return samples.report(instance=samples.instance(pid, **instance))


def test_a_process_has_the_name_that_its_agent_tells() -> None:
    reports = {WEB1: report_of(1), WEB2: report_of(100)}
    assert keys([samples.table("celery@name-on-the-command-line")], reports) == [WEB2]


def test_a_process_without_an_agent_has_the_name_on_its_command_line() -> None:
    assert keys([samples.table("celery@bare")], {WEB1: report_of(1)}) == [("", "celery@bare")]


def test_workers_of_one_host_with_one_name_are_numbered() -> None:
    table = [samples.table(main=pid, children=()) for pid in (100, 200, 300)]
    assert keys(table, {}) == [WEB1, ("", "celery@web1#2"), ("", "celery@web1#3")]


def test_a_worker_in_a_container_is_matched_by_the_pid_it_has_inside() -> None:
    table = samples.table()
    inside = dataclasses.replace(table, main=samples.seen(4000, inner=1))
    assert keys([inside], {WEB2: report_of(1)}) == [WEB2]


def test_the_same_pid_on_another_machine_is_another_process_and_keeps_its_name() -> None:
    reports = {WEB1: report_of(100, boot_id="another")}
    assert keys([samples.table()], reports) == [("", "celery@web1#2")]


def test_the_same_pid_in_another_namespace_is_another_process() -> None:
    reports = {WEB2: report_of(100, pid_namespace=samples.NAMESPACE + 1)}
    assert keys([samples.table()], reports) == [WEB1]


def test_a_name_is_at_the_only_broker() -> None:
    assert keys([samples.table()], {}, brokers=("eu",)) == [("eu", "celery@web1")]


def test_of_several_brokers_a_name_is_at_the_one_where_it_was_heard() -> None:
    reports: dict[Key, WorkerReport | None] = {
        ("us", "celery@web1"): None,
        ("eu", "celery@both"): None,
        ("us", "celery@both"): None,
    }
    table = [
        samples.table(name, main=number, children=())
        for number, name in enumerate(("celery@web1", "celery@both", "celery@nowhere"), 500)
    ]
    assert keys(table, reports, brokers=("eu", "us")) == [
        ("us", "celery@web1"),
        (UNKNOWN_BROKER, "celery@both"),
        (UNKNOWN_BROKER, "celery@nowhere"),
    ]


def scanned(main: Identity, reports: dict[Key, WorkerReport | None]) -> Key | None:
    """By looking at each report."""
    for key, report in reports.items():
        if report is not None:
            told = report.instance
            here = told.boot_id == samples.BOOT
            if here and main.matches(told.pid, told.start_ticks, told.pid_namespace):
                return key
    return None


INSTANCES = st.builds(
    samples.instance,
    st.sampled_from((1, 2)),
    boot_id=st.sampled_from((samples.BOOT, "another")),
    start_ticks=st.sampled_from((10, None)),
    pid_namespace=st.sampled_from((1, 2, None)),
)
IDENTITIES = st.builds(
    Identity, st.sampled_from((1, 2)), st.sampled_from((10, None)), st.sampled_from((1, 2, None))
)


@given(st.lists(st.none() | INSTANCES, max_size=6), IDENTITIES)
def test_the_worker_that_is_looked_up_is_the_first_that_a_look_at_each_finds(
    instances: list[None], main: Identity
) -> None:
    reports = {
        ("", f"celery@web{number}"): samples.report(instance=each) if each else None
        for number, each in enumerate(instances)
    }
    table = samples.table("celery@free")
    seen = dataclasses.replace(table, main=dataclasses.replace(table.main, identity=main))
    assert keys([seen], reports) == [scanned(main, reports) or ("", "celery@free")]


def test_what_an_agent_tells_of_a_process_is_found_by_its_identity() -> None:
    report = samples.report()
    assert process_of(report, samples.seen(101)) == report.processes[1]
    assert process_of(report, samples.seen(999)) is None
    assert process_of(None, samples.seen(101)) is None
