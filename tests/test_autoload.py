"""One import turns the agent on."""

from __future__ import annotations

from celery import Celery
from celery.signals import worker_init

from celery_memory_exporter.agent.worker.steps import AgentStep, ReportStep
from celery_memory_exporter.autoload import install_in_worker


class Worker:
    """What Celery sends the signal of."""

    def __init__(self, app: Celery) -> None:
        self.app = app


def test_a_worker_of_any_app_that_is_about_to_be_built_gets_the_agent() -> None:
    for name in ("shop", "mail"):
        app = Celery(name, set_as_current=False)
        worker_init.send(sender=Worker(app))
        assert AgentStep in app.steps["worker"]
        assert ReportStep in app.steps["consumer"]


def test_an_app_without_a_worker_stays_as_it_is() -> None:
    app = Celery("shop", set_as_current=False)
    assert AgentStep not in app.steps["worker"]
    assert not hasattr(app, "celery_memory_settings")


def test_a_second_worker_of_an_app_changes_nothing() -> None:
    app = Celery("shop", set_as_current=False)
    install_in_worker(Worker(app))
    settings = app.celery_memory_settings
    install_in_worker(Worker(app))
    assert app.celery_memory_settings is settings
