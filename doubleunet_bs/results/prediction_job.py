"""The second and the third step of `predict`: segment a scan, write its result."""

import dataclasses
import time

from doubleunet_bs.inference.predictor import Prediction, Predictor
from doubleunet_bs.results.previous_scan import check_another
from doubleunet_bs.deployment.report_scan import ReportScan
from doubleunet_bs.results.result_folder import WrittenResult, write_prediction
from doubleunet_bs.deployment.scan_reader import JobSettings, ReadScan


@dataclasses.dataclass(frozen=True)
class PredictionJob:
    """The steps behind `ScanReader`.

    Attributes:
        settings: of the run.
        predictor: the model.
        previous: for the report; None for none.
    """

    settings: JobSettings
    predictor: Predictor
    previous: ReportScan | None = None

    def compute(self, content: ReadScan) -> Prediction:
        """Segment a scan.

        Raises:
            RunError: the scan is the previous one itself.
        """
        if self.previous is not None:
            check_another(content.scan.case, self.previous.result["case"])
        return self.predictor.segment([content.prepared])[0]

    def write(self, content: ReadScan, prediction: Prediction) -> tuple[WrittenResult, float]:
        """Write the result of a scan; also return the seconds since its reading began."""
        written = write_prediction(
            self.settings.out,
            content.scan,
            prediction,
            self.predictor.engine,
            self.settings.overwrite,
            self.settings.outputs,
            content.study,
            content.labelme,
            self.previous,
        )
        return written, time.perf_counter() - content.begun
