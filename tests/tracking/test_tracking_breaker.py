from __future__ import annotations

import logging

import pytest

from snnsl_plugin.tracking import breaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def _fail() -> bool:
    raise ConnectionError("refused")


def test_the_pause_grows_from_5_to_60_seconds_and_success_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(breaker, "time", clock)
    guard = breaker.Breaker()
    for pause in (5, 10, 20, 40, 60, 60):
        assert not guard.call(_fail)
        clock.now += pause - 0.1
        assert not guard.call(lambda: pytest.fail("called while the breaker was open"))
        clock.now += 0.1
    assert guard.call(lambda: True)
    assert not guard.call(_fail)
    clock.now += 5
    assert guard.call(lambda: True)


def test_a_failure_is_logged_once_and_so_is_the_return(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    monkeypatch.setattr(breaker, "time", clock)
    guard = breaker.Breaker()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            guard.call(_fail)
            clock.now += 60
        guard.call(lambda: True)
        guard.call(lambda: True)
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "MLflow did not take it and is tried again, all of it is in the run folder",
        "MLflow is back",
    ]


def test_an_interrupt_is_not_swallowed() -> None:
    def interrupt() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        breaker.Breaker().call(interrupt)
