"""The configuration file: what it means, and one clear line for what is wrong in it."""

import pytest

from doubleunet_bs.errors import SettingsError
from doubleunet_bs.node.settings import Destination, Peer, read_settings

FROM = """[[receive.from]]
ae_title = "CAMERA"
address = "10.0.0.5"
"""
WHOLE = f"""
spool = "spool"
model = "model"
[receive]
ae_title = "BONESCAN"
port = 11112
{FROM}[[send]]
ae_title = "PACS"
host = "10.0.0.2"
port = 104
[[send]]
url = "https://pacs.example/dicom-web/"
"""


def read(tmp_path, text):
    (tmp_path / "node.toml").write_text(text)
    return read_settings(tmp_path / "node.toml")


def test_what_a_file_means(tmp_path):
    # Some editors begin a file with a byte order mark.
    found = read(tmp_path, "\ufeff" + WHOLE)
    assert found.spool == tmp_path / "spool"
    # This machine only, unless the file says otherwise; nothing of a monitor without its table.
    assert (found.receive.host, found.monitor, found.tls) == ("127.0.0.1", None, None)
    assert found.receive.peers == (Peer("CAMERA", "10.0.0.5"),)
    assert found.destinations == (
        Destination("PACS", "PACS", "10.0.0.2", 104),
        Destination("pacs.example", url="https://pacs.example/dicom-web"),
    )


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2001:DB8::1", "2001:db8::1"),
        ("::0001", "::1"),
        ("2001:db8:0:0:0:0:0:1", "2001:db8::1"),
        ("::ffff:10.0.0.5", "10.0.0.5"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)
def test_an_address_means_the_same_however_it_is_written(written, meant, tmp_path):
    """`meant` is what a socket says of who connects."""
    assert read(tmp_path, WHOLE.replace("10.0.0.5", written)).receive.peers == (Peer("CAMERA", meant),)


def test_a_skeleton_is_named_like_the_model(tmp_path):
    (tmp_path / "bones").mkdir()
    both = 'skeleton = "bones"\nweights = "spiers1968"\n[receive]'
    found = read(tmp_path, WHOLE.replace("[receive]", both, 1))
    assert (found.model, found.skeleton, found.weights) == ("model", str(tmp_path / "bones"), "spiers1968")
    found = read(tmp_path, WHOLE.replace("[receive]", 'skeleton = "bones-fold-01"\n[receive]', 1))
    assert (found.skeleton, found.weights) == ("bones-fold-01", None)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('model = "model"', "", "model is missing"),
        ('model = "model"', 'modell = "model"', "modell is unknown: did you mean model?"),
        ("[[send]]", "[[sned]]", "sned is unknown: did you mean send?"),
        ("[receive]", "quiet_second = 3\n[receive]", "quiet_second is unknown: did you mean quiet_seconds?"),
        ("port = 11112", "port = 0", "receive.port = 0 must be a port, 1 to 65535"),
        ("port = 11112", "port = true", "must be a port"),
        (
            "port = 11112",
            'port = "11112"',
            "receive.port = '11112' must be a port, 1 to 65535, without quotation marks",
        ),
        (
            "port = 11112",
            'port = 11112\ntls = "true"',
            "receive.tls = 'true' must be true or false, without quotation marks",
        ),
        (
            "[receive]",
            'quiet_seconds = "60"\n[receive]',
            "quiet_seconds = '60' must be a number above 0, without quotation marks",
        ),
        ("[receive]", 'min_free_mb = "1"\n[receive]', "min_free_mb = '1' must be a whole number"),
        ("port = 11112", "prot = 11112", "receive.prot is unknown: did you mean port?"),
        ("port = 11112", "", "receive.port is missing"),
        ('"CAMERA"', '"CAMERA\\\\1"', "must be an AE title"),
        ('"BONESCAN"', '"BONESCAN_OF_THE_WHOLE_CLINIC"', "must be an AE title"),
        (
            '"BONESCAN"',
            '"BONE "',
            "receive.ae_title = 'BONE ' must be an AE title: at most 16 ASCII characters, no backsl",
        ),
        ('"CAMERA"', '" CAMERA"', "' CAMERA' must be an AE title: at most 16 ASCII characters, no backslash, no space"),
        ('address = "10.0.0.5"', 'address = "camera1"', "receive.from.address = 'camera1' must be an IP address"),
        ('address = "10.0.0.5"', 'address = "10.0.0.256"', "must be an IP address"),
        ('address = "10.0.0.5"', "address = 10", "must be an IP address"),
        (FROM, "", "[[receive.from]] is missing: list who may send"),
        ("[[receive.from]]", "[[receive.form]]", "receive.form is unknown: did you mean from?"),
        ("https://", "ftp://", "must be an http or https address"),
        ("https://", "https://user:secret@", "send.url must be an http or https address without a password"),
        ("[receive]", "[watch]\nfolder = '.'\n[receive]", "watch.folder and spool lie in one another"),
        ("[receive]", "[watch]\nfolder = 'not_there'\n[receive]", "watch.folder: no folder"),
        ("https://pacs.example/dicom-web/", 'http://pacs/dicom-web"\ntoken = "HOME', "would travel unencrypted"),
        ("[receive]", "[tls]\ncertificate='a'\nkey='b'\nauthority='c'\n[receive]", "[tls]: No such file"),
        ('url = "https://pacs.example/dicom-web/"', 'ae_title = "PACS"\nhost = "h"\nport = 1', "the same name"),
        ("port = 104", "port = 104\ntls = true", "tls = true needs [tls]"),
        ("[receive]", "[watch]\nfolder = 'spool/in'\n[receive]", "watch.folder and spool lie in one another"),
        ('spool = "spool"', 'spool = "node.toml/x"', "node.toml is a file: name a folder"),
        ("[receive]", 'engine = "gpu"\n[receive]', "gpu"),
        ("[receive]", 'weights = "spiers1968"\n[receive]', "weights needs skeleton"),
        ("[receive]", 'weights = "icrp"\n[receive]', "weights = 'icrp' must be one of icrp110-male, icrp110-female"),
        ("[receive]", "skeleton = true\n[receive]", "skeleton = True must be a text"),
        ("dicom-web/", 'dicom-web/"\ntoken = "NO_SUCH_VARIABLE_HERE', "NO_SUCH_VARIABLE_HERE is not set"),
        ("[receive]", "[receive", "not a readable TOML file"),
    ],
)
def test_what_is_refused(old, new, said, tmp_path):
    assert old in WHOLE
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, WHOLE.replace(old, new, 1))
    message = str(caught.value)
    assert "secret" not in message
    assert said in message and "\n" not in message and message.startswith(str(tmp_path / "node.toml"))


def test_all_faults_at_once_a_line_each(tmp_path):
    text = (
        WHOLE.replace("11112", "0")
        .replace("10.0.0.5", "camera1")
        .replace("port = 104", "")
        .replace("spool =", "pool =")
    )
    path = tmp_path / "node.toml"
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    assert str(caught.value).splitlines() == [
        f"{path}: receive.from.address = 'camera1' must be an IP address",
        f"{path}: receive.port = 0 must be a port, 1 to 65535",
        f"{path}: send.port is missing",
        f"{path}: pool is unknown: did you mean spool?",
    ]
    # What does not go together is looked at once each value is possible.
    text = WHOLE.replace("[receive]", 'engine = "gpu"\nweights = "spiers1968"\n[receive]', 1)
    with pytest.raises(SettingsError, match=r"engine 'gpu': .*\n.*weights needs skeleton"):
        read(tmp_path, text)


def test_a_node_needs_a_source(tmp_path):
    with pytest.raises(SettingsError, match=r"nothing would come in: add \[receive\] or \[watch\]"):
        read(tmp_path, 'spool = "spool"\nmodel = "model"\n')
    with pytest.raises(SettingsError, match="no such file"):
        read_settings(tmp_path / "other.toml")
