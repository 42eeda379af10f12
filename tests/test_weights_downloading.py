"""Downloads against a real https server on this machine: whole and as expected, or nothing and a sentence."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import shutil
import ssl
import subprocess
import threading

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from tristream.store import weights
from tristream.store.weights import catalogue, library
from tristream.store.weights import download as downloading
from tristream.store.weights.download import DownloadFailed, download

GOOD = save({"a": np.arange(300, dtype=np.float32)})
SHA256 = hashlib.sha256(GOOD).hexdigest()
ALTERED = GOOD[:-1] + b"\x01"
ALTERED_SHA256 = hashlib.sha256(ALTERED).hexdigest()

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="needs the openssl program, for a certificate"
)


class Handler(http.server.BaseHTTPRequestHandler):
    """One path for each thing that a server can do to us."""

    def do_GET(self):
        self.server.asked.append(self.path)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
            getattr(self, self.path.strip("/").partition(".")[0].replace("-", "_"))()

    def answer(self, body, *, code=200, length=None, **headers):
        self.send_response(code)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def good(self):
        self.answer(GOOD, length=len(GOOD))

    def without_length(self):
        self.answer(GOOD)

    def altered(self):
        self.answer(ALTERED, length=len(GOOD))

    def short(self):
        self.answer(GOOD[:-10], length=len(GOOD))

    def page(self):
        self.answer(b"<!DOCTYPE html><p>Log in", length=24)

    def huge(self):
        self.answer(b"", length=1 << 40)

    def endless(self):
        self.answer(bytes(1 << 20))

    def gone(self):
        self.answer(b"", code=404, length=0)

    def broken(self):
        self.answer(b"", code=503, length=0)

    def to_http(self):
        self.answer(
            b"", code=302, length=0, Location=f"http://localhost:{self.server.server_port}/good"
        )

    def to_file(self):
        self.answer(b"", code=302, length=0, Location="file:///etc/hostname")

    def to_good(self):
        self.answer(b"", code=302, length=0, Location="/good")

    def silent(self):
        self.server.over.wait(30)

    def drip(self):
        self.answer(b"", length=len(GOOD))
        for byte in GOOD:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            if self.server.over.wait(0.05):
                return

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificate")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
               "-addext", "subjectAltName=DNS:localhost",
               "-keyout", folder / "key.pem", "-out", folder / "cert.pem"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture
def server(certificate, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    server = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.asked, server.over = [], threading.Event()
    server.root = f"https://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    monkeypatch.setenv("no_proxy", "localhost")
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(address, **kwargs):
    target = io.BytesIO()
    kwargs = {"sha256": SHA256, "max_bytes": 1 << 16, "timeout_seconds": 5.0, **kwargs}
    return download(address, target, **kwargs), target.getvalue()


@pytest.mark.parametrize("path", ["good", "without-length", "to-good"])
@pytest.mark.parametrize("known", [SHA256, SHA256[:8], ""])
def test_a_good_file_arrives_whole(server, path, known):
    seen = []
    found, body = fetch(
        f"{server.root}/{path}", sha256=known, progress=lambda n, total: seen.append((n, total))
    )
    assert (found, body) == (SHA256, GOOD)
    assert seen[-1] == (len(GOOD), None if path == "without-length" else len(GOOD))


@pytest.mark.parametrize(
    ("path", "network", "sentence"),
    [
        ("altered", False, rf"its sha256 is {ALTERED_SHA256} \({len(GOOD)} bytes\); it must be {SHA256}"),
        ("page", False, rf"its sha256 is [0-9a-f]{{64}} \(24 bytes\); it must be {SHA256}"),
        ("short", True, rf"the body is short: {len(GOOD) - 10} of {len(GOOD)} bytes came"),
        ("huge", False, r"the server offers 1099511627776 bytes; at most 65536 were expected"),
        ("endless", False, r"the server sends more than the 65536 bytes that were expected"),
        ("gone", False, r"the server answers 404 Not Found"),
        ("broken", True, r"the server answers 503 Service Unavailable"),
        ("to-http", False, r"the way leads to http://localhost:\d+/good; only https is followed"),
        ("to-file", False, r"the way leads to file:///etc/hostname; only https is followed"),
    ],
)  # fmt: skip
def test_anything_else_is_a_sentence_that_says_what_was_found(server, path, network, sentence):
    with pytest.raises(DownloadFailed, match=f"^{sentence}$") as caught:
        fetch(f"{server.root}/{path}")
    assert caught.value.network == network
    assert server.asked == [f"/{path}"]


def test_a_server_that_sends_nothing_or_too_little_is_given_up(server):
    with pytest.raises(
        DownloadFailed, match=r"^(the server sent nothing for|no answer within) 0\.5 s$"
    ):
        fetch(f"{server.root}/silent", timeout_seconds=0.5)
    with pytest.raises(
        DownloadFailed,
        match=r"^the server is too slow: \d+ bytes a second after \d+ bytes; at least 1000",
    ):
        fetch(f"{server.root}/drip", timeout_seconds=0.5)


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(server, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(DownloadFailed, match=r"^its certificate is not trusted \(") as caught:
        fetch(f"{server.root}/good")
    assert caught.value.network
    assert server.asked == []


def test_without_a_network_the_sentence_says_so(no_network):
    with pytest.raises(DownloadFailed, match=r"^no connection \(Connection refused\)$") as caught:
        fetch("https://example.org/net.safetensors")
    assert caught.value.network


def test_a_host_that_does_not_exist_is_said(monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DownloadFailed, match=r"^no network, or no such host \(.+\)$"):
        fetch("https://nowhere.invalid/net.safetensors")


@pytest.mark.parametrize(
    "address", ["http://localhost/net", "file:///etc/hostname", "ftp://localhost/net"]
)
def test_another_protocol_than_https_is_refused_before_anything_is_asked(address):
    with pytest.raises(
        DownloadFailed, match=rf"^the way leads to {address}; only https is followed$"
    ):
        fetch(address)


def test_a_full_disk_is_not_blamed_on_the_network(server):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(28, "No space left on device", "somewhere")

    with pytest.raises(OSError, match="No space left on device"):
        download(f"{server.root}/good", Full(), max_bytes=1 << 16)


# weights.get over the same server


@pytest.fixture
def listed(server, monkeypatch):
    """(path, …) → a name of weights whose canonical address is that path."""

    def make(path, *, sha256=SHA256, licence="apache-2.0", name="planted"):
        weight = catalogue.Weight(name=name, what="planted", file="planted-file.safetensors", sha256=sha256,
                                  licence=licence, n_bytes=len(GOOD), address=f"{server.root}/{path}")  # fmt: skip
        monkeypatch.setitem(catalogue.TABLE, name, weight)
        return name

    return make


def test_weights_from_their_address_are_kept_and_not_asked_for_again(server, listed, tmp_path):
    name, where = listed("good.safetensors"), weights.Places(None, tmp_path / "cache")
    said = []
    path = weights.get(name, where=where, say=said.append)
    assert np.array_equal(load_file(path)["a"], np.arange(300, dtype=np.float32))
    assert f"from {server.root}/good.safetensors, sha256 {SHA256}, licence apache-2.0" in said[0]
    assert weights.get(name, where=where, say=said.append) == path
    assert server.asked == ["/good.safetensors"]
    assert sorted(file.name for file in (tmp_path / "cache").iterdir()) == [
        "planted.json",
        "planted.safetensors",
    ]


@pytest.mark.parametrize("path", ["altered", "short", "huge", "gone", "to-http", "page", "drip"])
def test_nothing_is_left_in_the_cache_when_a_download_fails(
    server, listed, tmp_path, monkeypatch, path
):
    monkeypatch.setattr(downloading, "TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(
        library, "download", lambda *args, **kwargs: download(*args, timeout_seconds=0.5, **kwargs)
    )
    name, where = listed(path), weights.Places(tmp_path / "own", tmp_path / "cache")
    (tmp_path / "own").mkdir()
    with pytest.raises(weights.Missing) as caught:
        weights.get(name, where=where)
    lines = str(caught.value).splitlines()
    assert lines[0] == (
        f"weights 'planted' (planted; file planted-file.safetensors, sha256 {SHA256}, licence apache-2.0) are not here:"
    )
    assert (
        lines[1]
        == f"  --weights-dir {tmp_path / 'own'}: holds no planted-file.safetensors and no planted.safetensors"
    )
    assert lines[2] == f"  cache {tmp_path / 'cache'}: not there"
    assert lines[3].startswith(f"  {server.root}/{path}: ")
    assert "tristream weights add FILE --as planted" in lines[4]
    assert "--preset light" in lines[4]
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_page_in_place_of_the_weights_is_not_taken_even_where_no_sha256_is_known(
    listed, tmp_path
):
    name = listed("page.safetensors", sha256="")
    with pytest.raises(
        weights.Missing, match=r"page\.safetensors: what came is a web page, not weights"
    ):
        weights.get(name, where=weights.Places(None, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_first_download_of_unknown_sha256_is_pinned(server, listed, tmp_path, monkeypatch):
    name, where = listed("good.safetensors", sha256=""), weights.Places(None, tmp_path)
    path = weights.get(name, where=where)
    assert weights.about(path)["original_sha256"] == SHA256
    path.unlink()
    monkeypatch.setattr(
        Handler, "good", Handler.altered
    )  # the publisher, or somebody in his place, has other bytes now
    with pytest.raises(
        weights.Missing, match=rf"its sha256 is [0-9a-f]{{64}} \(\d+ bytes\); it must be {SHA256}"
    ):
        weights.get(name, where=where)
    assert not path.exists()


def test_another_format_of_unknown_sha256_is_not_downloaded(server, listed, tmp_path):
    name = listed("good.pth", sha256="")
    with pytest.raises(
        weights.Missing,
        match=r"no sha256 is known for it, and its format may hold more than tensors",
    ):
        weights.get(name, where=weights.Places(None, tmp_path))
    assert server.asked == []


def test_a_research_licence_is_asked_for_once_before_anything_is_fetched(server, listed, tmp_path):
    name, where = listed("good", licence="research only"), weights.Places(None, tmp_path)
    with pytest.raises(
        weights.Missing, match=r"have the licence 'research only': accept it once.*--accept-licence"
    ):
        weights.get(name, where=where)
    assert server.asked == []
    path = weights.get(name, where=where, accept_licence=True)
    assert weights.about(path)["research_only"] is True
    assert weights.get(name, where=where) == path
    other = listed("good", licence="research only, other terms")
    with pytest.raises(weights.Missing, match=r"'research only, other terms': accept it once"):
        weights.get(other, where=where)


def test_a_corrupt_file_in_the_cache_is_fetched_anew(server, listed, tmp_path):
    name, where = listed("good"), weights.Places(None, tmp_path)
    path = weights.get(name, where=where)
    for flipped in (0, 20, len(GOOD) - 5):
        data = bytearray(path.read_bytes())
        data[flipped] ^= 4
        path.write_bytes(data)
        assert weights.state(name, where=where)[0] == "corrupt"
        assert weights.get(name, where=where) == path
        assert np.array_equal(load_file(path)["a"], np.arange(300, dtype=np.float32))
    assert len(server.asked) == 4
