"""The command `doubleunet-bs VERB` (or `python -m doubleunet_bs VERB`): runs a verb, turns errors into exit codes."""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence

from doubleunet_bs import __version__
from doubleunet_bs.errors import BoneScanError, os_reason

# verb -> one line of help. Each verb is a module of doubleunet_bs.commands ("_" for "-") with `add_arguments(parser)`,
# `run(args) -> int` and its long help as docstring.
VERBS = {
    "demo": "run the whole pipeline on synthetic scans",
    "phantom": "write synthetic bone scans with lesions",
    "inspect": "show how a scan is read and prepared",
    "prepare": "turn DICOM scans and Labelme annotations into shards for training",
    "train": "train a fold of one of the paper's experiments and export it",
    "evaluate": "score trained folds on scans they have not seen, or compare runs",
    "predict": "segment scans with a trained fold",
    "rank": "rank scans by how much their annotation should help",
    "collect": "collect the results of predict in one table",
    "ensemble": "combine trained folds into one model",
    "serve-package": "package a model for TensorFlow Serving",
    "export-nnunet": "write shards as a data set of nnU-Net v2",
    "node": "receive scans from a PACS, segment them and send the results back",
}
DESCRIPTION = "Segment bone metastases on whole-body bone scans with the Double U-Net."
EPILOG = """\
`doubleunet-bs VERB --help` explains a verb. Start with `doubleunet-bs demo`: it needs no data.

Exit codes: 0 done, 1 the work failed, 2 wrong arguments, 130 interrupted.
Research software, not a medical device: not for diagnosis or treatment.
"""


def run_command(work: Callable[[], int | None]) -> int:
    """Run `work` and return its exit code: 0 done, 1 the work failed, 2 wrong arguments, 130 interrupted.

    An error of this package becomes one line on standard error. A closed pipe (`... | head`) gives exit code 1 and no
    message.
    """
    try:
        return work() or 0
    except BoneScanError as error:
        # One line, but for the faults of a whole configuration.
        print(*(f"error: {line}" for line in str(error).splitlines()), sep="\n", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        else:
            # For instance a full disk or a folder without permission.
            print(
                "error:",
                f"{error.filename}: {os_reason(error)}" if error.filename else os_reason(error),
                file=sys.stderr,
            )
        return 1
    except KeyboardInterrupt as stop:
        print(f"interrupted: {stop}" if str(stop) else "interrupted", file=sys.stderr)
        return 130


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The options of a command line; `command` is the `run` of its verb. `--help` and errors end the process."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="doubleunet-bs", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"doubleunet-bs {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, summary in VERBS.items():
        # Only the verb that runs is imported, so that --help answers at once.
        if list(argv[:1]) == [verb]:
            command = importlib.import_module(f"doubleunet_bs.commands.{verb.replace('-', '_')}")
            sub = verbs.add_parser(verb, help=summary, description=command.__doc__, formatter_class=raw)
            command.add_arguments(sub)
            sub.set_defaults(command=command.run)
        else:
            verbs.add_parser(verb, help=summary, add_help=False)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse `argv` (default: the command line), run the verb, return the exit code."""
    # Names of files and labels may hold what the terminal or the log cannot show.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    given = sys.argv[1:] if argv is None else argv
    args = parse_arguments(given)
    # An empty path would be the folder that one stands in.
    for before, argument in zip(given, given[1:], strict=False):
        if not argument or (argument.startswith("--") and argument.endswith("=")):
            name = argument[:-1] or f"the argument behind {before}"
            print(f"error: {name} is empty: give a value, a variable may not be set", file=sys.stderr)
            return 2
    return run_command(lambda: args.command(args))


if __name__ == "__main__":
    sys.exit(main())
