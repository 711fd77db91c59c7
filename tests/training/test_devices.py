"""What is recommended for a device, and what is known of its memory before a run starts."""

import dataclasses
import platform
import re
import subprocess
import sys

import pytest
import tensorflow as tf

from doubleunet_bs import tensorflow_setup
from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.tensorflow_setup import processor_flags
from doubleunet_bs.training import devices as devices_module
from doubleunet_bs.training.devices import (
    BYTES_PER_PIXEL,
    Replicas,
    check_memory,
    choose_precision,
    gpu_models,
    images_at_once,
    memory_advice,
    memory_limit,
    memory_needed,
    open_devices,
)


def devices(*names):
    return Replicas(strategy=type("Strategy", (), {"num_replicas_in_sync": len(names)})(), devices=names)


@pytest.fixture(autouse=True)
def avx512(monkeypatch):
    """On every processor the figures of one with AVX-512."""
    monkeypatch.setattr(devices_module, "has_avx2_alone", lambda: False)


CPU, GPU, TWO_GPUS = devices("CPU:0"), devices("GPU:0"), devices("GPU:0", "GPU:1")


@pytest.mark.parametrize(
    ("flags", "precision"),
    [("fpu avx2 amx_bf16", "mixed_bfloat16"), ("fpu avx512_bf16", "mixed_bfloat16"), ("fpu avx2 avx512f", "float32")],
)
def test_auto_on_a_processor(monkeypatch, tmp_path, flags, precision):
    file = tmp_path / "cpuinfo"
    file.write_text(f"model name\t: some\nflags\t\t: {flags}\n\nmodel name\t: some\nflags\t\t: other\n")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert processor_flags(file) == set(flags.split())
    found = processor_flags(file)
    monkeypatch.setattr(tensorflow_setup, "processor_flags", lambda: found)
    for works in (False, True):
        monkeypatch.setattr(devices_module, "has_bfloat16_kernels", lambda works=works: works)
        chosen = choose_precision(CPU, "auto")
        assert chosen.precision == (precision if works else "float32")
    assert "this processor has" in chosen.reason


@pytest.mark.parametrize(
    ("limit", "left"),
    [
        ("ALL", "avx2 avx512f avx512_bf16 amx_bf16"),
        ("AVX512_CORE_AMX", "avx2 avx512f avx512_bf16 amx_bf16"),
        ("AVX512_CORE_BF16", "avx2 avx512f avx512_bf16"),
        ("AVX512_CORE", "avx2 avx512f"),
        ("avx2", "avx2"),
    ],
)
def test_a_processor_used_up_to_a_limit(monkeypatch, tmp_path, limit, left):
    file = tmp_path / "cpuinfo"
    file.write_text("flags\t: avx2 avx512f avx512_bf16 amx_bf16\n")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert processor_flags(file) == set(left.split())


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
    assert found.precision == precision and found.strategy is GPU.strategy
    assert choose_precision(TWO_GPUS, "auto").precision == "float32"


def test_the_models_of_the_chosen_gpus(monkeypatch):
    cards = {"first": {"device_name": "NVIDIA H200"}, "second": {}}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(cards))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", cards.get)
    assert gpu_models(GPU) == ["NVIDIA H200"] and gpu_models(TWO_GPUS) == ["NVIDIA H200", "unknown"]
    assert gpu_models(CPU) == []


def test_what_is_asked_for_is_taken_or_refused(monkeypatch):
    assert choose_precision(CPU, "mixed_float16").precision == "mixed_float16"
    monkeypatch.setattr(devices_module, "can_train_in", lambda dtype: dtype != "bfloat16")
    with pytest.raises(SettingsError, match="--precision mixed_bfloat16 does not work .*: use --precision float32"):
        choose_precision(CPU, "mixed_bfloat16")
    with pytest.raises(SettingsError, match="precision float8"):
        choose_precision(CPU, "float8")


def test_memory_grows_with_the_images_that_are_in_a_device_at_once(monkeypatch):
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
    # With AVX2 alone the gradients of the kernels are matrix products over shifted copies: 1.3 GB more.
    monkeypatch.setattr(devices_module, "has_avx2_alone", lambda: True)
    assert needed(paper, CPU) == pytest.approx(13.6e9 + 1.3e9, rel=0.01)
    assert needed(paper, CPU, "mixed_bfloat16") < 8e9 and needed(paper, GPU) < 14.7e9
    # Replicas on the processor share its memory.
    assert needed(paper, devices("CPU:0", "CPU:1")) > needed(paper, CPU)


@pytest.mark.parametrize("available", [4e9, 8e9, 25.3e9])
@pytest.mark.parametrize("batch", [4, 5, 7, 64, 1000])
@pytest.mark.parametrize("replicas", [CPU, devices("CPU:0", "CPU:1")])
def test_a_batch_that_does_not_fit_is_refused_with_changes_that_fit(available, batch, replicas):
    """Whatever is advised is followed here, one change at a time: it is accepted then."""
    experiment = paper_experiment("dice", batch_size=batch)
    try:
        check_memory(experiment, (640, 512), replicas, available=available)
    except SettingsError as refused:
        message = str(refused)
    else:
        return
    assert f"this machine has {available / 1e9:.1f} GB: use " in message and "prepare --bin 2" in message
    for option, value in re.findall(r"--([a-z-]+) (\w+)", message.partition("(prepare")[0]):
        if option == "precision":
            changed, devices_then = experiment, dataclasses.replace(replicas, precision=value)
        else:
            changed = dataclasses.replace(experiment, **{option.replace("-", "_"): int(value)})
            devices_then = replicas
        check_memory(changed, (640, 512), devices_then, available=available)
        assert images_at_once(changed, replicas.count) >= 2


def test_advice_is_complete_where_there_is_some():
    with pytest.raises(SettingsError) as refused:
        check_memory(paper_experiment("dice"), (640, 512), CPU, available=8e9)
    assert str(refused.value) == (
        "training needs about 13.6 GB, this machine has 8.0 GB: use --accumulate 2, --batch-size 2, "
        "--precision mixed_bfloat16 or a coarser matrix (prepare --bin 2)"
    )
    # Not even two images: what would not help is not advised.
    with pytest.raises(SettingsError, match=r"has 4.0 GB: use a coarser matrix \(prepare --bin 2\)$"):
        check_memory(paper_experiment("dice"), (640, 512), CPU, available=4e9)
    # The memory of a GPU is not asked for: the estimate is said, and the run goes on.
    assert check_memory(paper_experiment("dice"), (640, 512), GPU, available=8e9) == "about 14.6 GB needed on each"
    assert check_memory(paper_experiment("dice"), (160, 128), CPU, available=8e9).endswith(" of 8.0 GB")


def test_when_memory_has_run_out_the_images_at_once_are_halved():
    def advice(replicas, **changes):
        return memory_advice(paper_experiment("dice", **changes), (640, 512), replicas)

    # No micro-batch of two images is left to split.
    for changes in ({"accumulate": 2}, {"batch_size": 2}):
        assert advice(GPU, **changes) == "use --precision mixed_bfloat16 or more devices"
    assert advice(GPU) == "use --accumulate 2, --batch-size 2, --precision mixed_bfloat16 or more devices"
    assert advice(TWO_GPUS, batch_size=8).startswith("use --accumulate 2, --batch-size 4,")
    bfloat16 = dataclasses.replace(CPU, precision="mixed_bfloat16")
    assert advice(bfloat16, batch_size=1) == "use a coarser matrix (prepare --bin 2)"


def test_the_memory_of_this_machine_is_known():
    assert re.search(r"GB needed of \d+\.\d GB$", check_memory(paper_experiment("dice"), (32, 32), CPU))


def test_the_least_limit_of_the_control_groups_above_the_process_counts(tmp_path):
    membership, root = tmp_path / "membership", tmp_path / "root"
    membership.write_text("0::/system.slice/job_7/step_0\n")
    step = root / "system.slice" / "job_7" / "step_0"
    step.mkdir(parents=True)
    (step / "memory.max").write_text("max\n")
    (step.parent / "memory.max").write_text("8000000\n")
    (step.parent.parent / "memory.max").write_text("9000000\n")
    # What is not above it has no say.
    (tmp_path / "memory.max").write_text("1\n")
    (root / "x").mkdir()
    (root / "x" / "memory.max").write_text("1\n")
    assert memory_limit(membership, root) == 8e6
    assert memory_limit(tmp_path / "none", tmp_path / "none") > 8e6
    # Within a container the root is its own.
    (root / "memory.max").write_text("4194304\n")
    assert memory_limit(tmp_path / "none", root) == 4194304


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_kept():
    code = (
        "import ctypes, resource\n"
        "ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)\n"  # PR_SET_THP_DISABLE: of huge pages there are few faults
        "from doubleunet_bs.tensorflow_setup import keep_freed_memory\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    b'x' * size\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "size = 50_000_000\n"
        "print(faults(), faults())\n"
        "keep_freed_memory()\n"
        "print(faults(), faults())\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    (_, again), (_, kept) = (map(int, line.split()) for line in said.splitlines())
    assert kept < 0.01 * again


def test_a_start_from_an_earlier_run_needs_no_weights_of_the_encoder(tmp_path):
    experiment = paper_experiment("dice", encoder_weights=str(tmp_path / "absent.h5"))
    with pytest.raises(RunError, match="absent.h5"):
        open_devices(experiment, (160, 128))
    assert open_devices(dataclasses.replace(experiment, start_from="run"), (160, 128)).count == 1
