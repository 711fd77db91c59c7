"""Programs that need a process of their own, from one import of TensorFlow: a process that has imported and not yet
started it forks a child for each. A child costs a tenth of a second, an import four seconds of a processor.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TESTS = Path(__file__).resolve().parent

PARENT = """
import json, os, sys, traceback
tests, programs, at_once = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
sys.path[:0] = [tests, tests + "/training"]
from doubleunet_bs.tensorflow_setup import import_tensorflow
import_tensorflow()
import doubleunet_bs.training.run_training
failed = running = 0

def wait():
    global failed, running
    failed += os.wait()[1] != 0
    running -= 1

code = compile(sys.stdin.read(), "program", "exec")
for arguments in programs:
    if running == at_once:
        wait()
    running += 1
    if os.fork() == 0:
        status = 1
        try:
            sys.argv = ["program", *arguments]
            exec(code, {"__name__": "__main__"})
            status = 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
while running:
    wait()
sys.exit(failed)
"""


def run_forked(code: str, programs: Sequence[Sequence], at_once: int = 2) -> list[str]:
    """Run `code` once for each list of arguments, which it finds in `sys.argv[1:]`; it can import modules of the tests.

    Args:
        at_once: number of children that run side by side.

    Returns:
        The lines that they printed; with one at a time in the order of `programs`.
    """
    arguments = json.dumps([[str(word) for word in words] for words in programs])
    command = [sys.executable, "-c", PARENT, str(TESTS), arguments, str(at_once)]
    done = subprocess.run(command, input=code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()
