"""The published ImageNet weights: downloaded from a local server, found again."""

import hashlib
import http.server
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from doubleunet_bs import imagenet_file
from doubleunet_bs.errors import RunError

CONTENT = np.random.default_rng(0).bytes(1_000_000)


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Stands for Keras' address: answers slowly, with what is in `parts`; `asked` counts the requests."""

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            opened.asked += 1
            self.send_response(opened.status)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            for part in opened.parts:
                self.wfile.write(part)
                self.wfile.flush()
                time.sleep(0.05)

        def log_message(self, *args):
            pass

    opened = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    opened.asked, opened.status = 0, 200
    opened.parts = [CONTENT[start : start + 100_000] for start in range(0, len(CONTENT), 100_000)]
    threading.Thread(target=opened.serve_forever, daemon=True).start()
    monkeypatch.setattr(imagenet_file, "MD5", hashlib.md5(CONTENT).hexdigest())
    monkeypatch.setattr(imagenet_file, "URL", f"http://127.0.0.1:{opened.server_port}/weights.h5")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "cache"))
    yield opened
    opened.shutdown()
    opened.server_close()


def test_it_is_downloaded_once_and_again_when_damaged(server, tmp_path):
    for asked in (1, 1):
        assert imagenet_file.published_file().read_bytes() == CONTENT and server.asked == asked
    cached = tmp_path / "cache" / "models" / "weights.h5"
    cached.write_bytes(CONTENT[:-9])
    assert imagenet_file.published_file() == cached and cached.read_bytes() == CONTENT and server.asked == 2
    assert list(cached.parent.iterdir()) == [cached]


@pytest.mark.parametrize("fault", ["refused", "cut off", "other content", "no server"])
def test_a_failed_download_is_one_short_line_with_the_way_out(server, tmp_path, fault):
    if fault == "refused":
        server.status = 404
    elif fault == "cut off":
        server.parts = server.parts[:5]
    elif fault == "other content":
        server.parts[3] = server.parts[2]
    else:
        server.shutdown()
        server.server_close()
    with pytest.raises(
        RunError, match=r"not downloaded \(.*\): fetch http.* and put it at .*models/weights.h5"
    ) as error:
        imagenet_file.published_file()
    assert len(str(error.value)) < 300 and not list((tmp_path / "cache" / "models").iterdir())


def test_processes_that_download_at_once_all_find_the_whole_file(server, tmp_path):
    """Each begins when another one is past half of it."""

    def fetch(number: int) -> bytes:
        time.sleep(0.3 * number)
        return imagenet_file.published_file().read_bytes()

    with ThreadPoolExecutor(3) as pool:
        assert all(found == CONTENT for found in pool.map(fetch, range(3)))
    assert len(list((tmp_path / "cache" / "models").iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_named(server, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    with pytest.raises(RunError, match="not downloaded .* and put it at .*/file/models/weights.h5"):
        imagenet_file.published_file()
