"""Where a real scan may be found: NM1_JPLL.dcm of NEMA's sample images, which cannot be redistributed here."""

import os
from pathlib import Path

# DOUBLEUNET_BS_REAL_SCAN names the file; else it is looked for in a folder beside the repository.
REAL = Path(
    os.environ.get("DOUBLEUNET_BS_REAL_SCAN", Path(__file__).resolve().parents[2] / "shared" / "data" / "NM1_JPLL.dcm")
)
