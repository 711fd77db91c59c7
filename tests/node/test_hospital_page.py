"""The walk-through of assets/docs/hospital.md, line by line, on free ports: Orthanc, node and OHIF."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from orthanc import Orthanc, free_port, require_program

from doubleunet_bs.node.settings import read_settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "assets" / "docs" / "hospital.md").read_text(encoding="utf-8")
INSTALLS = ("sudo ", "npm ")


def test_the_files_of_the_page_are_read():
    found = read_settings(ROOT / "assets" / "hospital" / "node.toml")
    assert found.receive.host == "127.0.0.1" and found.monitor == ("127.0.0.1", 9090)


def test_the_table_names_all_keys():
    import dataclasses

    from doubleunet_bs.node.settings import NodeSettings

    said = set(re.findall(r"`\[*([a-z_.]+)\]*`", PAGE))
    names = {field.name for field in dataclasses.fields(NodeSettings)}
    assert names - {"destinations"} <= said and {"send", "receive.from", "token", "url"} <= said


def test_systemd_understands_the_service_file(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("the service file is not checked: systemd-analyze is missing (apt-get install systemd)")
    text = (ROOT / "assets" / "hospital" / "doubleunet-bs-node.service").read_text(encoding="utf-8")
    [program] = re.findall(r"ExecStart=(\S+) node \S+\.toml$", text, re.MULTILINE)
    unit = tmp_path / "node.service"
    unit.write_text(text.replace(program, sys.executable))
    checked = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    # A key that it does not know is said, and is no error. Units of this machine may have faults, too.
    assert checked.returncode == 0 and unit.name not in checked.stderr


@pytest.mark.slow
def test_the_page_works(trained_run, tmp_path, browser, record_property):
    for program, package in (("Orthanc", "orthanc"), ("nginx", "nginx-light"), ("curl", "curl")):
        require_program(program, package)
    if not Path("/usr/bin/storescu").exists():
        pytest.skip("storescu is not installed (apt-get install dcmtk)")
    viewer = Path(os.environ.get("OHIF_DIST", "nowhere"))
    if not (viewer / "app-config.js").is_file():
        pytest.skip("OHIF is not here: name its dist folder in OHIF_DIST (npm pack @ohif/app@3.13.2)")
    folder = tmp_path / "home" / "bonescan"
    shutil.copytree(viewer, folder / "package" / "dist")
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "assets" / "hospital", clone / "assets" / "hospital")
    (folder / "RUN").symlink_to(trained_run)
    ports = {port: str(free_port()) for port in ("4242", "8042", "11112", "9090", "3000")}

    def with_free_ports(text: str) -> str:
        for port, free in ports.items():
            text = re.sub(rf"\b{port}\b", free, text)
        return text

    for path in (clone / "assets" / "hospital").iterdir():
        path.write_text(with_free_ports(path.read_text()))
    [block] = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    lines = [with_free_ports(line) for line in block.splitlines() if not line.startswith(INSTALLS)]
    assert len(block.splitlines()) <= 15
    if os.geteuid() == 0:
        # Started by root it would read the files as another user, who may not enter the folder of the test.
        lines = [line.replace("nginx ", 'nginx -g "user root;" ') for line in lines]
    script = tmp_path / "walk.sh"
    script.write_text("set -e\n" + "\n".join(lines) + "\nwait\n")
    with open(tmp_path / "walk.log", "w") as log:
        walk = subprocess.Popen(
            ["bash", str(script)],
            cwd=clone,
            env={**os.environ, "HOME": str(tmp_path / "home")},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        server = Orthanc(f"http://127.0.0.1:{ports['8042']}", int(ports["4242"]))
        end = time.monotonic() + 150
        while len(studies := _with_results(server)) < 3:
            assert time.monotonic() < end and walk.poll() is None, (tmp_path / "walk.log").read_text()
            time.sleep(1)
        _look(browser, f"http://127.0.0.1:{ports['3000']}", studies[0])
        # The archive has results of the node, too, which the node would not take. The phantoms are of 1900.
        [again] = re.findall(r"^  ```sh\n(.*?)^  ```$", PAGE, re.MULTILINE | re.DOTALL)
        again = with_free_ports(again).replace("20261127-", "19000101-")
        sent = json.loads(subprocess.run(again, shell=True, capture_output=True, check=True).stdout)
        assert (sent["InstancesCount"], sent["FailedInstancesCount"]) == (3, 0)
        assert (folder / "node.log").read_text().count('"received again"') == 3
    finally:
        os.killpg(walk.pid, signal.SIGTERM)
        if (folder / "nginx.pid").exists():
            os.kill(int((folder / "nginx.pid").read_text()), signal.SIGTERM)
        walk.wait(30)
    # A reader works in a clone: nothing of it may be left there.
    assert [path.name for path in clone.iterdir()] == ["assets"]
    record_property("note", "hospital.md: run with Orthanc, OHIF in Chromium, DCMTK and nginx")


def _with_results(server: Orthanc) -> list[str]:
    """UIDs of the studies that have a segmentation."""
    try:
        found = [server.get(f"/studies/{one}") for one in server.get("/studies")]
        series = {one["ID"]: [server.get(f"/series/{name}") for name in one["Series"]] for one in found}
    except OSError:
        return []
    return [
        one["MainDicomTags"]["StudyInstanceUID"]
        for one in found
        if any(each["MainDicomTags"]["Modality"] == "SEG" for each in series[one["ID"]])
    ]


def _look(browser, viewer: str, study: str) -> None:
    with urllib.request.urlopen(f"{viewer}/app-config.js") as answer:
        assert b"Orthanc" in answer.read()
    page = browser.new_page(viewport={"width": 1500, "height": 950})
    page.goto(f"{viewer}/segmentation?StudyInstanceUIDs={study}")
    found = page.locator('[data-cy="study-browser-thumbnail-no-image"]')
    found.first.wait_for(timeout=60000)
    # The segmentation and the report, which come in any order.
    assert any("doubleunet_bs segmentation" in text for text in found.all_inner_texts())
    page.close()
