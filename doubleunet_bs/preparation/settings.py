"""What a user can choose of the preparation, and how the mean brightness is reached."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from doubleunet_bs.constants import AIR, DEFAULT_CLASS_MAP, KEPT_ROWS, METASTATIC, RAW_SHAPE
from doubleunet_bs.errors import DatasetError, SettingsError

BRIGHTNESS_RANGE = (7.0, 14.0)
"""Open range of the mean intensity after normalisation, in 8-bit grey levels (paper, section 2.3)."""

BRIGHTNESS_MARGIN = 1e-3
"""How far inside the open range a scan is brought that lies outside of it, in grey levels."""

CHOICES: dict[str, tuple] = {
    "background": ("otsu", "log", "none"),
    "brightness": ("per_scan", "per_view"),
    "bin": (1, 2, 4),
    "otsu_histogram": ("non-metastatic", "all"),
    "source": ("counts", "pictures"),
    "benign": ("non-metastatic", "own"),
}
"""Of each setting but the class map."""

LABEL_SETTINGS = ("background", "classes", "otsu_histogram", "benign")
"""Settings that change labels alone: the prepared image is the same."""


@dataclasses.dataclass(frozen=True)
class PreparationSettings:
    """How scans are prepared.

    Attributes:
        background: what makes a pixel non-metastatic instead of air (paper, section 2.4). `"otsu"`: Otsu's threshold on
            the prepared 8-bit image; `"log"`: on log(1 + counts); `"none"`: only what the annotation says.
        brightness: `"per_scan"`: one gain for both views, which keeps their ratio; or `"per_view"`.
        bin: 1, 2 or 4; counts of blocks of bin x bin pixels are added up. 1 is the paper's matrix.
        classes: annotation label -> class 0, 1 or 2. Labels are compared without regard to case.
        otsu_histogram: the pixels in the histogram of Otsu's threshold. `"non-metastatic"`: all but the annotated
            metastases, as the paper says; or `"all"`.
        source: `"counts"` of a gamma camera, or display grey of `"pictures"`.
        benign: what an outlined non-metastatic lesion is. `"non-metastatic"`: class 1, as all uptake that is not
            metastatic; or `"own"`: class 3, and class 1 is the uptake that nobody outlined.

    Raises:
        SettingsError: a value outside of these.
    """

    background: str = "otsu"
    brightness: str = "per_scan"
    bin: int = 1
    classes: Mapping[str, int] = dataclasses.field(default_factory=lambda: dict(DEFAULT_CLASS_MAP))
    otsu_histogram: str = "non-metastatic"
    source: str = "counts"
    benign: str = "non-metastatic"

    def __post_init__(self):
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            # By type as well: True == 1 and 2.0 == 2.
            if not any(type(value) is type(choice) and value == choice for choice in choices):
                raise SettingsError(f"{name} is {value!r}: it must be one of {', '.join(map(str, choices))}")
        if not isinstance(self.classes, Mapping) or not all(
            isinstance(label, str) and type(number) is int and AIR <= number <= METASTATIC
            for label, number in self.classes.items()
        ):
            raise SettingsError("classes must give one of the classes 0, 1 and 2 to each label")

    @property
    def image_shape(self) -> tuple[int, int]:
        """(rows, columns) of a prepared image: (640, 512) divided by `bin`."""
        return KEPT_ROWS // self.bin, 2 * RAW_SHAPE[1] // self.bin

    def changes(self, other: "PreparationSettings | None" = None) -> dict[str, Any]:
        """The settings but for the class map that differ from another preparation's, by name; None: from the paper's.

        Example:
            >>> PreparationSettings(bin=4).changes()
            {'bin': 4}
        """
        there = (PreparationSettings() if other is None else other).to_json()
        return {name: value for name, value in self.to_json().items() if name != "classes" and value != there[name]}

    def image_changes(self, other: "PreparationSettings") -> dict[str, Any]:
        """The settings of the image that differ from another preparation's, by name; see `LABEL_SETTINGS`."""
        return {name: value for name, value in self.changes(other).items() if name not in LABEL_SETTINGS}

    def to_json(self) -> dict[str, Any]:
        """The settings as a JSON object."""
        return dataclasses.asdict(self) | {"classes": dict(sorted(self.classes.items()))}

    @classmethod
    def from_json(cls, content: Any) -> "PreparationSettings":
        """The inverse of `to_json`; `DatasetError` for missing or additional entries, or wrong values."""
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(content, dict) or set(content) != names:
            raise DatasetError(f"preparation settings must be exactly {', '.join(sorted(names))}")
        try:
            return cls(**content)
        except SettingsError as error:
            raise DatasetError(f"preparation settings: {error}") from None
