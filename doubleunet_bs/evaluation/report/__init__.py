"""`report.html`: one self-contained file that shows a run to somebody who has not made it (decided here)."""

from doubleunet_bs.evaluation.report.report import REPORT, write_report

__all__ = ["REPORT", "write_report"]
