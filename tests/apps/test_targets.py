import pytest

from onionrelay.apps.targets import parse_folder, parse_node, parse_service, parse_target
from onionrelay.base.errors import InvalidId, UsageError
from onionrelay.base.ids import NodeId, RelayId
from onionrelay.crypto.signing import SigningSecret

KEY = SigningSecret(bytes(range(32))).public
NODE = NodeId(KEY)


@pytest.mark.parametrize(
    "words",
    [
        (f"{NODE}:22",),
        (f"{NODE}.onionrelay:22",),
        (f"{NODE}.onionrelay", "22"),
        (f"{NODE}.onionrelay.alt:22",),
        (str(NODE), "22"),
        (f"{NODE}.OnionRelay.:22",),
        (f"{str(NODE).upper()}.ONIONRELAY", "22"),
    ],
)
def test_all_ways_to_write_a_target(words):
    assert parse_target(*words) == (NODE, 22)


def test_a_node_id_is_a_legal_host_label():
    assert len(str(NODE)) <= 63


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "", "²", "1e3", " 80", "000080", "80:90"])
def test_a_wrong_port_is_a_usage_error(port):
    with pytest.raises(UsageError):
        parse_target(str(NODE), port)


def test_a_missing_port_is_asked_for():
    with pytest.raises(UsageError, match="which port"):
        parse_target(str(NODE))


@pytest.mark.parametrize(
    "text", ["", "abc", str(NODE)[:-1], str(NODE)[:-1] + "!", str(RelayId(KEY)), f"{NODE}.onion", "x" * 10_000]
)
def test_a_wrong_id_is_named_in_one_short_sentence(text):
    with pytest.raises(InvalidId) as error:
        parse_node(text)
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)


def test_services():
    assert parse_service("80=127.0.0.1:8000") == (80, "127.0.0.1", 8000)
    assert parse_service("22=localhost:22") == (22, "localhost", 22)
    assert parse_service("80=[::1]:8000") == (80, "::1", 8000)


@pytest.mark.parametrize(
    "text", ["80", "80=", "80=8000", "80=:8000", "80=::1:8000", "80=[]:1", "=127.0.0.1:80", "0=127.0.0.1:80", "80=h:0"]
)
def test_a_wrong_service_is_a_usage_error(text):
    with pytest.raises(UsageError):
        parse_service(text)


def test_folders(tmp_path):
    assert parse_folder(f"80={tmp_path}") == (80, tmp_path)
    (tmp_path / "file").write_text("")
    for wrong in ("80", "80=", f"x={tmp_path}", f"80={tmp_path}/none", f"80={tmp_path}/file"):
        with pytest.raises(UsageError):
            parse_folder(wrong)
