"""A trained or exported fold, and a bone scan -> metastatic pixels in the geometry of the scan."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.errors import RunError
from doubleunet_bs.inference.engines import DEADLINE, Engine, check_choice, check_exported, choose_local, open_local
from doubleunet_bs.inference.model_description import ModelDescription
from doubleunet_bs.inference.model_folder import find_model
from doubleunet_bs.preparation.case import PreparedCase, prepare_scan
from doubleunet_bs.scans.bone_scan import BoneScan


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says of one scan.

    Attributes:
        case: pseudonym of the scan.
        masks: "anterior" and "posterior" -> uint8 array of the shape of the raw view (1024, 256): 1 where metastatic
            is the most probable class, 0 elsewhere. All 0 in a view that is missing, and outside of the prepared
            window.
        probabilities: the same names -> float32 array of that shape: probability of the metastatic class, between 0
            and 1.
        prepared: the scan as the network saw it: grey image, gains, body range, placements.
        warnings: of reading and preparing, one line each.
        model: the model's description.
        engine: what computed it and in which precision, for the record.
    """

    case: str
    masks: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray]
    prepared: PreparedCase
    warnings: tuple[str, ...]
    model: ModelDescription
    engine: str

    @property
    def grey(self) -> np.ndarray:
        """uint8 array of shape (rows, columns): the prepared image that went into the network."""
        return self.prepared.grey

    @property
    def gains(self) -> tuple[float, float]:
        """Brightness gains of the anterior and the posterior view."""
        return self.prepared.gains

    @property
    def lesion_pixels(self) -> dict[str, int]:
        """Number of metastatic pixels of each raw view."""
        return {view: int(np.count_nonzero(mask)) for view, mask in self.masks.items()}


class Predictor:
    """A model ready for scans.

    Args:
        model: a fold of a run (`RUN/fold_01`), or an exported `saved_model` folder, of a fold or an ensemble, wherever
            it has been copied. With engine "serving" also the name of a model on the server; given a folder, the server's
            model must be the one in it.
        engine: "tensorflow"; "openvino", an extra; "serving", a model server; "auto": see `engines.choose_local`.
        server: "grpc://HOST:PORT" or "http://HOST:PORT", for engine "serving" and no other.
        precision: "auto" is bfloat16 where the processor multiplies it in hardware; "float32", not with a server,
            which has its own.
        deadline: seconds within which a server must answer, tries after the first included; None: `engines.DEADLINE`.

    Attributes:
        description: the model's papers.
        engine: what computes, in words for the output and the record.

    Raises:
        RunError: no such model, one of another format, or damaged.
        SettingsError: see `engines.check_choice`.
        ServerError: the server does not answer, or not as it should.

    Example:
        >>> predictor = Predictor("RUN/fold_01")  # doctest: +SKIP
        >>> predictor.predict(read_scan("scan.dcm")).lesion_pixels  # doctest: +SKIP
        {'anterior': 412, 'posterior': 655}
    """

    def __init__(
        self,
        model: str | os.PathLike,
        engine: str = "auto",
        server: str | None = None,
        precision: str = "auto",
        deadline: float | None = None,
    ):
        check_choice(engine, precision, server, deadline)
        self.path = Path(model)
        if engine == "serving":
            from doubleunet_bs.inference.engine_serving import open_served

            local = find_model(self.path).description if self.path.is_dir() else None
            self.description, self._segmenter = open_served(
                server, str(model), local, DEADLINE if deadline is None else deadline
            )
        else:
            self.description, self._segmenter = _open_local(self.path, engine, precision)
        if self._segmenter.image_shape != self.description.image_shape:
            raise RunError(f"{self.path}: the model and its description disagree about the size of an image")
        self.engine = self._segmenter.name

    def predict(self, scan: BoneScan) -> Prediction:
        """Prepare a scan as the model's training scans were, segment it, and lay the result on the raw views.

        Args:
            scan: from `doubleunet_bs.scans.read_scan`.

        Raises:
            ScanError: the scan cannot be prepared.
        """
        return self.segment([self.prepare(scan)])[0]

    def prepare(self, scan: BoneScan) -> PreparedCase:
        """Prepare a scan as the model's training scans were. NumPy and OpenCV only: may run in another thread.

        Raises:
            ScanError: the scan cannot be prepared.
        """
        return prepare_scan(scan, settings=self.description.preparation)

    def segment(self, prepared: Sequence[PreparedCase]) -> list[Prediction]:
        """Segment prepared scans in one batch and lay the results on the raw views.

        May be called from several threads. Memory grows with the number of scans: a stream is cut into batches by the
        caller.

        Args:
            prepared: from `prepare`; an empty sequence gives an empty list.
        """
        if not prepared:
            return []
        probability, mask = self._segmenter(np.stack([case.grey for case in prepared]))
        return [self._lay_back(case, probability[place], mask[place]) for place, case in enumerate(prepared)]

    def _lay_back(self, prepared: PreparedCase, probability: np.ndarray, mask: np.ndarray) -> Prediction:
        masks, probabilities = prepared.map_back(mask), prepared.map_back(probability)
        for view in prepared.missing_views:
            # Whatever the network makes of an empty half, there is nothing it could be about.
            masks[view][:] = 0
            probabilities[view][:] = 0
        return Prediction(
            case=prepared.case,
            masks={view: masks[view] for view in VIEWS},
            probabilities={view: probabilities[view] for view in VIEWS},
            prepared=prepared,
            warnings=prepared.warnings,
            model=self.description,
            engine=self.engine,
        )


def _open_local(path: Path, engine: str, precision: str) -> tuple[ModelDescription, Engine]:
    """The description and the engine of whatever kind of model folder `path` is."""
    found = find_model(path)
    if found.saved_model is not None:
        return found.description, open_local(found.saved_model, choose_local(engine), precision)
    check_exported(path, found.saved_model, engine)
    from doubleunet_bs.tensorflow_setup import import_tensorflow

    tensorflow = import_tensorflow()
    from doubleunet_bs.inference.keras_model import Segmenter

    segmenter = Segmenter.from_keras(found.trained.model_path)
    segmenter.name = f"tensorflow {tensorflow.__version__}, float32, {found.trained.model_path.name}"
    return found.description, segmenter
