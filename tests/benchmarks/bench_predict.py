"""Time from one scan to its mask on a CPU: the engines of this project and the alternatives.

    python tests/benchmarks/bench_predict.py --skeleton [--rounds 7]
    python tests/benchmarks/bench_predict.py [--rounds 7] [--cold-rounds 3] [--ways NAME ...] [--size 640]

Every way begins with a DICOM file and ends with the masks on the raw views. Reading, preparing and mapping back are the
same code in all of them. The network is the real one with random weights, at 640 x 512 pixels. Warm: all ways in turn
in one process. Cold: each way in a process of its own, from the start of the interpreter to the first mask. First the
outputs of each way are compared with those of Keras in float32. With --skeleton: what a scan costs with two networks.

Needed for this alone: pip install torch onnxruntime onnx openvino
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from measuring import (
    Seconds,
    largest_difference,
    needed,
    print_environment,
    print_table,
    run_for_json,
    take_turns,
    timed,
)

BIN = {640: 1, 320: 2, 160: 4}
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}
Segment = Callable[[np.ndarray], np.ndarray | tuple[np.ndarray, np.ndarray]]
"""(rows, columns) uint8 grey image -> (rows, columns, 3) probabilities, or the metastatic probability and the mask."""


def open_tensorflow() -> None:
    """With oneDNN where `predict` uses it, which is TensorFlow's own default as well on most processors."""
    from doubleunet_bs.tensorflow_setup import has_avx2_alone, import_tensorflow

    import_tensorflow(onednn=not has_avx2_alone())


def make_files(folder: Path, size: int) -> None:
    """A phantom as DICOM file, and the network in the formats that the ways read."""
    open_tensorflow()
    import keras

    from doubleunet_bs.network import double_unet
    from doubleunet_bs.phantom import make_phantom
    from doubleunet_bs.phantom.dicom import write_dicom
    from doubleunet_bs.preparation.settings import PreparationSettings

    write_dicom(make_phantom(0, 0, "breast", True), folder / "scan.dcm")
    settings = PreparationSettings(bin=BIN[size])
    keras.utils.set_random_seed(0)
    model = double_unet((*settings.image_shape, 3))
    model.save(folder / "model.keras")
    save_network(folder / "saved_model", model, settings)


def save_network(folder: Path, model, settings, name: str = "dice", classes: int = 3) -> None:
    """The SavedModel of a network with random weights and (rows, columns) of the preparation `settings`."""
    from doubleunet_bs.inference.model_description import ModelDescription
    from doubleunet_bs.preparation.records import count_cohort
    from doubleunet_bs.serving.export import write_saved_model

    description = ModelDescription(
        experiment={"name": name, "classes": classes},
        fold=1,
        preparation=settings,
        image_shape=settings.image_shape,
        data_fingerprint="random weights",
        weights_sha256="0" * 64,
        best_epoch=1,
        validation_f1=0.0,
        trained_on="phantoms",
        **dict.fromkeys(("training", "validation", "cohort"), count_cohort([])),
    )
    folder.mkdir()
    write_saved_model(folder, model, description)


def make_foreign_files(folder: Path, ways) -> None:
    """The formats of the other libraries; in a process of its own, since an exporter changes global settings."""
    if any(way.startswith(("torch", "onnxruntime")) for way in ways) and not (folder / "model.onnx").is_file():
        subprocess.run([sys.executable, __file__, "--export", "--folder", str(folder)], check=True)


def export_foreign(folder: Path) -> None:
    """Write twin.pt, whose outputs in float32 must be Keras', and from it model.onnx.

    By way of PyTorch: ONNX Runtime computes in its layout, and Keras' own exporter took more than 11 GB.
    """
    open_tensorflow()
    import keras

    model = keras.models.load_model(folder / "model.keras")
    from torch_twin import torch, twin_of

    twin = twin_of(model)
    rows, columns = model.input_shape[1:3]
    image = np.random.default_rng(0).random((1, rows, columns, 3), np.float32)
    expected = model.predict(image, verbose=0)
    with torch.inference_mode():
        outputs = twin(torch.from_numpy(image).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last))
    for output, key in zip(outputs, ("output1", "output2"), strict=True):
        difference = largest_difference(output.permute(0, 2, 3, 1), expected[key])
        print(f"PyTorch twin, {key}: largest difference from Keras, float32: {difference:.1e}")
        if not difference < TOLERANCE["float32"]:
            raise SystemExit("the PyTorch twin is not the same network")
    torch.save(twin.state_dict(), folder / "twin.pt")
    needed("onnx", "pip install onnx")
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # The newer exporter asks for one more package.
    torch.onnx.export(
        twin.to(memory_format=torch.contiguous_format),
        (torch.zeros(1, 3, rows, columns),),
        str(folder / "model.onnx"),
        input_names=["image"],
        output_names=["output1", "output2"],
        dynamo=False,
    )


def keras_predict(folder: Path) -> Segment:
    open_tensorflow()
    import keras

    model = keras.models.load_model(folder / "model.keras")
    return lambda grey: model.predict(_float_image(grey), verbose=0)["output2"][0]


def onnxruntime_float32(folder: Path) -> Segment:
    session = needed("onnxruntime", "pip install onnxruntime").InferenceSession(
        str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
    )

    def segment(grey: np.ndarray) -> np.ndarray:
        image = np.ascontiguousarray(_float_image(grey).transpose(0, 3, 1, 2))
        return session.run(["output2"], {"image": image})[0][0].transpose(1, 2, 0)

    return segment


def openvino_plain(folder: Path, **settings) -> Segment:
    needed("openvino", "pip install openvino")
    from doubleunet_bs.inference.engine_openvino import CORE

    compiled = CORE.compile_model(str(folder / "saved_model"), "CPU", settings)

    def segment(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        answer = compiled({"image": grey[None]})
        return answer["metastatic_probability"][0], answer["mask"][0]

    return segment


def torch_twin(folder: Path, bfloat16: bool) -> Segment:
    from torch_twin import DoubleUNet, torch

    twin = DoubleUNet()
    twin.load_state_dict(torch.load(folder / "twin.pt", weights_only=True))
    twin = twin.eval().to(memory_format=torch.channels_last)

    def segment(grey: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(_float_image(grey)).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return twin(image)[1][0].permute(1, 2, 0).numpy()

    return segment


def _float_image(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[None, ..., None].astype(np.float32) / 255.0, 3, axis=-1)


def foreign(make: Callable[[Path], Segment], folder: Path):
    """DICOM file -> masks and metastatic probabilities on the raw views, by another library."""
    from doubleunet_bs.inference.model_folder import find_model
    from doubleunet_bs.preparation.case import prepare_scan
    from doubleunet_bs.scans import read_scan

    settings = find_model(folder / "saved_model").description.preparation
    segment = make(folder)

    def way():
        case = prepare_scan(read_scan(folder / "scan.dcm"), settings=settings)
        answer = segment(case.grey)
        if isinstance(answer, tuple):
            probability, mask = answer
        else:
            probability, mask = answer[..., 2], (np.argmax(answer, axis=-1) == 2).astype(np.uint8)
        return case.map_back(mask), case.map_back(probability)

    return way


def own(engine: str, folder: Path, precision: str = "auto"):
    """The same by this project's predictor."""
    from doubleunet_bs.inference import Predictor
    from doubleunet_bs.scans import read_scan

    predictor = Predictor(folder / "saved_model", engine, precision=precision)

    def way():
        prediction = predictor.predict(read_scan(folder / "scan.dcm"))
        return prediction.masks, prediction.probabilities

    return way


BASE = "Keras model.predict float32"
WAYS = {
    BASE: lambda folder: foreign(keras_predict, folder),
    "this project, tensorflow": lambda folder: own("tensorflow", folder),
    "this project, openvino": lambda folder: own("openvino", folder),
    "onnxruntime float32": lambda folder: foreign(onnxruntime_float32, folder),
    "openvino as it comes": lambda folder: foreign(openvino_plain, folder),
    "openvino float32": lambda folder: foreign(
        lambda path: openvino_plain(path, INFERENCE_PRECISION_HINT="f32"), folder
    ),
    "torch float32": lambda folder: foreign(lambda path: torch_twin(path, False), folder),
    "torch bfloat16": lambda folder: foreign(lambda path: torch_twin(path, True), folder),
}


def cold_seconds(name: str, folder: Path) -> Seconds:
    """From the start of a process to its first mask."""
    begun = time.time()
    ended, processor = run_for_json([sys.executable, __file__, "--cold", name, "--folder", folder])
    return Seconds(ended - begun, processor)


def print_parts(folder: Path, engine: str, rounds: int) -> None:
    """What each part of this project's way takes."""
    from doubleunet_bs.inference import Predictor
    from doubleunet_bs.scans import read_scan

    predictor = Predictor(folder / "saved_model", engine)
    scan = read_scan(folder / "scan.dcm")
    case = predictor.prepare(scan)
    taken = take_turns(
        {
            "read_scan": partial(timed, read_scan, folder / "scan.dcm"),
            "prepare": partial(timed, predictor.prepare, scan),
            "network, mapping back": partial(timed, predictor.segment, [case]),
        },
        rounds,
    )
    medians = {name: float(np.median([found.wall for found in rounds])) for name, rounds in taken.items()}
    whole = sum(medians.values())
    print(
        f"parts with {predictor.engine}: " + ", ".join(f"{k} {v:.3f} s ({v / whole:.0%})" for k, v in medians.items())
    )


def print_both(folder: Path, size: int, rounds: int) -> None:
    """What a scan takes with the network of lesions alone, and with that of the skeleton as well."""
    from doubleunet_bs.constants import METASTATIC
    from doubleunet_bs.findings.skeleton_result import Networks
    from doubleunet_bs.inference import Predictor
    from doubleunet_bs.network import double_unet
    from doubleunet_bs.phantom import make_phantom
    from doubleunet_bs.preparation.settings import PreparationSettings
    from doubleunet_bs.results.result_files import OUTPUTS, JobSettings
    from doubleunet_bs.results.result_folder import write_prediction
    from doubleunet_bs.scans import read_scan

    if not (folder / "skeleton").is_dir():
        settings = PreparationSettings(bin=BIN[size])
        model = double_unet((*settings.image_shape, 3), classes=13)
        save_network(folder / "skeleton", model, settings, "skeleton", 13)

    # Networks with random weights mark noise, which takes longer to write: results are those of the drawn masks.
    phantom = make_phantom(0, 0, "breast", True)
    drawn = {view: (mask == METASTATIC).astype(np.uint8) for view, mask in phantom.lesions.items()}, phantom.regions()

    def segment(networks: Networks, outputs: tuple[str, ...] | None) -> None:
        scan = read_scan(folder / "scan.dcm")
        prediction, index = networks.segment(scan, networks.lesions.prepare(scan))
        if outputs is not None:
            prediction = dataclasses.replace(prediction, masks=drawn[0])
            index = index and dataclasses.replace(index, regions=drawn[1])
            write_prediction(JobSettings(folder / "results", outputs, overwrite=True), scan, prediction, skeleton=index)

    print_environment("tensorflow", "openvino")
    for engine in ("openvino", "tensorflow"):
        lesions = Predictor(folder / "saved_model", engine)
        both = Networks(lesions, Predictor(folder / "skeleton", engine, skeleton=True))
        for title, outputs in (("masks", None), ("all results", OUTPUTS)):
            print(f"\n{engine}: DICOM file to {title}")
            ways = {
                "lesions": partial(timed, segment, Networks(lesions), outputs),
                "lesions and skeleton": partial(timed, segment, both, outputs),
            }
            print_table(take_turns(ways, rounds), "lesions", of="scan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cold-rounds", type=int, default=3, help="0 leaves the cold start out")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="NAME", help="; ".join(WAYS))
    parser.add_argument("--size", type=int, choices=BIN, default=640, help="rows of the prepared image")
    parser.add_argument("--skeleton", action="store_true", help="time one scan with one network and with two instead")
    parser.add_argument("--folder", type=Path, help="keep the files here and use them again")
    parser.add_argument("--cold", help=argparse.SUPPRESS)
    parser.add_argument("--export", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cold:
        WAYS[args.cold](args.folder)()
        print(json.dumps((time.time(), time.process_time())))
        return
    if args.export:
        export_foreign(args.folder)
        return
    chosen = [BASE, *(way for way in args.ways if way != BASE)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "saved_model").is_dir():
            make_files(folder, args.size)
        if args.skeleton:
            print_both(folder, args.size, args.rounds)
            return
        make_foreign_files(folder, chosen)
        ways = {name: WAYS[name](folder) for name in chosen}
        print_environment("tensorflow", "keras", "openvino", "onnxruntime", "torch")
        expected_masks, expected = ways[BASE]()
        print("\nagainst Keras in float32: largest difference of probabilities, part of pixels with the same mask")
        for name, way in ways.items():
            masks, probabilities = way()
            difference = max(largest_difference(probabilities[view], expected[view]) for view in expected)
            same = np.mean([np.mean(masks[view] == expected_masks[view]) for view in expected])
            print(f"  {name:32}{difference:10.1e}{same:10.3%}")
            if "float32" in name and difference > TOLERANCE["float32"]:
                raise SystemExit(f"{name} does not compute the same network")
        print("\nwarm: DICOM file to masks")
        warm = {name: partial(timed, way) for name, way in ways.items()}
        print_table(take_turns(warm, args.rounds), BASE, of="scan")
        for engine in ("tensorflow", "openvino"):
            if f"this project, {engine}" in ways:
                print_parts(folder, engine, args.rounds)
        del ways, way, warm
        if args.cold_rounds:
            print("\ncold: start of the process to the first mask")
            cold = {name: partial(cold_seconds, name, folder) for name in chosen}
            print_table(take_turns(cold, args.cold_rounds, warm_up=False), BASE, of="start")


if __name__ == "__main__":
    main()
