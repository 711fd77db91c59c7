"""Run a DICOM node: it receives bone scans, segments them and sends the results to a PACS.

CONFIG is a TOML file, for instance:

  spool = "/var/lib/doubleunet-bs"      # received files, results, queue: patient data, for the node's account only
  model = "/models/fold_01"             # a fold or an exported model; with `server`, its name there
  # skeleton = "/models/skeleton"       # model of the skeleton: adds the Bone Scan Index
  # weights = "icrp110-female"          # its weight table (default: icrp110 by the sex of the patient)
  # engine = "openvino"                 # as in `predict`
  # server = "grpc://gpu:8500"
  # quiet_seconds = 120                 # seconds without a new file before a study is segmented
  # allow_missing_view = false
  # keep_days = 7                       # then files and results of a finished study are removed
  # min_free_mb = 1024                  # below this, scans are refused (status A700)

  [receive]
  ae_title = "BONESCAN"
  host = "0.0.0.0"                      # default 127.0.0.1: this machine only
  port = 11112
  [[receive.from]]                      # nobody else may send
  ae_title = "CAMERA1"
  address = "10.0.0.5"

  # [watch]                             # another source: copies of new files are taken
  # folder = "/data/export"

  [[send]]                              # none: results stay in the spool for keep_days
  ae_title = "PACS"
  host = "10.0.0.2"
  port = 104
  [[send]]
  name = "archive"
  url = "https://pacs.hospital/dicom-web"
  # token = "ARCHIVE_TOKEN"             # environment variable with a bearer token

  [monitor]                             # /health and /metrics (Prometheus)
  port = 9090

  # [tls]                               # for `tls = true` in [receive] and [[send]]; both sides show certificates
  # certificate = "node.pem"
  # key = "node.key"
  # authority = "hospital.pem"

Examples:
  doubleunet-bs node node.toml --check
  doubleunet-bs node node.toml
  doubleunet-bs node node.toml --list

Writes into the spool, and sends on: a segmentation, reports and the overlay of each scan, with the patient's identity.
A scan is acknowledged once it is safely on disk. A killed node continues where it was: it loses nothing, and what it
sends again has the same UIDs. Prints one line of JSON per event, without
names, dates or UIDs of patients. Ctrl-C or SIGTERM ends it after the study that was begun.

Exit codes: 0 stopped by a signal, 1 it cannot start, 2 wrong configuration.
Research software, not a medical device: not for diagnosis or treatment.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `node`."""
    parser.add_argument("config", metavar="CONFIG", help="configuration file (TOML)")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="check the configuration, print what it means, and stop")
    choice.add_argument("--list", action="store_true", help="list the studies in the spool with state and reason")


def run(args: argparse.Namespace) -> int:
    """Run the node."""
    import importlib.util
    import sys

    from doubleunet_bs.errors import SettingsError, missing_extra
    from doubleunet_bs.node.settings import read_settings

    settings = read_settings(args.config)
    from doubleunet_bs.node.monitor import list_studies, unsent_text

    if args.list:
        print(list_studies(settings.spool), unsent_text(settings), sep="\n", end="")
        return 0
    for package in ("pynetdicom", "dicomweb_client"):
        if importlib.util.find_spec(package) is None:
            raise missing_extra("node")
    from doubleunet_bs.node.run_node import run_node, startup_report

    try:
        report = startup_report(settings)
    except SettingsError as error:
        raise SettingsError(f"{args.config}: {error}") from None
    if args.check:
        print(report, unsent_text(settings), sep="\n", end="")
        return 0
    print(report, file=sys.stderr, flush=True)
    return run_node(settings)
