"""Tickets are handed out once, come back when they are lost, and are never forgotten, whoever dies when."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.trial import TrialState
from pydantic import TypeAdapter
from sqlalchemy.exc import OperationalError

from snnsl_plugin.errors import BadOption
from snnsl_plugin.recipe.tune_types import AnyParameter
from snnsl_plugin.tuning.database import Database, Unreachable
from snnsl_plugin.tuning.ledger import ATTEMPTS, HOLDER, LOST, RETRY_OF, TICKET, WHY, Holder, Ledger, Terms, quiet

TERMS = Terms("study", "0" * 16, ["accuracy", "connections"])
SPACE = TypeAdapter(dict[str, AnyParameter]).validate_python(
    {
        "a": {"name": "float", "low": 0.0, "high": 1.0},
        "word": ["one", "two"],
        "b": {"name": "float", "low": 0.0, "high": 1.0, "when": {"word": "one"}},
    }
)
ME, YOU = Holder("here", "0"), Holder("here", "1")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db"


def opened(url: str, heartbeat: int = 60, identity: str = "here") -> Ledger:
    return Ledger(Database(url), TERMS, heartbeat=heartbeat, identity=identity)


def claim(ledger: Ledger, holder: Holder = ME):
    return ledger.claim(holder, SPACE, "random", 0)


def tickets(ledger: Ledger) -> dict[int, list[str]]:
    """By ticket the states of all attempts at it."""
    found: dict[int, list[str]] = {}
    for trial in ledger.trials():
        found.setdefault(trial.user_attrs[TICKET], []).append(trial.state.name)
    return found


def test_each_ticket_is_handed_out_once_and_no_more_are_made(url):
    ledger = opened(url)
    ledger.fill(3, {"a": 0.25})
    ledger.fill(3, {"a": 0.5})
    taken = [claim(ledger) for _ in range(4)]
    assert [trial and trial.number for trial in taken] == [0, 1, 2, None]
    assert taken[0].params["a"] == 0.25
    assert ledger.trials()[0].user_attrs[HOLDER] == list(ME)


def test_a_ticket_that_is_lost_comes_back_with_its_values_and_what_it_had_reached(url):
    ledger = opened(url)
    ledger.fill(1, {})
    trial = claim(ledger)
    ledger.note(trial, "rung/3", {"accuracy": 0.5})
    assert ledger.lose(YOU, "it died") == {}
    assert ledger.lose(ME, "it died") == {0: True}
    again = claim(ledger, YOU)
    assert again.params == trial.params
    assert again.user_attrs["rung/3"] == {"accuracy": 0.5}
    assert again.user_attrs[RETRY_OF] == 0
    dead = ledger.trials()[0]
    assert (dead.state, dead.user_attrs[WHY]) == (TrialState.FAIL, "it died")
    assert not ledger.tell(trial, TrialState.COMPLETE, values=[1.0, 1.0])  # its result comes too late
    assert ledger.tell(again, TrialState.COMPLETE, values=[1.0, 1.0])
    assert tickets(ledger) == {0: ["FAIL", "COMPLETE"]}


def test_a_ticket_that_kills_its_workers_is_given_up(url):
    ledger = opened(url)
    ledger.fill(1, {})
    for attempt in range(ATTEMPTS):
        assert claim(ledger)
        assert ledger.lose(ME, "it died") == {attempt: attempt + 1 < ATTEMPTS}
    assert claim(ledger) is None
    assert tickets(ledger) == {0: ["FAIL"] * ATTEMPTS}


def test_an_interrupt_on_purpose_uses_up_no_attempt(url):
    ledger = opened(url)
    ledger.fill(1, {})
    for _ in range(ATTEMPTS + 1):
        assert claim(ledger)
        ledger.lose(None, "interrupted", place="here", counts=False)
    assert claim(ledger)


def test_who_dies_between_losing_a_ticket_and_putting_it_back_leaves_that_to_the_next(url, monkeypatch):
    ledger = opened(url)
    ledger.fill(2, {})
    claim(ledger)
    monkeypatch.setattr(ledger.study, "enqueue_trial", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        ledger.lose(ME, "it died")
    assert tickets(ledger) == {0: ["FAIL"], 1: ["WAITING"]}
    opened(url).fill(2, {})
    assert tickets(ledger) == {0: ["FAIL", "WAITING"], 1: ["WAITING"]}
    opened(url).fill(2, {})
    assert tickets(ledger) == {0: ["FAIL", "WAITING"], 1: ["WAITING"]}


def test_who_dies_before_a_ticket_is_signed_loses_nothing(url):
    ledger = opened(url)
    ledger.fill(1, {"a": 0.125})
    with quiet():
        ledger.study.ask()  # a worker that dies here has neither signed nor given a sign of life
    assert tickets(ledger) == {0: ["RUNNING"]}
    ledger.bury()
    again = claim(ledger)
    assert again.params["a"] == 0.125
    assert tickets(ledger) == {0: ["FAIL", "RUNNING"]}
    assert ledger.trials()[0].user_attrs[LOST] == 1


def test_a_trial_without_a_sign_of_life_is_buried_and_one_with_it_is_not(url):
    ledger = opened(url, heartbeat=1)
    ledger.fill(2, {})
    dead, living = claim(ledger), claim(ledger, YOU)
    with ledger._storage.engine.begin() as connection:  # as if its last one was ten seconds ago
        connection.exec_driver_sql(
            "UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-10 seconds') WHERE trial_id = "
            f"{dead._trial_id}"
        )
    ledger.bury()
    assert [trial.state.name for trial in ledger.trials()] == ["FAIL", "RUNNING", "WAITING"]
    assert ledger.trials()[0].user_attrs[WHY] == "it has given no sign of life"
    assert ledger.tell(living, TrialState.COMPLETE, values=[1.0, 1.0])


def test_one_study_has_one_heartbeat_whatever_a_later_machine_says(url):
    first, second = opened(url, heartbeat=60), opened(url, heartbeat=1, identity="there")
    assert (first.heartbeat, second.heartbeat) == (60, 60)
    assert second._storage.grace_period == 240
    assert (first.joined, second.joined, opened(url).joined) == (False, True, False)


def test_trials_can_be_added_and_not_taken_away(url):
    ledger = opened(url)
    ledger.fill(2, {})
    with pytest.raises(BadOption, match="is to have 2 trials, and 2 of them wait: trials can be added"):
        ledger.fill(1, {})
    ledger.fill(None, {})  # hours are the budget
    ledger.fill(3, {})
    assert len(tickets(ledger)) == 3


@pytest.mark.parametrize("sampler", ["qmc", "random", "tpe", "nsgaii"])
def test_no_two_trials_draw_the_same_whatever_the_seed(url, sampler):
    ledger = opened(url)
    ledger.fill(8, {})
    space = {key: parameter.model_copy(update={"when": {}}) for key, parameter in SPACE.items()}
    drawn = [ledger.claim(ME, space, sampler, 2**40).params for _ in range(8)]
    for key in ("a", "b"):
        assert len({params[key] for params in drawn}) == 8


def test_a_database_that_is_away_is_told_from_one_that_is_wrong(url):
    database = Database(url)
    with pytest.raises(Unreachable, match="gone: check the folder"), database.explained():
        raise OperationalError("SELECT", {}, Exception("gone"))


def test_a_password_is_shown_nowhere():
    for url in ("postgresql://me:secret@host/db", "postgresql://host/db?user=me&password=secret"):
        database = Database(url)
        assert "secret" not in database.shown
        assert "secret" in database.url
    with pytest.raises(BadOption, match="sslpassword") as raised:
        Database("postgresql://host/db?sslpassword=secret")
    assert "=secret" not in str(raised.value)
