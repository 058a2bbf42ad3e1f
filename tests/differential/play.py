"""Runs the application's behaviours in one worker and gathers what they observed."""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Celery

from tests.differential.behaviour import FLAVOURS, PAIRS, Behaviour, id_of_sent
from tests.differential.beside import AFTER
from tests.differential.beside.records import trees
from tests.integration.servers import Server
from tests.integration.waiting import wait_for
from tests.integration.worker import Worker

APPLICATION = "tests.differential.application"
#: Pools whose runs are audited.
AUDITED = ("prefork", "solo")
#: States that are followed by another one.
PASSING = ("PENDING", "STARTED", "RETRY")
#: Numbers of jobs and processes in a text.
COUNTED = re.compile(r"(Job: |exitcode |pid[:=] ?)\d+")


@dataclass(frozen=True, slots=True)
class Setting:
    """How the workers are started."""

    pool: str
    concurrency: int = 1
    #: Pairs of runs, of those that a behaviour has.
    share: float = 1.0
    #: The tool that runs in them (``beside``), and when it is started.
    beside: str = ""
    order: str = ""

    @property
    def overlaps(self) -> bool:
        return self.concurrency > 1

    def plays(self, behaviour: Behaviour) -> bool:
        return self.pool in behaviour.pools and not (self.overlaps and behaviour.spans)

    def pairs(self, behaviour: Behaviour) -> int:
        return max(2, round(behaviour.pairs * self.share)) if self.plays(behaviour) else 0

    def flavours(self, behaviour: Behaviour) -> tuple[str, ...]:
        """Where nothing is audited, one tells as much as all."""
        return behaviour.flavours if self.pool in AUDITED else behaviour.flavours[:1]

    def __str__(self) -> str:
        tool = f"-{self.beside}-{self.order}" if self.beside else ""
        return f"{self.pool}-{self.concurrency}{tool}"


#: A child of prefork runs one behaviour and ends: audits have their share of a process's time and a
#: credit once, which is not enough for all behaviours in one.
RUNS_PER_CHILD = 2 * PAIRS * len(FLAVOURS) + 1
NOTHING, AGENT = "differential.nothing", "differential.agent"

#: By behaviour and field: how often each value was seen.
Seen = dict[str, Counter[str]]


class Play:
    """One worker of the application, ``agent`` or not. ``begin``, then ``finish``."""

    def __init__(self, folder: Path, broker: Server, setting: Setting, *, agent: bool) -> None:
        name = f"{'with' if agent else 'without'}-{folder.name}"
        self._name = name
        self._told = folder / f"{name}.told"
        self._captured = folder / f"{name}.captured"
        self._client = Celery(broker=broker.url, backend=broker.url, set_as_current=False)
        #: Ids of runs, and of those that tell what the agent has done, with the behaviour's name.
        self._sent: dict[str, str] = {}
        self._asked: dict[str, str] = {}
        #: Ids of what runs send.
        self._sent_by_runs: list[str] = []
        options = ["-P", setting.pool, "-c", str(setting.concurrency)]
        if setting.pool == "prefork":
            options += ["--max-tasks-per-child", str(RUNS_PER_CHILD)]
        installs = agent and (setting.pool == "threads" or setting.order == AFTER)
        self.setting = setting
        self.worker = Worker(
            folder / f"{name}.log",
            broker,
            name,
            *options,
            "--without-mingle",
            "--without-gossip",
            application=APPLICATION,
            agent=agent and not installs,
            TEST_BACKEND_URL=broker.url,
            TEST_TOLD=str(self._told),
            TEST_INSTALL="1" if installs else "",
            TEST_BESIDE=setting.beside,
            TEST_BESIDE_ORDER=setting.order,
            TEST_BESIDE_TOLD=str(self._captured),
            CELERY_MEMORY_CENSUS_SECONDS="0.5",
            PYTHONHASHSEED="0",
        )

    def begin(self, behaviours: list[Behaviour]) -> None:
        with self._client.connection() as connection:
            producer = connection.Producer()
            for behaviour in behaviours:
                for name, arguments in self._runs(behaviour):
                    task_id = str(uuid.uuid4())
                    self._client.send_task(
                        name, arguments, task_id=task_id, queue=self.worker.queue, producer=producer
                    )
                    if name == AGENT:
                        self._asked[task_id] = behaviour.name
                    elif behaviour.answers and name != NOTHING:
                        self._sent[task_id] = behaviour.name
                        sent = (id_of_sent(task_id, each) for each in range(behaviour.sends))
                        self._sent_by_runs += sent

    def _runs(self, behaviour: Behaviour) -> Iterator[tuple[str, list[Any]]]:
        runs = 0
        for pair in range(self.setting.pairs(behaviour)):
            for flavour in self.setting.flavours(behaviour):
                for number in (2 * pair, 2 * pair + 1):
                    runs += 1
                    yield behaviour.task_name(flavour), [number, [0]]
        if runs and self.setting.pool == "prefork":
            for _ in range(runs, RUNS_PER_CHILD - 1):
                yield NOTHING, []
        if runs:
            yield AGENT, []

    def finish(self) -> Seen:
        """What all runs have observed, by the field."""
        ids = list(self._sent)
        try:
            for some in (ids[-1:], ids):  # thousands are read once
                metas = wait_for(lambda some=some: self._read(some), "results", complete)  # type: ignore[misc]
        except AssertionError:
            found = zip(self._sent.values(), self._read(ids), strict=True)
            missing = Counter(name for name, meta in found if meta is None)
            raise AssertionError(f"{self.worker.nodename} did not run {missing}") from None
        wait_for(lambda: self._read(self._sent_by_runs), "what runs sent", complete)
        seen: Seen = {}
        for name, meta in zip(self._sent.values(), metas, strict=True):
            for field, value in _fields(meta):
                seen.setdefault(f"{name}.{field}", Counter())[_text(value)] += 1
        if self._told.exists():
            for line in self._told.read_text().splitlines():
                for field, value in json.loads(line).items():
                    seen.setdefault(f"told.{field}", Counter())[_text(value)] += 1
        return seen

    def captured(self) -> Seen:
        """What the tool beside it captured, once the worker has stopped: it hears of a run's end
        after the run's result is there."""
        return {"told.captured": trees(self._captured, self._name)} if self.setting.beside else {}

    def agent(self) -> dict[str, Any]:
        """What the worker's agent had done after each behaviour; nothing without one."""
        ids = list(self._asked)
        metas = wait_for(lambda: self._read(ids), "what the agent has done", complete)
        told = zip(self._asked.values(), metas, strict=True)
        return {name: meta["result"] for name, meta in told if meta["result"] is not None}

    def _read(self, ids: list[str]) -> list[Any]:
        backend = self._client.backend
        found = backend.mget([backend.get_key_for_task(each) for each in ids]) if ids else []
        metas = [json.loads(each) if each is not None else None for each in found]
        return [each if each and each["status"] not in PASSING else None for each in metas]


def complete(metas: list[Any]) -> bool:
    return None not in metas


def _fields(meta: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "status", meta["status"]
    if meta["status"] == "SUCCESS":
        yield from meta["result"].items()
    else:
        yield "result", meta["result"]
        yield "traceback", meta["traceback"]


def _text(value: Any) -> str:
    return COUNTED.sub(r"\1…", json.dumps(value, sort_keys=True))
