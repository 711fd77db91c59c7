"""/health and /metrics."""

import re
import urllib.error
import urllib.request

import pytest
from orthanc import free_port

from doubleunet_bs.node.monitor import EventLog, Monitor, metrics_text


def test_metrics_are_in_the_format_of_prometheus(spool, study_files):
    spool.receive(spool.copy_in(str(study_files()[0])), 0)
    study = spool.next_study()
    spool.destinations = ('the "main" PACS',)
    spool.finish(study, {"1.2": spool.results(1) / "a.dcm"})
    log = EventLog()
    for status in ("A700", "C000", "C000"):
        log("refused", status=status)
    log("predicted", study=1, reasons=[])
    text = metrics_text(spool, log)
    assert 'doubleunet_bs_node_results{destination="the \\"main\\" PACS",state="waiting"} 1\n' in text
    assert 'doubleunet_bs_node_events_total{event="refused",status="C000"} 2\n' in text
    assert 'doubleunet_bs_node_events_total{event="predicted",status=""} 1\n' in text
    assert 'doubleunet_bs_node_studies{state="sending"} 1\n' in text
    line = re.compile(r'# TYPE \w+ (gauge|counter)|\w+(\{(\w+="(\\.|[^"\\])*",?)+\})? [0-9.e+]+')
    assert all(line.fullmatch(one) for one in text.splitlines())
    types = [one.split()[2] for one in text.splitlines() if one.startswith("#")]
    assert len(types) == len(set(types))


def test_health(spool):
    wrong = [""]
    port = free_port()
    monitor = Monitor(("127.0.0.1", port), spool, EventLog(), lambda: wrong[0])
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
            assert answer.status == 200 and answer.read() == b'{"status": "ok"}\n'
        wrong[0] = "disk-full"
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
        assert caught.value.code == 503 and b"disk-full" in caught.value.read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/elsewhere")
    finally:
        monitor.stop()
