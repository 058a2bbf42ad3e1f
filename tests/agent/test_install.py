"""Turning the agent on."""

from __future__ import annotations

import subprocess
import sys

import pytest
from celery import Celery

from celery_memory_exporter.agent import install
from celery_memory_exporter.agent.settings import Settings
from celery_memory_exporter.agent.worker.steps import AgentStep, ReportStep


def test_an_app_gets_both_steps_however_often_it_is_asked() -> None:
    app = Celery("shop", set_as_current=False)
    first = Settings(max_tasks=7)
    install(app, first)
    install(app, Settings(max_tasks=8))
    assert AgentStep in app.steps["worker"]
    assert ReportStep in app.steps["consumer"]
    assert app.celery_memory_settings is first, "a second call changes nothing"


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_MEMORY_MAX_TASKS", "9")
    app = Celery("shop", set_as_current=False)
    install(app)
    assert app.celery_memory_settings == Settings(max_tasks=9)


def test_the_agent_loads_the_standard_library_and_celery_only() -> None:

    code = (
        "import sys, celery_memory_exporter.autoload, "
        "celery_memory_exporter.agent.worker.main_process;"
        "print([name for name in ('psutil', 'prometheus_client', 'objgraph', 'uvicorn') if name in "
        "sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert shown.strip() == "[]"
