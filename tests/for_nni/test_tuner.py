"""The tuner against NNI's own tuners: same search spaces, same values, and a study that knows what happened."""

import json
import math
import subprocess
import sys
from functools import partial

import pytest
from nni.algorithms.hpo.random_tuner import RandomTuner
from nni.common.hpo_utils import deformat_parameters, format_search_space, validate_search_space
from optuna.trial import TrialState
from scipy import stats

from snnsl_plugin.errors import BadOption, MissingExtra, SnnslError, UnknownName
from snnsl_plugin.for_nni.space_format import TYPES
from snnsl_plugin.for_nni.tuner import OptunaClassArgsValidator, OptunaTuner, check_options

SPACES = {
    "choice": ["relu", 3, 0.5],
    "randint": [-2, 3],
    "uniform": [-1, 2.5],
    "quniform": [0.3, 2.7, 1],
    "loguniform": [1e-4, 10],
    "qloguniform": [0.3, 37.5, 2],
    "normal": [1, 2],
    "qnormal": [1, 2, 0.5],
    "lognormal": [0, 1],
    "qlognormal": [0, 1, 0.5],
}
DISCRETE = {
    "choice": {"relu", 3, 0.5},
    "randint": {-2, -1, 0, 1, 2},
    "quniform": {0.3, 1.0, 2.0, 2.7},
    "qloguniform": {0.3, *(2.0 * step for step in range(1, 19)), 37.5},
}
NESTED = {
    "layer": {
        "_type": "choice",
        "_value": [
            {"_name": "conv", "kernel": {"_type": "choice", "_value": [3, 5]}},
            {"_name": "linear", "width": {"_type": "quniform", "_value": [8, 64, 8]}},
            {"_name": "none"},
        ],
    },
    "train.lr": {"_type": "loguniform", "_value": [1e-4, 1e-1]},
}
DENSITY = {"density": {"_type": "uniform", "_value": [0.0, 1.0]}}


def space(type_, value=None):
    return {"x": {"_type": type_, "_value": SPACES[type_] if value is None else value}}


def tuner(search_space=DENSITY, **options):
    made = OptunaTuner(**{"sampler": "random", "seed": 0, **options})
    made.update_search_space(search_space)
    return made


def drawn(made, number):
    return [made.generate_parameters(each) for each in range(number)]


def states(made):
    return [trial.state for trial in made.study.get_trials()]


@pytest.fixture
def stored(tmp_path):
    """A tuner on a database, with what is given laid over."""
    return partial(tuner, storage=f"sqlite:///{tmp_path}/study.db", study_name="digits")


def nnis_own(params, search_space):
    """What NNI makes of the numbers in the study, with its own converters."""
    formatted = {}
    for key, spec in format_search_space(search_space).items():
        if not spec.is_activated_in(formatted):
            continue
        path = [part if isinstance(part, str) else NESTED["layer"]["_value"][part]["_name"] for part in key]
        ((name, held),) = [(k, v) for k, v in params.items() if k.partition(" (")[0] == "/".join(path)]
        if spec.type == "choice":
            labels = [value["_name"] if isinstance(value, dict) else value for value in spec.values]
            formatted[key] = labels.index(held)
        elif spec.type == "randint":
            formatted[key] = held - spec.values[0]
        elif name.endswith("(quantile)"):
            formatted[key] = stats.norm.ppf(held, spec.mu, spec.sigma)
        else:
            formatted[key] = math.log(held) if spec.log_distributed else held
    return deformat_parameters(formatted, format_search_space(search_space))


def test_a_space_that_is_no_multiple_of_its_step_is_cut_at_both_ends():
    assert {each["x"] for each in drawn(tuner(space("quniform")), 100)} == {0.3, 1.0, 2.0, 2.7}


def test_every_type_of_nnis_is_here():
    assert set(TYPES) == set(SPACES)
    for type_ in TYPES:
        assert validate_search_space(space(type_), raise_exception=True)


@pytest.mark.parametrize("search_space", [*map(space, SPACES), NESTED], ids=[*SPACES, "nested"])
def test_a_trial_gets_what_nni_makes_of_the_numbers_in_the_study(search_space):
    made = tuner(search_space)
    for given, trial in zip(drawn(made, 60), made.study.get_trials(), strict=True):
        theirs = nnis_own(trial.params, search_space)
        assert json.loads(json.dumps(given)) == given == trial.user_attrs["parameters"]
        assert flat(given).keys() == flat(theirs).keys()
        for key, value in flat(given).items():
            assert value == (flat(theirs)[key] if isinstance(value, str) else pytest.approx(flat(theirs)[key], 1e-9))


def flat(parameters, below=""):
    found = {}
    for key, value in parameters.items():
        found |= flat(value, f"{below}{key}/") if isinstance(value, dict) else {f"{below}{key}": value}
    return found


@pytest.mark.parametrize("type_", SPACES)
def test_the_values_are_spread_as_those_of_nnis_random_tuner(type_):
    theirs = RandomTuner(seed=1)
    theirs.update_search_space(space(type_))
    theirs.dedup = lambda params: params  # NNI would stop when a small space is used up
    number = 800
    ours = [each["x"] for each in drawn(tuner(space(type_)), number)]
    nnis = [theirs.generate_parameters(each)["x"] for each in range(number)]
    if type_ in DISCRETE:
        assert set(ours) == DISCRETE[type_]
        assert set(nnis) <= DISCRETE[type_]
    if type_ == "choice":
        ours, nnis = ([DISCRETE_ORDER.index(each) for each in drawn_] for drawn_ in (ours, nnis))
    # Two samples of 800 from one distribution differ by more than this once in 100,000 times.
    assert stats.ks_2samp(ours, nnis).statistic < 0.123


DISCRETE_ORDER = SPACES["choice"]


def test_nested_choices_hold_only_what_belongs_to_the_option():
    seen = {}
    for given in drawn(tuner(NESTED), 60):
        seen.setdefault(given["layer"]["_name"], set()).add(tuple(given["layer"]))
    assert seen == {"conv": {("_name", "kernel")}, "linear": {("_name", "width")}, "none": {("_name",)}}


def test_options_that_are_lists_or_nothing_reach_the_trial_as_they_are(stored):
    options = [[4, 8], [8, 16], None, True, "[4, 9]"]
    given = [each["x"] for each in drawn(stored(space("choice", options)), 60)]
    assert all(option in given for option in options)
    assert all(each in options for each in given)


@pytest.mark.parametrize(
    ("search_space", "sentence"),
    [
        ({}, "is empty"),
        ([], "must map names"),
        ({"x": 3}, "'x' must be"),
        ({"x": {"_type": "uniform"}}, "'x' must be"),
        (space("unifrom", [0, 1]), "'x' has the unknown type 'unifrom'; did you mean 'uniform'? (known: choice, "),
        (space("layer_choice", [1]), "unknown type 'layer_choice'"),
        (space("choice", []), "has no options"),
        (space("choice", [1, True]), "has the option True twice"),
        (space("choice", [1, math.nan]), "has the option nan, which is not JSON; use finite numbers"),
        (space("choice", [[1], [math.nan]]), "has the option [nan], which is not JSON"),
        (space("choice", [b"relu"]), "has the option b'relu', which is not JSON"),
        (space("choice", [{"_name": "a"}, {"_name": "a"}]), "has the option 'a' twice"),
        (space("choice", [{"_name": "a", "y": 3}]), "'x/a/y' must be"),
        (space("uniform", [1, 1]), "low 1 and high 1"),
        (space("uniform", [0, 1, 2]), "needs the numbers [low, high]"),
        (space("uniform", [0, math.inf]), "needs the numbers"),
        (space("uniform", ["0", 1]), "needs the numbers"),
        (space("loguniform", [0, 1]), "a logarithm needs one above 0"),
        (space("quniform", [0, 1]), "needs the numbers [low, high, q]"),
        (space("quniform", [0, 1, 0]), "has q 0"),
        (space("normal", [0, 0]), "has sigma 0"),
        (space("randint", [0, 2.5]), "needs whole numbers"),
        ({"a": {"_type": "choice", "_value": [{"_name": "b", "c": DENSITY["density"]}]}, "a/b/c": DENSITY["density"]},
         "two parameters are called 'a/b/c'"),
    ],
)  # fmt: skip
def test_a_wrong_search_space_is_a_sentence(search_space, sentence):
    with pytest.raises(BadOption) as caught:
        tuner(search_space)
    assert sentence in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_a_study_keeps_the_options_of_its_choices():
    made = tuner(space("choice", [1, 2]))
    drawn(made, 1)
    made.update_search_space(space("choice", [1, 2]))
    with pytest.raises(BadOption, match="give another study_name"):
        made.update_search_space(space("choice", [1, 2, 3]))
    made.update_search_space(DENSITY)
    assert list(made.generate_parameters(1)) == ["density"]


def test_a_trial_without_a_search_space_is_refused():
    with pytest.raises(BadOption, match="no search space yet"):
        OptunaTuner().generate_parameters(0)


@pytest.mark.parametrize(("mode", "best"), [("maximize", 0.9), ("minimize", 0.1)])
def test_results_reach_the_study_as_numbers_or_dicts(mode, best):
    made = tuner(optimize_mode=mode)
    given = drawn(made, 2)
    made.receive_trial_result(1, given[1], {"default": 0.1, "other": 3}, trial_job_id="job1")
    made.receive_trial_result(0, given[0], 0.9, trial_job_id="job0")
    assert [trial.value for trial in made.study.get_trials()] == [0.9, 0.1]
    assert made.study.best_value == best
    assert [trial.user_attrs["nni_trial"] for trial in made.study.get_trials()] == ["job0", "job1"]
    assert [trial.params for trial in made.study.get_trials()] == given


@pytest.mark.parametrize("value", [math.nan, math.inf, {"default": -math.inf}])
def test_a_result_that_is_not_finite_is_a_failed_trial(value, caplog):
    made = tuner()
    drawn(made, 1)
    made.receive_trial_result(0, {}, value)
    assert states(made) == [TrialState.FAIL]
    assert "counts as failed" in caplog.text


@pytest.mark.parametrize("value", ["0.9", None, {"accuracy": 0.9}, {"default": "0.9"}])
def test_a_result_without_a_number_is_refused(value):
    made = tuner()
    drawn(made, 1)
    with pytest.raises(BadOption, match='report a number, or a dict with one under "default"'):
        made.receive_trial_result(0, {}, value)
    assert states(made) == [TrialState.RUNNING]


def test_a_trial_that_fails_is_told_to_the_study(caplog):
    made = tuner()
    drawn(made, 2)
    made.trial_end(0, False)
    assert states(made) == [TrialState.FAIL, TrialState.RUNNING]
    made.receive_trial_result(0, {}, 0.5)
    assert states(made) == [TrialState.FAIL, TrialState.RUNNING]
    assert "came after its failure and is dropped" in caplog.text


def test_a_result_counts_whether_it_comes_before_or_after_the_end():
    made = tuner()
    drawn(made, 2)
    made.trial_end(0, True)
    made.receive_trial_result(0, {}, 0.5)
    made.receive_trial_result(1, {}, 0.6)
    made.trial_end(1, False)  # it had reported before it failed
    made.trial_end(7, False)  # NNI's own, made in the web page
    assert [(trial.state, trial.value) for trial in made.study.get_trials()] == [
        (TrialState.COMPLETE, 0.5),
        (TrialState.COMPLETE, 0.6),
    ]


def test_what_still_runs_at_the_end_of_the_experiment_has_failed():
    made = tuner()
    drawn(made, 3)
    made.receive_trial_result(1, {}, 0.5)
    made._on_exit()
    assert states(made) == [TrialState.FAIL, TrialState.COMPLETE, TrialState.FAIL]


@pytest.mark.parametrize("search_space", [*map(space, SPACES), NESTED], ids=[*SPACES, "nested"])
def test_finished_trials_of_another_experiment_are_imported(search_space, caplog):
    first = tuner(search_space)
    given = drawn(first, 20)
    second = tuner(search_space)
    records = [{"parameter": each, "value": number / 10} for number, each in enumerate(given)]
    second.import_data([json.dumps(records[0]), *records[1:]])
    assert "imported 20 of 20 finished trials" in caplog.text
    trials = second.study.get_trials()
    assert states(second) == [TrialState.COMPLETE] * len(trials) == [TrialState.COMPLETE] * 20
    assert [trial.value for trial in trials] == [number / 10 for number in range(20)]
    for trial, there in zip(trials, first.study.get_trials(), strict=True):
        assert trial.user_attrs["parameters"] == there.user_attrs["parameters"]
        assert trial.params.keys() == there.params.keys()
        theirs = nnis_own(trial.params, search_space)
        for key, value in flat(there.user_attrs["parameters"]).items():
            assert flat(theirs)[key] == (value if isinstance(value, str) else pytest.approx(value, 1e-6, 1e-6))


def test_what_cannot_be_imported_is_left_out_and_named(caplog):
    made = tuner({**DENSITY, "n": {"_type": "randint", "_value": [0, 3]}, **space("choice")})
    good = {"density": 0.5, "n": 1, "x": "relu"}
    made.import_data(
        [
            {"parameter": good, "value": 0.7},
            {"parameter": {**good, "density": 1.5}, "value": 0.8},
            {"parameter": {**good, "n": 3}, "value": 0.8},
            {"parameter": {**good, "n": 1.5}, "value": 0.8},
            {"parameter": {**good, "x": "tanh"}, "value": 0.8},
            {"parameter": {**good, "density": True}, "value": 0.8},
            {"parameter": {"density": 0.5}, "value": 0.8},
            {"parameter": good, "value": math.nan},
            {"parameter": good, "value": "much"},
        ]
    )
    assert [trial.value for trial in made.study.get_trials()] == [0.7]
    assert caplog.text.count("is not imported") == 8
    for reason in ("outside the search space", "no whole number", "none of its options", "is missing", "not finite"):
        assert reason in caplog.text


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"value": 0.5}, 'it has no "parameter"'),
        ({"parameter": {"density": 0.5}}, 'it has no "value"'),
        ({"parameter": None, "value": 0.5}, "'density' is missing"),
        ({"parameter": {"density": 0.5}, "value": 10**400}, "too large"),
        (None, "it is not {"),
        (3, "it is not {"),
        ([["parameter", "value"]], "it is not {"),
        ("x", "it is not JSON"),
        ("3", "it is not {"),
    ],
)
def test_a_record_that_is_no_trial_does_not_stop_the_import_of_others(record, reason, caplog):
    made = tuner()
    made.import_data(
        [{"parameter": {"density": 0.1}, "value": 0.1}, record, {"parameter": {"density": 0.2}, "value": 0.2}]
    )
    assert [trial.value for trial in made.study.get_trials()] == [0.1, 0.2]
    assert caplog.text.count("is not imported") == 1
    assert reason in caplog.text
    assert "imported 2 of 3 finished trials" in caplog.text


@pytest.mark.parametrize("data", [3, None, "x", {"parameter": {"density": 0.5}, "value": 0.5}])
def test_finished_trials_that_are_no_list_are_refused(data):
    with pytest.raises(BadOption, match="give a list of"):
        tuner().import_data(data)


def test_an_imported_trial_is_known_by_nnis_name_or_by_what_it_holds():
    made = tuner()
    (given,) = drawn(made, 1)
    made.receive_trial_result(0, given, 0.5, trial_job_id="job0")
    mixed_up = {"parameter": {"density": 0.25}, "value": 0.5, "trialJobId": "job0"}
    other = {"parameter": {"density": 0.25}, "value": 0.5, "trialJobId": "job1"}
    nameless = {"parameter": {"density": 0.75}, "value": 0.25}
    made.import_data([mixed_up, other, nameless, nameless, {"parameter": given, "value": 0.5}])
    assert [trial.params for trial in made.study.get_trials()] == [given, {"density": 0.25}, {"density": 0.75}]


def test_a_trials_own_report_of_its_parameters_is_believed():
    made = tuner()
    made.import_data([{"parameter": {"density": 0.1}, "value": {"default": 0.5, "parameters": {"density": 0.2}}}])
    assert [trial.params for trial in made.study.get_trials()] == [{"density": 0.2}]


def test_imported_trials_steer_the_sampler():
    made = tuner(sampler="tpe")
    made.import_data([{"parameter": {"density": i / 20}, "value": -abs(i / 20 - 0.3)} for i in range(21)])
    near = [abs(each["density"] - 0.3) < 0.15 for each in drawn(made, 20)]
    assert sum(near) > 12  # of 20, where chance gives 6


def test_the_same_seed_asks_the_same_until_the_study_holds_trials():
    assert drawn(tuner(seed=3), 5) == drawn(tuner(seed=3), 5) != drawn(tuner(seed=4), 5)
    imported = tuner(seed=3)
    imported.import_data([{"parameter": {"density": 0.5}, "value": 0.5}])
    assert not {each["density"] for each in drawn(imported, 5)} & {each["density"] for each in drawn(tuner(seed=3), 5)}


def test_a_study_in_a_database_goes_on_and_does_not_repeat_itself(stored):
    first = stored()
    given = drawn(first, 4)
    for number, each in enumerate(given):
        first.receive_trial_result(number, each, number / 10, trial_job_id=f"job{number}")
    second = stored()
    assert second.study.best_value == 0.3
    # NNI sends its finished trials again when an experiment is resumed, and has mixed them up.
    second.import_data(
        [{"parameter": given[3 - i], "value": i / 10, "trialJobId": f"job{i}"} for i in range(4)],
    )
    assert [trial.params for trial in second.study.get_trials()] == given
    assert not {each["density"] for each in drawn(second, 4)} & {each["density"] for each in given}
    assert len(second.study.get_trials()) == 8


def test_what_a_killed_tuner_left_running_has_failed(stored, monkeypatch):
    monkeypatch.setenv("NNI_LOG_DIRECTORY", "/experiments/a/log")
    drawn(stored(), 1)
    monkeypatch.setenv("NNI_LOG_DIRECTORY", "/experiments/b/log")
    drawn(stored(), 1)
    assert states(stored()) == [TrialState.RUNNING, TrialState.FAIL]


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        ({"optimize_mode": "max"}, BadOption, "optimize_mode is 'max'"),
        ({"sampler": "TPESampler"}, UnknownName, "unknown sampler 'TPESampler'"),
        ({"sampler": "__class__"}, UnknownName, "unknown sampler"),
        ({"sampler": ["tpe"]}, UnknownName, "unknown sampler"),
        ({"seed": -1}, BadOption, "seed is -1"),
        ({"seed": True}, BadOption, "seed is True"),
        ({"seed": 2**32}, BadOption, "in [0, 2**32)"),
        ({"study_name": "a"}, BadOption, "without a storage"),
        ({"storage": "sqlite:////tmp/a.db"}, BadOption, "needs a study_name"),
        ({"storage": "sqlite:///a.db", "study_name": "a"}, BadOption, "must have an absolute path"),
        ({"storage": "sqlite:///:memory:", "study_name": "a"}, BadOption, "must have an absolute path"),
        ({"storage": "sqlite:////no/such/folder/a.db", "study_name": "a"}, BadOption, "cannot be opened"),
        ({"storage": "nosuch://me:secret@host/a", "study_name": "a"}, BadOption, "nosuch://me:***@host/a"),
        ({"storage": "me:secret@host", "study_name": "a"}, BadOption, "storage is not the URL of a database"),
        ({"storage": "mysql+cymysql://me:secret@host/a", "study_name": "a"}, MissingExtra, "driver of this database"),
        ({"sampelr": "tpe"}, UnknownName, "did you mean 'sampler'?"),
    ],
)  # fmt: skip
def test_wrong_class_arguments_are_a_sentence_before_the_launch(options, kind, sentence):
    for check in (check_options, OptunaClassArgsValidator().validate_class_args):
        with pytest.raises(kind) as caught:
            check(**options)
        assert sentence in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)
    if "sampelr" not in options:
        with pytest.raises(kind):
            OptunaTuner(**options)


def test_a_sampler_whose_package_is_absent_says_which(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install cmaes"):
        check_options(sampler="cmaes")


def test_a_study_that_optimizes_the_other_way_is_refused(stored):
    stored()
    with pytest.raises(BadOption, match="was made to maximize, and optimize_mode is 'minimize'"):
        stored(optimize_mode="minimize")


def test_the_search_space_is_checked_before_the_launch_too(stored):
    drawn(stored(space("choice", [1, 2])), 1)
    options = {"storage": f"{stored.keywords['storage']}", "study_name": "digits"}
    check_options(space("choice", [1, 2]), **options)
    with pytest.raises(BadOption, match="the study holds 'x'"):
        check_options(space("choice", [1, 3]), **options)
    with pytest.raises(SnnslError, match="unknown type"):
        check_options(space("nothing", [1, 3]))


@pytest.mark.filterwarnings("ignore:QMCSampler is experimental")
@pytest.mark.parametrize("sampler", ["tpe", "random", "nsgaii", "gp", "qmc"])
def test_every_sampler_fills_a_mixed_space(sampler):
    made = tuner({**NESTED, **DENSITY}, sampler=sampler, seed=1)
    for number in range(14):
        given = made.generate_parameters(number)
        assert 0 <= given["density"] <= 1
        assert 1e-4 <= given["train.lr"] <= 1e-1
        made.receive_trial_result(number, given, given["density"])
    assert states(made) == [TrialState.COMPLETE] * 14


def test_the_tuner_starts_without_torch_and_within_the_ten_seconds_nni_gives_it():
    code = (
        "import time; begun = time.monotonic()\n"
        "from nni.__main__ import _create_algo\n"  # what NNI starts a tuner with
        "algo = {'className': 'snnsl_plugin.for_nni.tuner.OptunaTuner', 'codeDirectory': '.', 'classArgs': {}}\n"
        "_create_algo(algo, 'tuner')\n"
        "import json, sys\n"
        "heavy = ('torch', 'spikingjelly', 'torchvision', 'mlflow', 'pydantic')\n"
        "print(json.dumps([time.monotonic() - begun, [m for m in heavy if m in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    seconds, heavy = json.loads(done.stdout.splitlines()[-1])
    assert heavy == []
    assert seconds < 10
