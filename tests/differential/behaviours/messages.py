"""Runs of which tools beside Celery tell: tasks that send others, fail, are tried again, or log."""

from __future__ import annotations

import logging
from typing import Any

from celery import chain, group
from celery.exceptions import Ignore

from tests.differential.behaviour import Observation, Run, behaviour, id_of_sent

logger = logging.getLogger("differential")


def to_send(run: Run, number: int) -> Any:
    """A task for the same worker."""
    request = run.task.request
    nothing = run.task.app.tasks["differential.nothing"]
    queue = request.delivery_info["routing_key"]
    return nothing.si().set(task_id=id_of_sent(request.id, number), queue=queue)


@behaviour(sends=2)
def sends_a_chain(run: Run) -> Observation:
    chain(to_send(run, 0), to_send(run, 1)).delay()
    return {}


@behaviour(sends=3)
def sends_a_group_within_a_chain(run: Run) -> Observation:
    chain(to_send(run, 0), group(to_send(run, 1), to_send(run, 2))).delay()
    return {}


@behaviour(max_retries=2)
def is_tried_again(run: Run) -> Observation:
    retries = run.task.request.retries
    if retries < 2:
        raise run.task.retry(exc=LookupError(f"{retries}"), countdown=0)
    return {"retries": retries}


@behaviour(max_retries=1)
def is_tried_in_vain(run: Run) -> Observation:
    raise run.task.retry(exc=LookupError("never"), countdown=0)


@behaviour(sends=1)
def sends_and_fails(run: Run) -> Observation:
    to_send(run, 0).delay()
    try:
        return {}["nothing"]
    except KeyError as error:
        raise ValueError("fails") from error


@behaviour(throws=(LookupError,))
def fails_as_expected(run: Run) -> Observation:
    raise LookupError("expected")


@behaviour(answers=False)
def is_ignored(run: Run) -> Observation:
    raise Ignore


@behaviour()
def logs_an_error(run: Run) -> Observation:
    logger.warning("first")
    try:
        int("x")
    except ValueError:
        logger.exception("logged")
    return {}
