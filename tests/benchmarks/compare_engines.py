"""Agreement of the engines of `predict` on metastatic pixels.

    python tests/benchmarks/compare_engines.py --model RUN/fold_01 [--patients 40]

Segments phantoms that no training has seen with each engine, in float32 and with `--precision auto`. Prints the
intersection over union of their metastatic pixels with those of TensorFlow in float32.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from measuring import print_environment

SEED = 900


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a trained fold with its saved_model")
    parser.add_argument("--patients", type=int, default=40)
    args = parser.parse_args()
    from doubleunet_bs.inference import Predictor
    from doubleunet_bs.inference.engines import has_openvino
    from doubleunet_bs.phantom import make_cohort
    from doubleunet_bs.scans import read_scan

    with tempfile.TemporaryDirectory() as folder:
        scans = make_cohort(Path(folder) / "phantoms", args.patients, seed=SEED) / "scans"
        found = {}
        for engine in ("tensorflow", "openvino") if has_openvino() else ("tensorflow",):
            for precision in ("float32", "auto"):
                predictor = Predictor(args.model, engine, precision=precision)
                predictions = [predictor.predict(read_scan(file)) for file in sorted(scans.glob("*.dcm"))]
                found[predictor.engine] = np.stack([mask for one in predictions for mask in one.masks.values()]) > 0
    print_environment("tensorflow")
    names = list(found)
    print(f"{args.patients} phantoms; metastatic pixels of {names[0]}: {found[names[0]].sum()}")
    for name in names[1:]:
        first, other = found[names[0]], found[name]
        print(f"{name}: {(first & other).sum() / (first | other).sum():.2%} the same")


if __name__ == "__main__":
    main()
