"""The command line: `python -m doubleunet_bs VERB`, also installed as `doubleunet-bs`."""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence

from doubleunet_bs import __version__
from doubleunet_bs.errors import BoneScanError

# verb -> one line of help; each verb is the module doubleunet_bs.commands.VERB, "_" for "-", with
# `add_arguments(parser)`, `run(args) -> int` and its docstring as the long help.
VERBS = {
    "phantom": "write a cohort of synthetic whole-body bone scans with lesions",
    "inspect": "show what is understood of a scan before anything is prepared",
    "prepare": "turn DICOM scans and Labelme annotations into shards for training",
    "predict": "segment scans with a trained fold",
    "ensemble": "make one model of several trained folds",
    "serve-package": "put a model into a repository for TensorFlow Serving",
}


def run_command(work: Callable[[], int | None]) -> int:
    """Run `work` and return its exit code: 0 done, 1 the work failed, 2 wrong arguments, 130 interrupted.

    An error of this package becomes one line on standard error; a closed pipe (`... | head`) is passed over in
    silence, with exit code 1.
    """
    try:
        return work() or 0
    except BoneScanError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        else:
            # A full disk, a folder without permission: nothing this package could have known before.
            print("error:", f"{error.filename}: {error.strerror}" if error.filename else error, file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"interrupted: {stop}" if str(stop) else "interrupted", file=sys.stderr)
        return 130


def main(argv: Sequence[str] | None = None) -> int:
    """Parse `argv`, run the verb, return the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="doubleunet-bs", description=__doc__)
    parser.add_argument("--version", action="version", version=f"doubleunet-bs {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, summary in VERBS.items():
        # Only the verb that runs is imported, so that --help answers at once.
        if argv[:1] == [verb]:
            command = importlib.import_module(f"doubleunet_bs.commands.{verb.replace('-', '_')}")
            sub = verbs.add_parser(
                verb, help=summary, description=command.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
            )
            command.add_arguments(sub)
            sub.set_defaults(run=command.run)
        else:
            verbs.add_parser(verb, help=summary, add_help=False)
    args = parser.parse_args(argv)
    return run_command(lambda: args.run(args))


if __name__ == "__main__":
    sys.exit(main())
