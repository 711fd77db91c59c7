"""ImageNet weights from a file of Keras' own VGG19 no-top layout, made on the spot."""

import hashlib
import http.server
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from doubleunet_bs.errors import RunError
from doubleunet_bs.network import double_unet, encoder_weights
from doubleunet_bs.network.encoder_weights import CONV_LAYERS, check_encoder_weights

CHANNELS = (3, 64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512, 512)


def write_weights(path, change=lambda arrays: None):
    """A file as Keras publishes it: one group a layer, attribute weight_names, kernel and bias datasets."""
    rng = np.random.default_rng(0)
    arrays = {
        name: {f"{name}_W_1:0": rng.random((3, 3, a, b), np.float32), f"{name}_b_1:0": rng.random(b, np.float32)}
        for name, a, b in zip(CONV_LAYERS, CHANNELS[:-1], CHANNELS[1:], strict=True)
    }
    change(arrays)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in arrays]
        for name, weights in arrays.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [key.encode() for key in weights]
            for key, value in weights.items():
                group[key] = value
    return arrays


def test_file_fills_all_sixteen_convolutions(tmp_path):
    arrays = write_weights(tmp_path / "vgg19.h5")
    network = double_unet((32, 32, 3), encoder_weights=tmp_path / "vgg19.h5")
    assert len(arrays) == 16
    for name, weights in arrays.items():
        for found, expected in zip(network.get_layer(name).get_weights(), weights.values(), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_missing_layer_is_named(tmp_path):
    write_weights(tmp_path / "short.h5", lambda arrays: arrays.pop("block4_conv2"))
    with pytest.raises(RunError, match="short.h5: not the VGG19 .*layer block4_conv2 is missing"):
        double_unet((32, 32, 3), encoder_weights=tmp_path / "short.h5")


def test_a_wrong_shape_is_named(tmp_path):
    def transpose(arrays):
        key = "block2_conv1_W_1:0"
        arrays["block2_conv1"][key] = arrays["block2_conv1"][key].transpose(3, 2, 1, 0)

    write_weights(tmp_path / "other.h5", transpose)
    with pytest.raises(
        RunError, match="other.h5: not the VGG19 .*layer #2 .named block2_conv1.*Received saved weight with shape"
    ):
        double_unet((32, 32, 3), encoder_weights=tmp_path / "other.h5")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(RunError, match="text.h5: not the VGG19 no-top file"):
        double_unet((32, 32, 3), encoder_weights=tmp_path / "text.h5")
    with pytest.raises(RunError, match="gone.h5: no such file"):
        double_unet((32, 32, 3), encoder_weights=tmp_path / "gone.h5")


@pytest.fixture
def published(monkeypatch, tmp_path):
    """A small file in the place of the published one, and an empty cache."""
    arrays = write_weights(tmp_path / "published.h5")
    content = (tmp_path / "published.h5").read_bytes()
    monkeypatch.setattr(encoder_weights, "MD5", hashlib.md5(content).hexdigest())
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "cache"))
    return arrays, content


def test_failed_download_says_what_to_do_and_does_not_fall_back(monkeypatch, published, tmp_path):
    def unreachable(*args, **kwargs):
        raise Exception("URL fetch failure: [Errno -2] Name or service not known")

    monkeypatch.setattr(keras.utils, "get_file", unreachable)
    with pytest.raises(RunError, match="could not be downloaded.*--encoder-weights FILE.*--encoder-weights none"):
        double_unet((32, 32, 3), encoder_weights="imagenet")
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_imagenet_uses_the_file_keras_downloads(monkeypatch, published, tmp_path):
    arrays, content = published
    asked = {}

    def download(name, url, cache_dir, **kwargs):
        asked.update(url=url, **kwargs)
        (Path(cache_dir) / name).write_bytes(content)
        return str(Path(cache_dir) / name)

    monkeypatch.setattr(keras.utils, "get_file", download)
    network = double_unet((32, 32, 3), encoder_weights="imagenet")
    np.testing.assert_array_equal(
        network.get_layer("block1_conv1").get_weights()[0], arrays["block1_conv1"]["block1_conv1_W_1:0"]
    )
    # The same URL and checksum as keras.applications, and the place where it would look.
    from keras.src.applications import vgg19

    assert asked["url"] == vgg19.WEIGHTS_PATH_NO_TOP and asked["file_hash"] == encoder_weights.MD5
    name = vgg19.WEIGHTS_PATH_NO_TOP.rsplit("/", 1)[1]
    assert [file.name for file in (tmp_path / "cache" / "models").iterdir()] == [name]
    # Nothing is downloaded twice; a damaged copy is replaced.
    asked.clear()
    check_encoder_weights("imagenet")
    assert not asked
    (tmp_path / "cache" / "models" / name).write_bytes(content[:-9])
    check_encoder_weights("imagenet")
    assert asked and (tmp_path / "cache" / "models" / name).read_bytes() == content


def test_the_checksum_is_that_of_keras():
    from keras.src.applications import vgg19

    assert f'"{encoder_weights.MD5}"' in Path(vgg19.__file__).read_text()


def test_processes_that_download_at_once_all_find_the_whole_file(monkeypatch, tmp_path):
    """Over HTTP from a slow server, each beginning when another one is past half of it."""
    content = np.random.default_rng(0).bytes(1_000_000)
    monkeypatch.setattr(encoder_weights, "MD5", hashlib.md5(content).hexdigest())
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            for start in range(0, len(content), len(content) // 10):
                self.wfile.write(content[start : start + len(content) // 10])
                self.wfile.flush()
                time.sleep(0.1)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(encoder_weights, "URL", f"http://127.0.0.1:{server.server_port}/weights.h5")

    def fetch(number: int) -> bytes:
        time.sleep(0.6 * number)
        return encoder_weights._published_file().read_bytes()

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(fetch, range(3)))
    server.shutdown()
    server.server_close()
    assert all(file == content for file in found)
    assert len(list((tmp_path / "models").iterdir())) == 1


def test_a_copy_of_the_published_file_counts_as_imagenet(monkeypatch, published, tmp_path):
    def download(*args, **kwargs):
        raise AssertionError("nothing is to be downloaded")

    monkeypatch.setattr(keras.utils, "get_file", download)
    assert encoder_weights.known_source(str(tmp_path / "published.h5")) == "imagenet"
    (tmp_path / "published.h5").unlink()
    check_encoder_weights("imagenet")
    # A file of one's own keeps its name, and so does one that is not there.
    write_weights(tmp_path / "own.h5", lambda arrays: arrays["block1_conv1"]["block1_conv1_b_1:0"].fill(0))
    for source in (str(tmp_path / "own.h5"), str(tmp_path / "gone.h5"), "none", "imagenet"):
        assert encoder_weights.known_source(source) == source


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, published, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    with pytest.raises(RunError, match="file/models.*: set KERAS_HOME to a writable folder"):
        encoder_weights.known_source(str(tmp_path / "published.h5"))
    with pytest.raises(RunError, match="could not be downloaded"):
        check_encoder_weights("imagenet")
