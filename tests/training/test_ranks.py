"""Who is who among processes that train together, and what one tells another of an error."""

import signal

import pytest
from torch import distributed

from snnsl_plugin.errors import BadOption, BadRecipe, Diverged, LostRank, RankFailed, Stopped, UnknownName
from snnsl_plugin.training import ranks, torchrun
from snnsl_plugin.training.ranks import ALONE, Ranks, is_loss, lost


def test_a_process_of_its_own_asks_nobody():
    assert ALONE.leads
    assert ALONE.sum(1.5, 2) == [1.5, 2.0]
    assert ALONE.first(lambda: "made") == "made"
    with pytest.raises(Diverged), ALONE.agreed():
        raise Diverged("as it is")


def test_only_rank_0_leads():
    assert [Ranks(rank, 3).leads for rank in range(3)] == [True, False, False]


@pytest.mark.parametrize("error", [BadOption("p=2: too much"), Diverged("the loss is nan")])
def test_an_error_of_ours_is_the_same_on_another_rank(error):
    with pytest.raises(type(error)) as met:
        ranks._raise(1, ranks._told(error))
    assert type(met.value) is type(error)
    assert str(met.value) == str(error)
    assert met.value.exit_status == error.exit_status


def test_a_reason_to_stop_of_the_callers_own_arrives_as_stopped():
    class Dominated(Stopped):
        pass

    with pytest.raises(Stopped, match="by 3 others") as met:
        ranks._raise(0, ranks._told(Dominated("by 3 others")))
    assert type(met.value) is Stopped


@pytest.mark.parametrize("error", [BadRecipe(["one", "two"]), UnknownName("rule", "x", ["y"])])
def test_an_error_that_is_built_from_more_than_a_sentence_arrives_as_one(error):
    with pytest.raises(RankFailed) as met:
        ranks._raise(2, ranks._told(error))
    assert str(met.value) == f"rank 2: {error}"
    assert met.value.exit_status == 1


def test_a_foreign_error_arrives_with_its_name():
    with pytest.raises(RankFailed, match=r"rank 1: ZeroDivisionError: by zero") as met:
        ranks._raise(1, ranks._told(ZeroDivisionError("by zero")))
    assert met.value.exit_status == 2


def test_an_error_of_a_lost_connection_is_told_from_others():
    assert is_loss(RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"))
    assert is_loss(distributed.DistBackendError("NCCL communicator was aborted"))
    assert not is_loss(RuntimeError("shape '[2]' is invalid"))
    assert not is_loss(Diverged("gloo"))


def test_the_sentence_says_what_and_the_way_out():
    gone = lost(Ranks(1, 4), RuntimeError("gloo: Connection closed by peer"), "start again with --resume")
    assert str(gone) == (
        "another of the 4 processes of this run has ended, and rank 1 cannot go on alone: start again with --resume"
    )
    assert "did not answer in time" in str(lost(Ranks(1, 4), RuntimeError("gloo: Timed out waiting"), ""))


def test_what_a_block_ends_with_is_written_down_once_and_signals_are_given_back():
    before, told = signal.getsignal(signal.SIGTERM), []

    def at_end(error):
        told.append((type(error), signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)))

    with pytest.raises(LostRank, match="--resume"), Ranks(0, 2).running("--resume", at_end):
        raise RuntimeError("gloo: Connection closed by peer")
    with pytest.raises(KeyboardInterrupt), ALONE.running("--resume", at_end):
        raise KeyboardInterrupt
    assert [kind for kind, *_ in told] == [LostRank, KeyboardInterrupt]
    assert told[0][1:] == (signal.SIG_IGN, signal.SIG_IGN)
    assert told[1][1] == before == signal.getsignal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, ALONE),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, ALONE),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Ranks(5, 8, 1)),
        ({"WORLD_SIZE": "8"}, ALONE),
    ],
)
def test_torchrun_says_who_is_who(monkeypatch, said, expected):
    for word in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(word, raising=False)
    for word, value in said.items():
        monkeypatch.setenv(word, value)
    assert torchrun.from_environment() == expected
    if expected == ALONE:
        with torchrun.together() as found:
            assert found == ALONE


@pytest.mark.parametrize("said", [("2", "2"), ("-1", "2"), ("first", "2"), ("0", "")])
def test_half_an_environment_is_refused(monkeypatch, said):
    monkeypatch.setenv("RANK", said[0])
    monkeypatch.setenv("WORLD_SIZE", said[1])
    with pytest.raises(BadOption, match="start the processes with torchrun, or unset both"):
        torchrun.from_environment()
