"""One study at a time: what gets results, what is set aside and why, what is tried again."""

import dataclasses
import errno
import json
import shlex

import pydicom
import pytest
from intensity_run import SETTINGS, export_regions

from doubleunet_bs.__main__ import main
from doubleunet_bs.errors import RunError, ScanError, ServerError
from doubleunet_bs.node.monitor import EventLog
from doubleunet_bs.node.run_node import ATTEMPTS, MODEL_UNUSABLE, SERVER_AWAY, _Node, startup_report
from doubleunet_bs.node.settings import Destination, Peer
from doubleunet_bs.scans.scan_files import ScanFiles


@pytest.fixture
def node(settings, spool, trained_run):
    pacs = Destination("pacs", "PACS", "127.0.0.1", 11999)
    chosen = dataclasses.replace(settings, model=str(trained_run / "fold_01"), destinations=(pacs,))
    spool.destinations = ("pacs",)
    return _Node(chosen, spool, EventLog())


def take(spool, paths):
    for path in paths:
        spool.receive(spool.copy_in(str(path)), 0)


def events(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]


def test_a_scan_gets_results_for_every_destination(node, spool, study_files, capsys):
    [path] = study_files()
    take(spool, [path])
    assert node.step() and not node.step()
    source = pydicom.dcmread(path)
    sent = [pydicom.dcmread(one.path) for one in spool.deliveries("pacs")]
    assert {"SEG", "OT"} <= {one.Modality for one in sent}
    assert {(one.PatientID, one.StudyInstanceUID) for one in sent} == {(source.PatientID, source.StudyInstanceUID)}
    said = str(events(capsys))
    assert "predicted" in said and source.PatientID not in said and source.StudyInstanceUID not in said


@pytest.mark.slow
@pytest.mark.parametrize("served", [False, True])
def test_a_skeleton_adds_regions_and_the_index(served, settings, spool, study_files, trained_run, request):
    """With engines here, and with one server that has both models."""
    skeleton = request.getfixturevalue("exported_skeleton")
    chosen = dataclasses.replace(
        settings,
        model=str(trained_run / "fold_01"),
        skeleton=str(skeleton),
        weights="spiers1968",
        destinations=(Destination("pacs", "PACS", "127.0.0.1", 11999),),
    )
    if served:
        names = {"model": "focal-tversky-otsu-fold-01", "skeleton": "skeleton-fold-01"}
        server = request.getfixturevalue("served_skeleton")
        chosen = dataclasses.replace(chosen, engine="serving", server=server.grpc, **names)
    assert "skeleton  by skeleton" in startup_report(chosen)
    take(spool, study_files())
    spool.destinations = ("pacs",)
    assert _Node(chosen, spool, EventLog()).step()
    sent = {path.name: path for path in (one.path for one in spool.deliveries("pacs"))}
    assert {"segmentation.dcm", "bsi.dcm"} <= set(sent)
    labels = [one.SegmentLabel for one in pydicom.dcmread(sent["segmentation.dcm"]).SegmentSequence]
    assert labels == ["metastasis", "skull"]
    result = json.loads((sent["bsi.dcm"].parent / "result.json").read_text())
    assert result["bone_scan_index"]["table"] == "spiers1968" and result["bone_scan_index"]["value"] > 0


@pytest.mark.slow
def test_models_that_were_prepared_differently_stop_the_node_at_its_start(settings, spool, trained_run, tmp_path):
    skeleton = export_regions(tmp_path / "skeleton", dataclasses.replace(SETTINGS, brightness="per_view"))
    node = _Node(
        dataclasses.replace(settings, model=str(trained_run / "fold_01"), skeleton=str(skeleton)), spool, EventLog()
    )
    with pytest.raises(RunError, match="lesions and skeleton are prepared differently"):
        node.open_model()


def test_a_corrected_patient_gets_results_of_their_own(node, spool, study_files):
    [path] = study_files()
    take(spool, [path])
    node.step()
    for one in spool.deliveries("pacs"):
        spool.delivered(one, "sent")
    dataset = pydicom.dcmread(path)
    dataset.PatientID = "CORRECTED"
    dataset.save_as(path)
    take(spool, [path])
    node.step()
    again = spool.deliveries("pacs")
    assert again and {pydicom.dcmread(one.path).PatientID for one in again} == {"CORRECTED"}


@pytest.mark.slow
def test_two_files_that_come_minutes_apart(node, spool, study_files):
    first, second = study_files("two-files")
    take(spool, [first])
    node.step()
    assert spool.figures()["studies"] == {"aside": 1} and spool.deliveries("pacs") == []
    take(spool, [second])
    node.step()
    assert spool.figures()["studies"] == {"sending": 1}


def test_what_is_no_bone_scan_is_set_aside_with_its_reason(node, spool, study_files, capsys):
    take(spool, study_files("tomographic"))
    [path] = study_files(seed="2")
    dataset = pydicom.dcmread(path)
    dataset.Modality = "OT"
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 512, 1024, 1
    dataset.PixelData = dataset.PixelData[: 2 * 512 * 1024]
    dataset.save_as(path)
    take(spool, [path])
    assert node.step() and node.step()
    aside = [event for event in events(capsys) if event["event"] == "set aside"]
    assert len(aside) == 2 and all(event["reasons"] and all(event["reasons"]) for event in aside)
    assert aside[0]["reasons"] == ["tomographic"] and spool.deliveries("pacs") == []


def test_a_study_that_fails_again_and_again_is_set_aside(node, spool, study_files, monkeypatch, capsys):
    monkeypatch.setattr("doubleunet_bs.node.run_node.FIRST_PAUSE", 0.0)
    take(spool, study_files())
    node.open_model()
    monkeypatch.setattr(node._networks.lesions, "segment", raising(MemoryError()))
    for _ in range(ATTEMPTS - 1):
        assert node.step()
    assert spool.figures()["studies"] == {"receiving": 1}
    assert node.step() and spool.figures()["studies"] == {"aside": 1}
    failed = [event for event in events(capsys) if event["event"] == "failed"]
    assert len(failed) == ATTEMPTS and failed[0]["reason"] == "MemoryError"


def test_a_study_that_ends_the_node_is_set_aside_after_three_tries(node, spool, study_files, monkeypatch, capsys):
    monkeypatch.setattr("doubleunet_bs.node.spool.CRASH_PAUSE", 0.0)
    paths = study_files()
    take(spool, paths)
    tries = []
    monkeypatch.setattr(node, "_predict", lambda *_: tries.append(1) or raising(SystemExit())())
    node.open_model()
    for _ in range(3):
        with pytest.raises(SystemExit):
            node.step()
        spool.close()
        spool.__init__(spool.folder, spool.destinations)
    assert node.step() and len(tries) == 3 and spool.figures()["studies"] == {"aside": 1}
    assert reasons_of("set aside", capsys) == [["crash"]]
    # Sent again, for instance once there is more memory, it gets new tries.
    monkeypatch.undo()
    take(spool, paths)
    assert node.step() and spool.figures()["studies"] == {"sending": 1}


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "error", "reason"),
    [
        # What a header holds that DICOM forbids.
        ("doubleunet_bs.dicom_results.make_results.secondary_capture", ValueError("forbidden"), "unreferable"),
        ("doubleunet_bs.scans.scan_files.ScanFiles.read", ScanError("is damaged", "damaged-pixels"), "damaged-pixels"),
    ],
)
def test_what_lies_in_a_scan_is_set_aside_at_once(
    function, error, reason, node, spool, study_files, monkeypatch, capsys
):
    paths = study_files()
    take(spool, paths)
    node.open_model()
    monkeypatch.setattr(function, raising(error))
    assert node.step() and spool.figures()["studies"] == {"aside": 1} and not node.step()
    assert reasons_of("set aside", capsys) == [[reason]]
    # Sent again, it is tried again.
    monkeypatch.undo()
    take(spool, paths)
    assert node.step() and spool.figures()["studies"] == {"sending": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("doubleunet_bs.scans.scan_files.ScanFiles.read", ScanError("cannot be read (I/O error)", "unreadable")),
        ("doubleunet_bs.dicom_files.sources.open", OSError(errno.EIO, "I/O error")),
        ("doubleunet_bs.results.result_folder.write_json", OSError(errno.ENOSPC, "No space left on device")),
        ("doubleunet_bs.inference.predictor.Predictor.segment", RuntimeError("the device is lost")),
        ("doubleunet_bs.inference.predictor.Predictor.segment", IndexError()),
    ],
)
def test_everything_else_is_tried_again(function, error, node, spool, study_files, monkeypatch):
    monkeypatch.setattr("doubleunet_bs.node.run_node.FIRST_PAUSE", 0.0)
    take(spool, study_files())
    node.open_model()
    with monkeypatch.context() as broken:
        broken.setattr(function, raising(error), raising=False)
        assert node.step() and spool.figures()["studies"] == {"receiving": 1}
    assert node.step() and spool.figures()["studies"] == {"sending": 1}


def lose(spool, path):
    """Make the received copy of a file unreadable."""
    uid = pydicom.dcmread(path).SOPInstanceUID
    [copy] = [one for one in spool.folder.glob("received/*/*.dcm") if pydicom.dcmread(one).SOPInstanceUID == uid]
    copy.unlink()
    copy.symlink_to("gone")


def one_study(first, second):
    """Give the file `second` the study of `first`, and other counts."""
    dataset, other = pydicom.dcmread(second), pydicom.dcmread(first)
    dataset.StudyInstanceUID, dataset.PatientID = other.StudyInstanceUID, other.PatientID
    counts = dataset.pixel_array.copy()
    counts[counts == counts.max()] -= 1
    dataset.PixelData = counts.tobytes()
    dataset.save_as(second)


def reasons_of(event, capsys):
    return [one["reasons"] for one in events(capsys) if one["event"] == event]


@pytest.mark.slow
def test_one_bad_file_beside_one_good_scan(node, spool, study_files, capsys):
    """The good scan is answered at once; the other is taken when it is sent again."""
    [good], [bad] = study_files(), study_files(seed="2")
    one_study(good, bad)
    take(spool, [good, bad])
    lose(spool, bad)
    assert node.step() and spool.figures()["studies"] == {"sending": 1}
    first = {one.uid for one in spool.deliveries("pacs")}
    assert first and reasons_of("predicted", capsys) == [["unreadable"]]
    take(spool, [bad])
    assert node.step() and reasons_of("predicted", capsys) == [[]]
    assert len(spool.deliveries("pacs")) > len(first)


def test_a_decoder_that_fails_beside_a_good_scan(node, spool, study_files, monkeypatch, capsys):
    [good], [bad] = study_files(), study_files(seed="2")
    one_study(good, bad)
    take(spool, [good, bad])
    uid, read = pydicom.dcmread(bad).SOPInstanceUID, ScanFiles.read

    def failing(files, *args):
        if pydicom.dcmread(files.sources[0].path).SOPInstanceUID == uid:
            raise ScanError("needs a decoding process", "decoder")
        return read(files, *args)

    monkeypatch.setattr(ScanFiles, "read", failing)
    assert node.step() and reasons_of("predicted", capsys) == [["decoder"]] and spool.deliveries("pacs")


def test_a_study_that_stays_unreadable_keeps_its_reason(node, spool, study_files, monkeypatch, capsys):
    monkeypatch.setattr("doubleunet_bs.node.run_node.FIRST_PAUSE", 0.0)
    paths = study_files()
    take(spool, paths)
    lose(spool, paths[0])
    for _ in range(ATTEMPTS):
        assert node.step()
    assert not node.step() and reasons_of("set aside", capsys) == [["unreadable"]]
    take(spool, paths)
    assert node.step() and spool.figures()["studies"] == {"sending": 1}


def test_a_view_that_cannot_be_read_is_not_taken_as_missing(node, spool, study_files, monkeypatch):
    monkeypatch.setattr("doubleunet_bs.node.run_node.FIRST_PAUSE", 0.0)
    node.settings = dataclasses.replace(node.settings, allow_missing_view=True)
    first, second = study_files("two-files")
    take(spool, [first, second])
    lose(spool, second)
    assert node.step() and spool.figures()["studies"] == {"receiving": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    "error", [RunError("grpc://gpu:8500: of another format"), RuntimeError("no device"), KeyError()]
)
def test_a_server_with_another_model_costs_no_study(error, node, spool, study_files, monkeypatch):
    monkeypatch.setattr("doubleunet_bs.node.run_node.FIRST_PAUSE", 0.0)
    take(spool, study_files())
    with monkeypatch.context() as broken:
        broken.setattr("doubleunet_bs.node.run_node.Predictor", raising(error))
        for _ in range(2 * ATTEMPTS):
            node.step()
        assert node.trouble == MODEL_UNUSABLE and spool.figures()["studies"] == {"receiving": 1}
    node.step()
    assert node.trouble == "" and spool.figures()["studies"] == {"sending": 1}


@pytest.mark.slow
def test_a_model_server_that_is_away_costs_nothing(node, spool, study_files, monkeypatch):
    monkeypatch.setattr("doubleunet_bs.node.run_node.FIRST_PAUSE", 0.0)
    take(spool, study_files())
    with monkeypatch.context() as away:
        away.setattr(
            "doubleunet_bs.inference.predictor.Predictor.segment", raising(ServerError("gpu: changed version"))
        )
        for _ in range(2 * ATTEMPTS):
            node.step()
        # Whatever version the server has next is opened.
        assert node.trouble == SERVER_AWAY and node._networks is None
        assert spool.figures()["studies"] == {"receiving": 1}
    node.step()
    assert node.trouble == "" and spool.figures()["studies"] == {"sending": 1}


def test_a_server_that_is_back_is_noticed_before_a_study_comes(node, monkeypatch, capsys):
    """A load balancer that waits for /health sends no study until then."""
    monkeypatch.setattr("doubleunet_bs.node.run_node.FIRST_PAUSE", 0.0)
    with monkeypatch.context() as away:
        away.setattr("doubleunet_bs.node.run_node.Predictor", raising(ServerError("gpu: not available")))
        node.open_model()
        for _ in range(3):
            assert not node.step() and node.trouble == SERVER_AWAY
    assert not node.step() and node.trouble == ""
    assert [event["event"] for event in events(capsys)] == [SERVER_AWAY, "model"]


def test_a_server_that_fails_in_predictions_is_trouble_until_it_is_asked_again(node, spool, study_files, monkeypatch):
    take(spool, study_files())
    node.open_model()
    with monkeypatch.context() as failing:
        failing.setattr("doubleunet_bs.inference.predictor.Predictor.segment", raising(ServerError("gpu: no answer")))
        assert node.step() and node.trouble == SERVER_AWAY
    assert not node.step() and node.trouble == SERVER_AWAY
    # Another trouble that comes and goes does not hide it.
    with monkeypatch.context() as full:
        full.setattr(spool, "free_bytes", lambda: 0)
        assert not node.step() and node.trouble == "disk-full"
    assert not node.step() and node.trouble
    monkeypatch.setattr(node, "_next_open", 0.0)
    node.step()
    assert node.trouble == ""


def test_a_full_disk_stops_predictions_until_there_is_space(node, spool, study_files, monkeypatch):
    take(spool, study_files())
    monkeypatch.setattr(spool, "free_bytes", lambda: 0)
    assert not node.step() and node.trouble == "disk-full"
    monkeypatch.undo()
    assert node.step() and node.trouble == ""


def test_the_startup_report_and_the_list(node, spool, study_files, tmp_path, capsys):
    said = startup_report(node.settings)
    for line in ("BONESCAN, 127.0.0.1 port", "CAMERA at 127.0.0.1", "pacs: PACS, 127.0.0.1 port 11999; not encrypted"):
        assert line in said
    assert "WARNING" not in said
    receive = dataclasses.replace(node.settings.receive, peers=(Peer("CAMERA", "10.0.0.5"),))
    assert "WARNING   127.0.0.1 is for" in startup_report(dataclasses.replace(node.settings, receive=receive))
    config = tmp_path / "node.toml"
    receive = '[receive]\nae_title = "A"\nport = 11998\n[[receive.from]]\nae_title = "B"\naddress = "127.0.0.1"\n'
    config.write_text(f'spool = "spool"\nmodel = "{node.settings.model}"\n{receive}')
    take(spool, study_files("tomographic"))
    node.step()
    capsys.readouterr()
    assert main(shlex.split(f"node {config} --list")) == 0
    assert "tomographic" in capsys.readouterr().out
    assert main(shlex.split(f"node {config} --check")) == 0
    assert "sends     nothing" in capsys.readouterr().out
    for key, line in (("model", 'model = "gone"'), ("skeleton", f'model = "{node.settings.model}"\nskeleton = "gone"')):
        config.write_text(f'spool = "spool"\n{line}\n{receive}')
        assert main(["node", str(config), "--check"]) == 2
        assert capsys.readouterr().err.startswith(f"error: {config}: {key}: gone: ")
