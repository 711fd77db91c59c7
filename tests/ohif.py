"""OHIF, the web viewer, before a PACS: a static server that passes /dicom-web on, and what a user does in it.

Without a test: `python tests/ohif.py http://127.0.0.1:8042` serves the viewer on port 3000 for an Orthanc that runs
there. OHIF_DIST names the built viewer, `package/dist` of `npm pack @ohif/app@3.13.2`.
"""

import contextlib
import http.server
import os
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

CONFIGURATION = """
window.config = {
  routerBasename: null, extensions: [], modes: [], customizationService: {}, showStudyList: true,
  maxNumberOfWebWorkers: 2, showWarningMessageForCrossOrigin: false, showCPUFallbackMessage: false,
  investigationalUseDialog: { option: 'never' }, showErrorDetails: 'always', defaultDataSourceName: 'pacs',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'pacs',
    configuration: {
      friendlyName: 'PACS', name: 'pacs', wadoUriRoot: '/dicom-web', qidoRoot: '/dicom-web', wadoRoot: '/dicom-web',
      qidoSupportsIncludeField: false, imageRendering: 'wadors', thumbnailRendering: 'wadors',
      enableStudyLazyLoad: true, supportsFuzzyMatching: false, supportsWildcard: true, staticWado: true,
      acceptHeader: ['multipart/related; type=application/octet-stream; transfer-syntax=*'],
      bulkDataURI: { enabled: true, relativeResolution: 'studies' },
    },
  }],
};
"""


def viewer_folder() -> Path | None:
    """The built viewer, or None where OHIF_DIST does not name one."""
    folder = Path(os.environ.get("OHIF_DIST", "nowhere"))
    return folder if (folder / "app-config.js").is_file() else None


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    pacs = ""

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.startswith("/dicom-web"):
            return self._pass_on()
        if path == "/app-config.js":
            return self._answer(200, "text/javascript", CONFIGURATION.encode())
        if not Path(self.translate_path(path)).is_file():
            # The viewer's own addresses, such as /viewer?StudyInstanceUIDs=..., are all this page.
            self.path = "/index.html"
        return super().do_GET()

    def do_POST(self):
        self._pass_on()

    def _pass_on(self):
        length = int(self.headers.get("Content-Length", 0))
        headers = {name: self.headers[name] for name in ("Accept", "Content-Type") if name in self.headers}
        request = urllib.request.Request(self.pacs + self.path, self.rfile.read(length) or None, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                self._answer(answer.status, answer.headers.get("Content-Type", ""), answer.read())
        except urllib.error.HTTPError as error:
            self._answer(error.code, "text/plain", error.read())

    def _answer(self, status: int, kind: str, body: bytes):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def serving_ohif(viewer: Path, pacs: str, port: int = 0) -> Iterator[str]:
    """Serve the viewer for a PACS with DICOMweb below `pacs`/dicom-web; gives the viewer's address.

    Args:
        viewer: from `viewer_folder`.
        pacs: such as http://127.0.0.1:8042.
        port: of 127.0.0.1; 0 takes a free one.
    """
    handler = type("Handler", (_Handler,), {"pacs": pacs})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", port), lambda *request: handler(*request, directory=str(viewer))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


if __name__ == "__main__":
    folder = viewer_folder()
    if folder is None or len(sys.argv) != 2:
        raise SystemExit("usage: OHIF_DIST=package/dist python tests/ohif.py http://127.0.0.1:8042")
    with serving_ohif(folder, sys.argv[1], 3000) as address:
        print(address, flush=True)
        threading.Event().wait()
