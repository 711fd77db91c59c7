"""A model and a bone scan -> metastatic pixels on the raw views. The public way to use a model."""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.inference.engines import DEADLINE, Engine, check_choice, check_threshold, choose_local, find_fault
from doubleunet_bs.inference.model_description import ModelDescription
from doubleunet_bs.inference.model_folder import ModelFolder, find_model
from doubleunet_bs.inference.saved_model_check import GRAPH, check_files, check_graph
from doubleunet_bs.preparation.case import PreparedCase, prepare_scan
from doubleunet_bs.tensorflow_setup import bfloat16_instruction, has_avx2_alone, import_tensorflow

if TYPE_CHECKING:  # pydicom stays out of what works on shards alone
    from doubleunet_bs.scans.bone_scan import BoneScan


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model finds in one scan.

    Attributes:
        case: pseudonym of the scan.
        masks: "anterior" and "posterior" -> uint8 array of the shape of the raw view (1024, 256): 1 where metastatic is
            the most probable class (or see `threshold`), 0 elsewhere. All 0 in a missing view, and outside the crop.
        probabilities: the same names -> float32 array of that shape: probability of the metastatic class, between 0
            and 1; 0 in a missing view, and outside the crop.
        prepared: the scan as the network saw it: grey image, gains, body bounding boxes, placements.
        warnings: of reading and preparing, one line each.
        model: the model's description.
        engine: what computed it and in which precision, for the record.
        threshold: metastatic are pixels of at least this probability; None where the most probable class decided.
        benign: like `masks`, 1 where benign is the most probable class; None of a model without that class.
    """

    case: str
    masks: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray]
    prepared: PreparedCase
    warnings: tuple[str, ...]
    model: ModelDescription
    engine: str
    threshold: float | None = None
    benign: dict[str, np.ndarray] | None = None

    @property
    def mask_rule(self) -> str:
        """How probabilities became masks, for the record."""
        if self.threshold is None:
            return "metastatic is the most probable class"
        return f"probability of metastatic at least {self.threshold:g}"

    @property
    def lesion_pixels(self) -> dict[str, int]:
        """Number of metastatic pixels of each raw view."""
        return {view: int(np.count_nonzero(mask)) for view, mask in self.masks.items()}


class Predictor:
    """A model that is ready to segment scans. Threads may share it; each process opens its own.

    Args:
        model: a fold of a run (`RUN/fold_01`), or an exported `saved_model` folder, of a fold or an ensemble, wherever
            it was copied to. With engine "serving" also the name of a model on the server; given a folder, the server
            must have the same weights.
        engine: "tensorflow"; "openvino" (an extra); "serving", a model server (an extra); "auto": TensorFlow where
            there is an NVIDIA GPU, else OpenVINO where it is installed, else TensorFlow.
        server: "grpc://HOST:PORT", with engine "serving" only.
        precision: "auto" uses bfloat16 where the processor multiplies it in hardware; "float32" does not. A server
            chooses its own.
        deadline: seconds within which a server must answer, retries included; None: `engines.DEADLINE`.
        threshold: call pixels metastatic from this probability on, between 0 and 1; None takes the most probable class,
            as the paper does.
        skeleton: the model segments the regions of the skeleton: masks hold their numbers. A model of lesions is
            refused, as one of the skeleton is without it.

    Attributes:
        description: the model's metadata.
        engine: what computes, in words for the output and the record.

    Raises:
        RunError: no such model, or it is damaged or has another format.
        SettingsError: choices that do not fit together, see `engines.check_choice`.
        ServerError: the server does not answer, or does not have this model.

    Example:
        >>> from doubleunet_bs.scans import read_scan
        >>> predictor = Predictor("RUN/fold_01")  # doctest: +SKIP
        >>> prediction = predictor.predict(read_scan("scan.dcm"))  # doctest: +SKIP
        >>> prediction.lesion_pixels  # doctest: +SKIP
        {'anterior': 412, 'posterior': 655}
        >>> prediction.masks["anterior"].shape, prediction.masks["anterior"].dtype  # doctest: +SKIP
        ((1024, 256), dtype('uint8'))
    """

    def __init__(
        self,
        model: str | os.PathLike,
        engine: str = "auto",
        server: str | None = None,
        precision: str = "auto",
        deadline: float | None = None,
        threshold: float | None = None,
        skeleton: bool = False,
    ):
        check_choice(engine, precision, server, deadline)
        check_threshold(threshold)
        self.threshold = threshold
        self._segmenter: Engine
        # Engines are imported when they are chosen: OpenVINO starts without TensorFlow, which takes seconds to import.
        if server is not None:
            import_tensorflow()
            from doubleunet_bs.inference.engine_serving import ServingEngine

            local = find_model(Path(model)).description if Path(model).is_dir() else None
            served = ServingEngine(server, str(model), DEADLINE if deadline is None else deadline, local)
            self.description, self._segmenter = served.description, served
        else:
            found = find_model(Path(model))
            found.description.check_kind(model, skeleton)
            self.description, self._segmenter = found.description, open_engine(found, engine, precision)
        self.description.check_kind(model, skeleton)
        if skeleton and threshold is not None:
            raise SettingsError("a threshold is for lesions: leave it out for a model of the skeleton")
        if self._segmenter.image_shape != self.description.image_shape:
            raise RunError(f"{model}: the model and its description disagree about the size of an image")
        self.engine = self._segmenter.name

    def predict(self, scan: "BoneScan") -> Prediction:
        """Prepare a scan as the model's training scans were, segment it, and map the result back to the raw views.

        Args:
            scan: from `doubleunet_bs.scans.read_scan`.

        Returns:
            Masks and probabilities of both raw views. In a scan without findings the masks are all 0.

        Raises:
            ScanError: the scan cannot be prepared. TypeError: it is no scan, but a path for instance.
            RunError, ServerError: see `segment`.
        """
        return self.segment([self.prepare(scan)])[0]

    def prepare(self, scan: "BoneScan") -> PreparedCase:
        """Prepare a scan as the model's training scans were. NumPy and OpenCV only: may run in another thread.

        Raises:
            ScanError: the scan cannot be prepared.
        """
        return prepare_scan(scan, settings=self.description.preparation)

    def segment(self, prepared: Iterable[PreparedCase]) -> list[Prediction]:
        """Segment prepared scans in one batch and map the results back to the raw views.

        May be called from several threads. Memory grows with the number of scans: pass a long stream in batches.

        Args:
            prepared: from `prepare`; none gives an empty list.

        Raises:
            RunError: scans that were prepared otherwise than the model's, or the model computes impossible values.
            ServerError: the server does not answer, or answers impossible values.
        """
        prepared = list(prepared)
        if not prepared:
            return []
        for case in prepared:
            if changes := case.settings.image_changes(self.description.preparation):
                said = ", ".join(f"{name}={value}" for name, value in changes.items())
                raise RunError(f"{case.case}: prepared with {said}, unlike the model's scans: use Predictor.prepare")
        images = np.stack([case.grey for case in prepared])
        probability, mask = self._segmenter(images)
        if (fault := find_fault(probability, mask, images.shape, self.description.largest_mask)) is not None:
            raise RunError(f"the model computes impossible values, {fault}: do not use it")
        if self.threshold is not None:
            # What is not metastatic at this threshold keeps its other class.
            mask = np.where(probability >= self.threshold, 1, np.where(mask == 1, 0, mask)).astype(np.uint8)
        return [self._map_back(case, probability[place], mask[place]) for place, case in enumerate(prepared)]

    def _map_back(self, prepared: PreparedCase, probability: np.ndarray, mask: np.ndarray) -> Prediction:
        masks, probabilities = prepared.map_back(mask), prepared.map_back(probability)
        for view in prepared.missing_views:
            # The half of a missing view is empty: what the network finds there means nothing.
            masks[view][:] = 0
            probabilities[view][:] = 0
        benign = None
        if self.description.has_benign:
            benign = {view: (masks[view] == 2).astype(np.uint8) for view in VIEWS}
            masks = {view: (masks[view] == 1).astype(np.uint8) for view in VIEWS}
        return Prediction(
            case=prepared.case,
            masks={view: masks[view] for view in VIEWS},
            benign=benign,
            probabilities={view: probabilities[view] for view in VIEWS},
            prepared=prepared,
            warnings=prepared.warnings,
            model=self.description,
            engine=self.engine,
            threshold=self.threshold,
        )


def open_engine(model: ModelFolder, engine: str = "auto", precision: str = "auto") -> Engine:
    """An engine on this machine.

    Args:
        model: from `find_model`.
        engine: "auto", "tensorflow" or "openvino".
        precision: "auto" or "float32".

    Raises:
        RunError: the model is damaged, changed or not one of this package, or not exported.
    """
    exported = model.export()
    check_files(exported)
    bfloat16 = precision == "auto" and bfloat16_instruction() is not None
    if choose_local(engine) == "openvino":
        from doubleunet_bs.inference.engine_openvino import OpenVinoEngine

        return OpenVinoEngine(exported, bfloat16)
    # For a single image in float32 oneDNN takes its slowest convolution with AVX2, since the weights are variables:
    # twice the time of TensorFlow's own (TensorFlow 2.21, tensorflow/tensorflow pull request 62646).
    import_tensorflow(onednn=not has_avx2_alone())
    check_graph(exported / GRAPH)
    from doubleunet_bs.inference.engine_tensorflow import TensorFlowEngine

    return TensorFlowEngine(exported, bfloat16)
