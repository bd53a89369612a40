"""The command `snnsl`: a few lines per verb over the API; nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import typer

from snnsl_plugin.errors import SaidElsewhere, SnnslError

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and says in one sentence what went wrong.

    Args:
        arguments: the words after `snnsl`; those of this process where omitted.

    Returns:
        The exit status: 0 done, 1 the recipe or the call is wrong, 2 the run failed, 130 interrupted.
    """
    from snnsl_plugin.cli.app import app

    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = typer.main.get_command(app).main(words, prog_name="snnsl", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:  # a usage error, for which click would exit with 2
        context = getattr(error, "ctx", None)
        if not str(error):  # the help was asked for by saying nothing, and is printed
            return 1
        return _say(f"{error} (see: {context.command_path if context else 'snnsl'} --help)", 1)
    except SaidElsewhere as error:  # one of several processes speaks for all
        return error.exit_status
    except SnnslError as error:
        return _say(str(error), error.exit_status)
    except (typer.Abort, KeyboardInterrupt):
        return _say("interrupted", INTERRUPTED)
    except BrokenPipeError:  # `snnsl cat digits | head`: nobody reads on, which is no failure of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _say(f"{place}{error.strerror or error}: choose another folder, or make room and rights there", 2)
    except Exception as error:
        if {"-v", "--verbose"} & set(words):
            traceback.print_exc()
            return 2
        if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error) or "out of memory" in str(error):
            return _say("not enough memory: lower train.batch_size, the encoder's T, or the width of the model", 2)
        sentence = " ".join(str(error).split()) or "no message"
        return _say(f"unexpected {type(error).__name__}: {sentence} (snnsl -v ... shows where)", 2)
    return status if isinstance(status, int) else 0


def _say(message: str, status: int) -> int:
    print(message, file=sys.stderr)
    return status
