"""What is recommended for a device, and what is known of its memory before a run starts."""

import dataclasses
import re

import pytest
import tensorflow as tf

from doubleunet_bs import tensorflow_setup
from doubleunet_bs.errors import SettingsError
from doubleunet_bs.tensorflow_setup import processor_flags
from doubleunet_bs.training import devices as devices_module
from doubleunet_bs.training.devices import (
    BYTES_PER_PIXEL,
    Replicas,
    check_memory,
    choose_precision,
    control_group_limit,
    memory_advice,
    memory_needed,
)
from doubleunet_bs.training.experiments import paper_experiment


def devices(*names):
    return Replicas(strategy=type("Strategy", (), {"num_replicas_in_sync": len(names)})(), devices=names)


CPU, GPU, TWO_GPUS = devices("CPU:0"), devices("GPU:0"), devices("GPU:0", "GPU:1")


@pytest.mark.parametrize(
    ("flags", "precision"),
    [("fpu avx2 amx_bf16", "mixed_bfloat16"), ("fpu avx512_bf16", "mixed_bfloat16"), ("fpu avx2 avx512f", "float32")],
)
def test_auto_on_a_processor(monkeypatch, tmp_path, flags, precision):
    file = tmp_path / "cpuinfo"
    file.write_text(f"model name\t: some\nflags\t\t: {flags}\n\nmodel name\t: some\nflags\t\t: other\n")
    assert processor_flags(file) == set(flags.split())
    found = processor_flags(file)
    monkeypatch.setattr(tensorflow_setup, "processor_flags", lambda: found)
    for works in (False, True):
        monkeypatch.setattr(devices_module, "has_bfloat16_kernels", lambda works=works: works)
        chosen = choose_precision(CPU, "auto")
        assert chosen.precision == (precision if works else "float32")
    assert not chosen.xla and "this processor has" in chosen.reason


def test_a_processor_that_does_not_say_what_it_can():
    assert processor_flags("/nonexistent") == frozenset()


@pytest.mark.parametrize(
    ("capability", "precision"), [((9, 0), "mixed_bfloat16"), ((7, 5), "mixed_float16"), ((6, 1), "float32")]
)
def test_auto_on_a_gpu(monkeypatch, capability, precision):
    # A display card beside the card that computes has no say, unless it is chosen as well.
    cards = {"computes": capability, "displays": (6, 0)}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(cards))
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda device: {"compute_capability": cards[device]}
    )
    found = choose_precision(GPU, "auto")
    # XLA refuses mixed precision.
    assert found.precision == precision and found.xla == (precision == "float32")
    assert choose_precision(TWO_GPUS, "auto").precision == "float32" and not choose_precision(TWO_GPUS, "auto").xla


def test_what_is_asked_for_is_taken_or_refused(monkeypatch):
    assert choose_precision(CPU, "mixed_float16").precision == "mixed_float16"
    monkeypatch.setattr(devices_module, "can_train_in", lambda dtype: dtype != "bfloat16")
    with pytest.raises(SettingsError, match="--precision mixed_bfloat16 does not work .*: use --precision float32"):
        choose_precision(CPU, "mixed_bfloat16")
    with pytest.raises(SettingsError, match="--precision float32, not mixed_float16: use --xla off"):
        choose_precision(CPU, "mixed_float16", "on")
    assert choose_precision(CPU, xla="on").xla and not choose_precision(GPU, xla="off").xla
    with pytest.raises(SettingsError, match="--xla off or --devices 0"):
        choose_precision(TWO_GPUS, xla="on")
    with pytest.raises(SettingsError, match="precision float8"):
        choose_precision(CPU, "float8")
    with pytest.raises(SettingsError, match="xla maybe"):
        choose_precision(CPU, xla="maybe")


def test_memory_grows_with_the_images_that_are_in_a_device_at_once():
    paper = paper_experiment("dice")
    pixels = 640 * 512

    def needed(experiment, replicas, precision="float32"):
        return memory_needed(experiment, (640, 512), dataclasses.replace(replicas, precision=precision))

    one = BYTES_PER_PIXEL["float32"] * pixels
    assert needed(paper, GPU) - needed(paper_experiment("dice", batch_size=1), GPU) == pytest.approx(3 * one)
    assert needed(paper, GPU) - needed(paper, TWO_GPUS) == pytest.approx(2 * one)
    assert needed(paper, GPU) - needed(paper_experiment("dice", accumulate=4), GPU) == pytest.approx(3 * one)
    assert needed(paper, GPU, "mixed_bfloat16") < needed(paper, GPU)
    # What `bench_memory.py --rows 640 --columns 512` saw on a processor, and not much more.
    assert 12.4e9 < needed(paper, CPU) < 1.15 * 12.4e9 and 7.31e9 < needed(paper, CPU, "mixed_bfloat16") < 1.15 * 7.31e9
    # Replicas on the processor share its memory.
    assert needed(paper, devices("CPU:0", "CPU:1")) > needed(paper, CPU)


def test_a_batch_that_does_not_fit_is_refused_with_what_to_change():
    paper = paper_experiment("dice")
    with pytest.raises(SettingsError) as refused:
        check_memory(paper, (640, 512), CPU, available=8e9)
    message = str(refused.value)
    assert "needs about 13.6 GB, this machine has 8.0 GB" in message and len(message.splitlines()) == 1
    for change in ("--accumulate 2", "--precision mixed_bfloat16", "--batch-size", "--bin 2"):
        assert change in message
    # On a GPU the estimate is not measured: it is said, with the same advice, and the run goes on.
    said = check_memory(paper, (640, 512), GPU, available=8e9)
    assert "it may not fit" in said and "--accumulate 2" in said and "more devices" in said
    assert "8.0 GB on the device" in check_memory(paper, (160, 128), CPU, available=8e9)


def test_only_what_helps_is_advised():
    # No micro-batch of two images is left to split, and bfloat16 is on already.
    for row in (paper_experiment("dice", accumulate=2), paper_experiment("dice", batch_size=2)):
        assert "--accumulate" not in memory_advice(row, GPU)
    assert "--accumulate 2," in memory_advice(paper_experiment("dice"), TWO_GPUS)
    bfloat16 = dataclasses.replace(CPU, precision="mixed_bfloat16")
    assert memory_advice(paper_experiment("dice", batch_size=1), bfloat16) == (
        "use a smaller --batch-size or a coarser matrix (prepare --bin 2)"
    )


def test_the_card_that_is_chosen_is_asked(monkeypatch):
    from tensorflow.python.client import device_lib

    cards = [("/device:CPU:0", 1e9), ("/device:GPU:0", 80e9), ("/device:GPU:1", 2e9)]
    listed = [type("Card", (), {"name": name, "memory_limit": limit})() for name, limit in cards]
    monkeypatch.setattr(device_lib, "list_local_devices", lambda: listed)
    assert "of 80.0 GB on the device" in check_memory(paper_experiment("dice"), (640, 512), GPU)
    assert "of 2.0 GB on the device" in check_memory(paper_experiment("dice"), (640, 512), TWO_GPUS)


def test_the_memory_of_this_machine_is_known():
    assert re.search(r"GB needed of \d+\.\d GB on the device", check_memory(paper_experiment("dice"), (32, 32), CPU))


@pytest.mark.parametrize(
    ("membership", "folder", "name"),
    [
        ("0::/system.slice/job_7/step_0\n", "system.slice", "memory.max"),
        (
            "12:cpu,cpuacct:/x\n7:memory:/system.slice/job_7/step_0\n0::/y\n",
            "memory/system.slice",
            "memory.limit_in_bytes",
        ),
    ],
)
def test_the_least_limit_of_the_control_groups_above_the_process_counts(tmp_path, membership, folder, name):
    (tmp_path / "membership").write_text(membership)
    step = tmp_path / "root" / folder / "job_7" / "step_0"
    step.mkdir(parents=True)
    (step / name).write_text("max\n")
    (step.parent / name).write_text("8000000000\n")
    (step.parent.parent / name).write_text("9000000000\n")
    assert control_group_limit(tmp_path / "membership", tmp_path / "root") == 8e9
    # What is not above it has no say.
    (tmp_path / name).write_text("1\n")
    (tmp_path / "root" / "x").mkdir()
    (tmp_path / "root" / "x" / name).write_text("1\n")
    assert control_group_limit(tmp_path / "membership", tmp_path / "root") == 8e9
    assert control_group_limit(tmp_path / "none", tmp_path / "none") == float("inf")
    # Within a container the root is its own, whatever the membership says.
    (tmp_path / "root" / "memory.max").write_text("4294967296\n")
    assert control_group_limit(tmp_path / "none", tmp_path / "root") == 4294967296
