"""A wait ends as soon as its condition holds, and else says what it saw last."""

from __future__ import annotations

import http.client

import pytest

from tests.integration.waiting import at_least, contains, equals, nothing, wait_for


def test_what_is_waited_for_is_answered() -> None:
    answers = iter([None, 0, 3])
    assert wait_for(lambda: next(answers), "anything") == 3


def test_it_may_have_to_be_something_certain() -> None:
    answers = iter([None, 0, 3, 5])
    assert wait_for(lambda: next(answers), "five", equals(5)) == 5


def test_a_wait_in_vain_says_what_was_seen_last() -> None:
    with pytest.raises(AssertionError, match="in vain for five; seen last: 3"):
        wait_for(lambda: 3, "five", equals(5), patience=0)


@pytest.mark.parametrize("error", [ConnectionRefusedError, http.client.RemoteDisconnected])
def test_a_server_that_does_not_answer_is_asked_again(error: type[Exception]) -> None:
    answers = iter([error("not now"), "an answer"])

    def ask() -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert wait_for(ask, "an answer") == "an answer"


def test_what_kept_a_server_from_answering_is_seen_last() -> None:
    def ask() -> None:
        raise ConnectionRefusedError("not now")

    with pytest.raises(AssertionError, match="seen last: ConnectionRefusedError"):
        wait_for(ask, "an answer", patience=0)


def test_conditions() -> None:
    assert [at_least(2)(seen) for seen in (None, 1, 2, 3)] == [False, False, True, True]
    assert [contains("b")(seen) for seen in ("a", "abc")] == [False, True]
    assert [nothing(seen) for seen in ([], [1])] == [True, False]
