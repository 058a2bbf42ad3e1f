"""`celery-memory-exporter report` against a running server. The commands in processes of their
own: `integration/test_commands.py`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from celery_memory_exporter import cli
from celery_memory_exporter.common.evidence import Estimate
from celery_memory_exporter.common.report import TaskReport
from celery_memory_exporter.diagnosis.text import as_text
from celery_memory_exporter.web.server import Application, HttpServer, bind
from tests import samples
from tests.diagnosis.evidence import diagnosis_of, evidence_of, nothing, snapshot_of, task, view

Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answers as an exporter does whose only worker ran these task types; the result is its
    URL."""
    servers: list[HttpServer] = []

    def start(*tasks: TaskReport) -> str:
        listener = bind("127.0.0.1", 0)
        snapshot = snapshot_of(view(None, tasks=list(tasks)))
        server = HttpServer(Application(CollectorRegistry(), lambda: snapshot, dict), listener)
        server.start()
        servers.append(server)
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Makes whatever is asked answer with this JSON."""

    class Response:
        def __init__(self, body: object) -> None:
            self.body = body

        def __enter__(self) -> Response:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def read(self) -> bytes:
            return json.dumps(self.body).encode()

    def set_answer(body: object) -> None:
        monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Response(body))

    return set_answer


def report(*arguments: str) -> int:
    return cli.main(["report", *arguments])


def test_the_exit_status_tells_whether_something_leaks(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report("--url", serve(samples.task())) == 1
    expected = as_text(diagnosis_of(view(None, tasks=[samples.task()])))
    assert capsys.readouterr().out == f"{expected}\n"
    assert report("--url", serve(task(evidence_of(nothing)))) == 0
    assert (
        report(
            "--url", serve(task(evidence_of(nothing)), task(evidence_of(nothing, 9), "shop.new"))
        )
        == 3
    )
    assert report("--url", serve()) == 3


def test_json_is_what_the_api_answers(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    evidence = samples.evidence(overlapping=Estimate(1.0, None, 1.0, None, 1, 1))
    leaking = samples.task(evidence=evidence)
    assert report("--json", "--url", serve(leaking)) == 1
    expected = diagnosis_of(view(None, tasks=[leaking]))
    assert json.loads(capsys.readouterr().out) == json.loads(
        json.dumps(dataclasses.asdict(expected))
    )


def test_an_exporter_that_is_not_there_is_told_with_the_next_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    listener = bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    assert report("--url", url) == 2
    assert "is the exporter running there? Give its address with --url" in capsys.readouterr().err


def test_a_server_that_is_no_exporter_is_told_as_such(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report("--url", serve() + "nowhere") == 2
    assert "Not Found" in capsys.readouterr().err
    assert report("--url", "no-url") == 2


@pytest.mark.parametrize("body", [{"status": "success"}, ["suspects"], None, "suspects"])
def test_json_that_is_no_diagnosis_is_told_as_such(
    body: object, answer: Callable[[object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answer(body)
    for arguments in ([], ["--json"]):
        assert report(*arguments) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "no diagnosis at http://localhost:9808/api/v1/diagnosis" in shown.err


def test_an_answer_of_another_version_is_told_with_the_place_and_printed_as_json(
    answer: Callable[[object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    body: dict[str, Any] = {"suspects": [{"worker": "celery@web1"}], "cleared": [], "workers": []}
    answer(body)
    assert report() == 2
    shown = capsys.readouterr()
    assert "diagnosis.suspects[0].task: missing" in shown.err
    assert "another version" in shown.err
    assert shown.out == ""
    assert report("--json") == 1
    assert json.loads(capsys.readouterr().out) == body
