"""`report.html`: one file that shows a run to somebody who did not make it."""

from doubleunet_bs.evaluation.report.report import REPORT, write_report

__all__ = ["REPORT", "write_report"]
