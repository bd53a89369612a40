"""An NNI experiment that tunes a recipe: how sparse, how much to exchange, how fast to learn.

    python nni_experiment.py --trials 12 --concurrency 2

NNI's web server listens on every network interface and asks nobody for a password: whoever reaches the port reads
everything, and may start commands on this machine. So this script runs itself in a network of its own, where there is
nobody else. That takes Linux and `unshare`; elsewhere it refuses, unless --listen-on-all-interfaces says to go on.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import shlex
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from snnsl_plugin.recipe.load import load
from snnsl_plugin.tuning.nni_format import from_nni, to_nni

HERE = Path(__file__).resolve().parent
RECIPE = HERE / "nni_trial.yaml"
#: The keys that the recipe's block `tune` searches, in NNI's format.
SPACE = load(RECIPE).tune.space
SEARCH_SPACE = to_nni(SPACE)
ALONE = ["unshare", "--user", "--map-root-user", "--net", "--"]
REFUSAL = (
    "NNI would listen on all network interfaces without a password, and a network of its own cannot be made here "
    "({}): run this where `unshare --user --net` works, or accept it with --listen-on-all-interfaces"
)


def main() -> int:
    """Runs the experiment, or, where NNI calls for it, one trial; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--concurrency", type=int, default=1, help="trials at a time")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--seed", type=int, default=0, help="of the tuner")
    parser.add_argument("--folder", type=Path, default=Path("runs/nni"), help="for the study and NNI's own files")
    parser.add_argument("--listen-on-all-interfaces", action="store_true", help="let anyone in who reaches the port")
    parser.add_argument("--trial", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.trial:
        trial()
        return 0
    if not arguments.listen_on_all_interfaces and reachable():
        return start_again_alone()
    raise_loopback()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with nobody_left_behind():
            return experiment(arguments)
    except KeyboardInterrupt:
        print("interrupted; the study keeps what is finished, and the same command goes on from there", file=sys.stderr)
        return 130


def trial() -> None:
    """Trains the recipe with the parameters from NNI, and reports what it really trained with."""
    import nni

    from snnsl_plugin import run
    from snnsl_plugin.recipe.space import changed
    from snnsl_plugin.training.events import Epoch

    def report(phase: str, event: Any) -> None:
        if isinstance(event, Epoch):
            nni.report_intermediate_result(event.validation_accuracy)

    parameters = nni.get_next_parameter()
    recipe = changed(load(RECIPE), from_nni(SPACE, parameters))
    # Tuned on the validation split: the test split is for the end, and is not even read.
    result = run(recipe, run_dir=Path(os.environ["NNI_OUTPUT_DIR"], "run"), on_event=report, judge="validation")
    # NNI mixes up the parameters of trials that run at the same time, so each one says its own. They are taken from
    # the recipe that was trained.
    used = {key: value_at(recipe.model_dump(mode="json", by_alias=True), key) for key in parameters}
    nni.report_final_result({"default": result["accuracy"]["validation"], "parameters": used})


def experiment(arguments: argparse.Namespace) -> int:
    """Runs the trials, prints what each one reported, and writes it to `trials.json`."""
    from nni.experiment import Experiment

    from snnsl_plugin.for_nni import registration
    from snnsl_plugin.for_nni.tuner import check_options

    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    class_args = {
        "optimize_mode": "maximize",
        "sampler": "tpe",
        "seed": arguments.seed,
        "storage": f"sqlite:///{folder}/study.db",
        "study_name": "digits",
    }
    # What is wrong here would end, much later, as "Tuner did not connect in 10 seconds".
    check_options(SEARCH_SPACE, **class_args)
    print(f"{registration.NAME} is registered in {registration.register_()}")

    nni_experiment = Experiment("local")
    config = nni_experiment.config
    config.experiment_working_directory = folder
    config.trial_code_directory = HERE
    config.trial_command = shlex.join([sys.executable, str(HERE / Path(__file__).name), "--trial"])
    config.search_space = SEARCH_SPACE
    config.tuner.name = registration.NAME
    config.tuner.class_args = class_args
    config.max_trial_number = arguments.trials
    config.trial_concurrency = arguments.concurrency
    try:
        done = nni_experiment.run(arguments.port)
        if done is None:  # NNI catches Ctrl-C, stops and returns
            raise KeyboardInterrupt
        trials = reports(nni_experiment)
    finally:
        nni_experiment.stop()
    write(folder / "trials.json", trials)
    for each in trials:
        print(each["trial"], each["status"], each["result"], each["parameters"])
    return 0 if done and all(each["status"] == "SUCCEEDED" for each in trials) else 2


def reports(nni_experiment: Any) -> list[dict[str, Any]]:
    """What the trials said of themselves; `hyperParameters` of NNI may be another trial's."""
    found = []
    for job in nni_experiment.list_trial_jobs():
        final = job.finalMetricData[0].data if job.finalMetricData else {}
        found.append(
            {
                "trial": job.trialJobId,
                "status": job.status,
                "result": final.get("default"),
                "parameters": final.get("parameters"),
            }
        )
    return found


def value_at(data: Any, key: str) -> Any:
    """The value of a dotted key."""
    for part in key.split("."):
        data = data[part]
    return data


def write(path: Path, content: Any) -> None:
    """Writes JSON, whole or not at all."""
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(content, indent=1))
    draft.replace(path)


def reachable() -> bool:
    """Whether a network interface besides the loopback is up."""
    return any(interface.isup for name, interface in psutil.net_if_stats().items() if name != "lo")


def start_again_alone() -> int:
    """Replaces this process by the same command in a network of its own; returns only where that is impossible."""
    try:
        subprocess.run([*ALONE, "true"], capture_output=True, text=True, check=True)
        os.execvp(ALONE[0], [*ALONE, sys.executable, *sys.argv])
    except OSError as error:
        reason = f"unshare: {error.strerror}"
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip()
    print(REFUSAL.format(reason), file=sys.stderr)
    return 1


def raise_loopback() -> None:
    """Brings up `lo`, which is down in a new network."""
    if not sys.platform.startswith("linux") or psutil.net_if_stats()["lo"].isup:
        return
    get_flags, set_flags, up = 0x8913, 0x8914, 0x1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP of linux/sockios.h
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, get_flags, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", answer)[1]
        fcntl.ioctl(control, set_flags, struct.pack("16sh14x", b"lo", flags | up))


@contextlib.contextmanager
def nobody_left_behind() -> Iterator[None]:
    """Ends every process that was started inside, and those that lost their parent, however it ends."""
    if sys.platform.startswith("linux"):
        adopt_orphans = 36  # PR_SET_CHILD_SUBREAPER of linux/prctl.h
        ctypes.CDLL(None).prctl(adopt_orphans, 1, 0, 0, 0)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        patience = 10.0
        while children := psutil.Process().children(recursive=True):
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.terminate() if patience else child.kill()
            psutil.wait_procs(children, timeout=patience or 1.0)
            patience = 0.0


if __name__ == "__main__":
    sys.exit(main())
