"""A Slurm of one node, this machine, from the distribution's packages (Debian: slurm-wlm, munge), for as long as a test runs.

Everything lies in a folder of the test and listens on free ports of the loopback interface; nothing in /etc is read or
written. The controller and the node's daemon run as the user of the test.
"""

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")
CONFIGURATION = """
ClusterName=onenode
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def missing_programs() -> list[str]:
    """What of Slurm and munge is not installed."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


class OneNodeSlurm:
    """A running Slurm. Use as a context manager.

    Args:
        folder: empty; for all of its files. Its path must be short: a socket lies in it.
        cpus: that the node offers.
    """

    def __init__(self, folder: Path, cpus: int):
        self.folder, self.cpus, self._daemons = folder, cpus, []
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]),
            "SLURM_CONF": str(folder / "slurm.conf"),
        }

    def __enter__(self) -> Self:
        folder = self.folder
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        os.chmod(folder, 0o755)
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        host = socket.gethostname().split(".")[0]
        (folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                folder=folder,
                host=host,
                user=getpass.getuser(),
                cpus=self.cpus,
                controller_port=_free_port(),
                node_port=_free_port(),
            )
        )
        files = {name: folder / f"munge.{name}" for name in ("socket", "pid", "log", "seed")}
        self._start(
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={files['socket']}",
            f"--pid-file={files['pid']}",
            f"--log-file={files['log']}",
            f"--seed-file={files['seed']}",
        )
        _wait(files["socket"].exists, 10, "munged does not answer")
        self._start("slurmctld", "-D")
        self._start("slurmd", "-D", "-N", host)
        _wait(lambda: "idle" in self.run("sinfo", "--noheader", "--format=%T", check=False), 60, self.logs)
        return self

    def __exit__(self, *exception) -> None:
        self.run("scancel", "--user", getpass.getuser(), check=False)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def run(self, *command, check: bool = True, **environment) -> str:
        """Standard output of a command of Slurm."""
        done = subprocess.run(
            [str(part) for part in command],
            env={**self.environment, **{name: str(value) for name, value in environment.items()}},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stderr}")
        return done.stdout

    def states(self, job: str) -> dict[str, str]:
        """Task of an array job -> its state in Slurm's words (PENDING, RUNNING, COMPLETED, FAILED ...)."""
        found = {}
        for line in self.run("scontrol", "--oneliner", "show", "job", job).splitlines():
            fields = dict(part.split("=", 1) for part in line.split() if "=" in part)
            if "ArrayTaskId" in fields:
                for task in _tasks(fields["ArrayTaskId"]):
                    found[task] = fields["JobState"]
        return found

    def wait(self, job: str, seconds: float) -> dict[str, str]:
        """The states of an array job once none of its tasks waits or runs any more."""
        states: dict[str, str] = {}

        def ended() -> bool:
            states.clear()
            states.update(self.states(job))
            return bool(states) and not set(states.values()) & {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"}

        _wait(ended, seconds, lambda: f"still {states}\n{self.logs()}")
        return states

    def _start(self, *command: str) -> None:
        with open(self.folder / f"{command[0]}.out", "w") as out:
            self._daemons.append(
                subprocess.Popen(command, env=self.environment, stdout=out, stderr=subprocess.STDOUT, cwd=self.folder)
            )

    def logs(self) -> str:
        """The ends of what the daemons have written."""
        return "\n".join(
            f"{path.name}: {path.read_text(errors='replace')[-1500:]}"
            for name in ("*.log", "*.out")
            for path in sorted(self.folder.glob(name))
        )


def _tasks(text: str) -> list[str]:
    """ "0-2,5%1" -> 0, 1, 2, 5: the tasks that wait are listed together."""
    tasks = []
    for part in text.split("%")[0].split(","):
        first, _, last = part.partition("-")
        tasks += [str(number) for number in range(int(first), int(last or first) + 1)]
    return tasks


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(condition, seconds: float, what) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what() if callable(what) else what)
        time.sleep(0.3)
