"""The same application with and without the agent: whatever its tasks can observe is equal, but for
what is stated (``differences``)."""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.differential import behaviours
from tests.differential.behaviour import GREENLETS, REGISTER, Behaviour, of_module
from tests.differential.beside import AFTER, BEFORE, TOOLS
from tests.differential.differences import DIFFERENCES
from tests.differential.play import Play, Seen, Setting
from tests.integration.servers import Server

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "what-the-agent-changes.md"
#: Few runs a behaviour where there are no audits to be met.
LONG = [
    Setting("solo", share=0.3),
    *(Setting("threads", runs, share=0.25) for runs in (1, 4)),
    *(Setting(pool, runs, share=0.25) for pool in GREENLETS for runs in (1, 4)),
]
#: Each tool where runs are audited, and where many go on at once.
BESIDE = [
    *(
        Setting("prefork", beside=tool, order=order)
        for tool, orders in TOOLS.items()
        for order in orders
    ),
    *(Setting("solo", 1, 0.3, tool, AFTER) for tool in TOOLS),
    *(Setting(pool, 4, 0.25, tool, BEFORE) for tool in TOOLS for pool in ("threads", "gevent")),
]


def played(
    folder: Path, broker: Server, setting: Setting, program: list[Behaviour]
) -> tuple[Seen, Seen, dict[str, Any]]:
    """What was observed without and with the agent, and what the agent did."""
    plays = [Play(folder, broker, setting, agent=agent) for agent in (False, True)]
    try:
        for play in plays:
            play.begin(program)
            play.worker.start()
        without, with_agent = (play.finish() for play in plays)
        none, agent = (play.agent() for play in plays)
        assert none == {}
    finally:
        for play in plays:
            play.worker.begin_to_stop()
        for play in plays:
            play.worker.ensure_stopped()
    without |= plays[0].captured()
    with_agent |= plays[1].captured()
    return without, with_agent, agent


def differing(without: Seen, with_agent: Seen, pool: str) -> list[str]:
    """What differs beyond what is stated."""
    found = []
    for field in sorted(without.keys() | with_agent.keys()):
        stated = DIFFERENCES.get(field)
        alike = stated.alike if stated is not None and pool in stated.pools else unchanged
        before, after = (alike_of(seen.get(field), alike) for seen in (without, with_agent))
        if stated is not None and stated.chance:
            before, after = Counter(set(before)), Counter(set(after))
        if before != after:
            found.append(f"{field}\n  without: {before - after}\n  with:    {after - before}")
    return found


def unchanged(value: Any) -> Any:
    return value


def alike_of(seen: Counter[str] | None, alike: Callable[[Any], Any]) -> Counter[str]:
    found: Counter[str] = Counter()
    for text, times in (seen or {}).items():
        found[json.dumps(alike(json.loads(text)))] += times
    return found


def test_each_difference_is_documented_and_of_a_behaviour() -> None:
    sections = re.findall(r"^## (.+)$", DOCUMENT.read_text(), re.MULTILINE)
    for field, stated in DIFFERENCES.items():
        assert stated.chance or stated.section in sections, field
        assert field.rpartition(".")[0] in {*REGISTER, "told"}, field


@pytest.mark.integration
@pytest.mark.parametrize("module", behaviours.__all__)
def test_runs_in_pool_children_observe_the_same(
    tmp_path: Path, redis_server: Server, module: str
) -> None:
    compare(tmp_path, redis_server, Setting("prefork"), of_module(module))


@pytest.mark.integration
@pytest.mark.parametrize("setting", LONG, ids=str)
def test_runs_in_the_main_process_observe_the_same(
    tmp_path: Path, redis_server: Server, setting: Setting
) -> None:
    if setting.pool in GREENLETS and importlib.util.find_spec(setting.pool) is None:
        pytest.skip(f"{setting.pool} is not installed")
    compare(tmp_path, redis_server, setting, list(REGISTER.values()))


@pytest.mark.integration
@pytest.mark.parametrize("setting", BESIDE, ids=str)
def test_tools_beside_celery_capture_the_same(
    tmp_path: Path, redis_server: Server, setting: Setting
) -> None:
    compare(tmp_path, redis_server, setting, of_module("messages"))


def compare(folder: Path, broker: Server, setting: Setting, program: list[Behaviour]) -> None:
    without, with_agent, agent = played(folder, broker, setting, program)
    for name, figures in agent.items():
        print(f"{setting} {name}: {figures}")
    found = differing(without, with_agent, setting.pool)
    assert not found, "\n".join(found)
    assert agent
    assert not sum(figures["errors"] for figures in agent.values())
    if setting.pool == "prefork":  # or nothing has been tried
        for kind in ("audits", "confirmations", "traced"):
            assert sum(figures[kind] for figures in agent.values()), kind
