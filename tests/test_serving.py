"""Services on loopback: the bits of the run, masks when one is down, refusals, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tristream as ts
from tristream import streams
from tristream.errors import UsageError
from tristream.serving.config import ServiceConfig, token_from_environment

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from tristream.serving.spool import Spool  # noqa: E402
from tristream.serving.supervisor import free_ports  # noqa: E402
from tristream.store import embeddings  # noqa: E402

HOME = Path(__file__).parents[1]
SLOW_START_SECONDS = 180
needs_all = pytest.mark.skipif(
    not {"audio", "spatial", "temporal"} <= set(streams.names()), reason="needs the three streams"
)
pytestmark = [needs_all, pytest.mark.slow]


class Service:
    """One service process."""

    def __init__(self, work: Path, name: str, port: int, *options: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._command = [
            sys.executable, str(HOME / "orchestrate.py"), "serve", name, "--run", "runs/default",
            "--port", str(port), "--workers", "1", *options,
        ]  # fmt: skip
        self._work = work
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            self._command, cwd=self._work, env=environment, stderr=subprocess.DEVNULL
        )

    def wait(self) -> None:
        deadline = time.monotonic() + SLOW_START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/ready", timeout=5).status_code == 200:
                    return
            assert self.process.poll() is None, "the service has ended"
            time.sleep(0.2)
        pytest.fail("the service does not become ready")

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        if how != signal.SIGSTOP:
            self.process.wait(20)

    def children(self) -> list[int]:
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True
        )
        return [int(pid) for pid in listed.stdout.split()]


@pytest.fixture(scope="module")
def work(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(trained_run, tmp_path_factory.mktemp("served") / "work"))


@pytest.fixture(scope="module")
def services(work: Path, tmp_path_factory: pytest.TempPathFactory):
    names = streams.names()
    ports = free_ports(len(names) + 1)
    spool = tmp_path_factory.mktemp("spool") / "audio"
    running = {
        name: Service(work, name, port, *(["--spool", str(spool)] if name == "audio" else []))
        for name, port in zip(names, ports, strict=False)
    }
    words = [word for n in names for word in ("--stream", f"{n}={running[n].url}")]
    running["fusion"] = Service(work, "fusion", ports[-1], *words, "--max-mb", "4")
    try:
        for service in running.values():
            service.wait()
        running["audio"].spool = spool
        yield running
    finally:
        for service in running.values():
            if service.process.poll() is None:
                service.process.send_signal(signal.SIGCONT)
                service.kill()


def _post(service: Service, address: str, file: Path, **options):
    return httpx.post(service.url + address, content=file.read_bytes(), timeout=120, **options)


def _rows(work: Path, name: str) -> dict[str, np.ndarray | None]:
    [space] = (work / "runs" / "default" / "embeddings" / name).iterdir()
    table = embeddings.read(space)
    values = [v if there else None for v, there in zip(table.embedding, table.present, strict=True)]
    return dict(zip(table.content_id, values, strict=True))


def _same(given: list[float] | None, row: np.ndarray | None) -> bool:
    if given is None or row is None:
        return given is row
    return np.float32(given).tobytes() == row.tobytes()


def test_every_stream_returns_the_bits_of_the_run_also_to_eight_clients(
    services, work, two_classes
):
    files = sorted(two_classes.rglob("[0-3].mp4"))
    for name in streams.names():
        rows = _rows(work, name)
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda f, s=services[name]: _post(s, "/v1/embed", f), files)
            for answer in answers:
                body = answer.json()
                assert answer.status_code == 200, body
                assert _same(body["embedding"], rows[body["content_id"]]), name
    silent = _post(services["audio"], "/v1/embed", two_classes / "spin" / "0.mp4").json()
    assert (silent["embedding"], silent["reason"]) == (None, "no_audio")
    broken = _post(services["spatial"], "/v1/embed", two_classes / "spin" / "broken.mp4")
    assert broken.status_code == 422
    assert broken.json()["detail"].endswith("not_a_video")


def test_a_form_and_arrow_carry_the_same_embedding(services, two_classes):
    import pyarrow as pa

    file = two_classes / "bounce" / "1.mp4"
    raw = _post(services["audio"], "/v1/embed", file).json()
    form = httpx.post(
        services["audio"].url + "/v1/embed",
        files={"file": ("../../etc/passwd", file.read_bytes())},
        timeout=120,
    ).json()
    assert form == raw
    arrow = _post(
        services["audio"],
        "/v1/embed",
        file,
        headers={"accept": "application/vnd.apache.arrow.stream"},
    )
    table = pa.ipc.open_stream(arrow.content).read_all()
    assert table["embedding"].to_pylist() == [raw["embedding"]]
    assert table["content_id"].to_pylist() == [raw["content_id"]]


def test_the_fusion_and_the_client_answer_as_the_library_does(services, work, two_classes):
    run = ts.Run(work / "runs" / "default", cache=work / "cache")
    files = [two_classes / "spin" / "2.mp4", two_classes / "bounce" / "0.mp4"]
    with ts.Client(services["fusion"].url) as client:
        found = client.predict(files)
        for given, own in zip(found, run.predict(files), strict=True):
            assert (given.label, given.top, given.streams) == (own.label, own.top, own.streams)
            assert (given.masked, given.calibrated_for) == (own.masked, own.calibrated_for)
        for given, own in zip(client.detect(files), run.detect(files), strict=True):
            assert given == own
        bad = client.predict([two_classes / "spin" / "broken.mp4"])
        assert list(bad) == []
        assert list(bad.failures.values()) == ["not_a_video"]


def test_embeddings_with_their_spaces_replace_the_file(services, two_classes):
    fusion, file = services["fusion"], two_classes / "spin" / "2.mp4"
    whole = _post(fusion, "/v1/predict", file).json()
    given = {}
    for name in streams.names():
        body = _post(services[name], "/v1/embed", file).json()
        given[name] = {"space_id": body["space_id"], "embedding": body["embedding"]}
    again = httpx.post(fusion.url + "/v1/predict", json={"embeddings": given}, timeout=60)
    assert again.json()["top"] == whole["top"]
    given["audio"]["space_id"] = "0" * 16
    other = httpx.post(fusion.url + "/v1/predict", json={"embeddings": given}, timeout=60)
    assert other.status_code == 409
    assert "0" * 16 in other.json()["detail"]
    assert whole["spaces"]["audio"] in other.json()["detail"]


def test_a_service_of_another_space_refuses_with_both_names(services, two_classes):
    answer = _post(
        services["audio"],
        "/v1/embed",
        two_classes / "spin" / "2.mp4",
        headers={"x-space-id": "f" * 16},
    )
    facts = httpx.get(services["audio"].url + "/v1/stream").json()
    assert answer.status_code == 409
    assert "f" * 16 in answer.json()["detail"]
    assert facts["space_id"] in answer.json()["detail"]


def test_job_events_arrive_stream_by_stream_and_resume(services, two_classes):
    fusion = services["fusion"]
    job = _post(fusion, "/v1/jobs", two_classes / "spin" / "2.mp4")
    assert job.status_code == 202
    address = f"{fusion.url}/v1/jobs/{job.json()['id']}"
    text = httpx.get(address + "/events", timeout=120).text
    kinds = [line[7:] for line in text.splitlines() if line.startswith("event: ")]
    assert kinds == ["stream"] * len(streams.names()) + ["result"]
    after = httpx.get(address + "/events", headers={"last-event-id": str(len(kinds) - 1)}).text
    assert after.count("event: ") == 1
    assert "event: result" in after
    assert httpx.get(address).json()["state"] == "done"
    assert httpx.get(f"{fusion.url}/v1/jobs/unknown").status_code == 404


def test_what_must_not_pass_is_refused(services, two_classes):
    fusion, file = services["fusion"], two_classes / "spin" / "2.mp4"
    too_large = httpx.post(fusion.url + "/v1/predict", content=b"x" * ((4 << 20) + 1), timeout=60)
    assert too_large.status_code == 413

    def chunks():
        for _ in range(80):
            yield b"x" * 65536

    assert httpx.post(fusion.url + "/v1/predict", content=chunks()).status_code == 413
    assert httpx.post(fusion.url + "/v1/predict", content=b"").status_code == 400
    assert _post(fusion, "/v1/predict", file, headers={"host": "evil.example"}).status_code == 421
    origin = {"origin": "http://evil.example"}
    assert _post(fusion, "/v1/predict", file, headers=origin).status_code == 403
    wrong = {"x-deadline-seconds": "soon"}
    assert _post(fusion, "/v1/predict", file, headers=wrong).status_code == 400
    assert _post(fusion, "/v1/predict?require=smell", file).status_code == 422
    cors = httpx.options(fusion.url + "/v1/predict", headers={"origin": fusion.url})
    assert "access-control-allow-origin" not in cors.headers


def test_health_answers_while_twenty_slow_senders_wait(services):
    import socket

    port = int(services["audio"].url.rpartition(":")[2])
    senders = []
    try:
        for _ in range(20):
            slow = socket.create_connection(("127.0.0.1", port))
            slow.sendall(
                b"POST /v1/embed HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000\r\n\r\nx"
            )
            senders.append(slow)
        times = []
        for _ in range(20):
            started = time.monotonic()
            assert httpx.get(services["audio"].url + "/health", timeout=5).status_code == 200
            times.append(time.monotonic() - started)
        assert np.median(times) < 0.1 or min(times) < 0.02  # a busy machine
    finally:
        for slow in senders:
            slow.close()
    deadline = time.monotonic() + 20
    while list(services["audio"].spool.glob("upload-*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert list(services["audio"].spool.glob("upload-*")) == []


def test_a_service_that_is_killed_is_a_mask_until_it_is_back(services, two_classes):
    fusion, file, audio = services["fusion"], two_classes / "spin" / "2.mp4", services["audio"]
    whole = _post(fusion, "/v1/predict", file).json()
    assert (whole["masked"], whole["complete"]) == ({}, True)
    left = audio.children()
    (audio.spool / "upload-left").write_bytes(b"x")
    audio.kill()
    down = _post(fusion, "/v1/predict", file)
    assert down.status_code == 200
    assert down.json()["masked"] == {"audio": "service_down"}
    assert down.json()["complete"] is False
    assert down.json()["calibrated_for"] == "spatial+temporal"
    required = _post(fusion, "/v1/predict?require=audio", file)
    assert required.status_code == 503
    deadline = time.monotonic() + 15
    while any(Path(f"/proc/{pid}").exists() for pid in left) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [pid for pid in left if Path(f"/proc/{pid}").exists()] == []
    _post(fusion, "/v1/predict", file)  # the third failure in a row: left out from now on
    started = time.monotonic()
    assert _post(fusion, "/v1/predict", file).json()["masked"] == {"audio": "service_down"}
    assert time.monotonic() - started < 10
    audio.start()
    audio.wait()
    assert not (audio.spool / "upload-left").exists()
    assert _post(fusion, "/v1/predict", file).json()["top"] == whole["top"]


def test_a_stopped_service_costs_the_deadline_and_no_more(services, two_classes):
    fusion, file = services["fusion"], two_classes / "spin" / "3.mp4"
    services["spatial"].kill(signal.SIGSTOP)
    try:
        started = time.monotonic()
        answer = _post(fusion, "/v1/predict", file, headers={"x-deadline-seconds": "3"})
        assert time.monotonic() - started < 3 + 4  # 1 s, and a busy machine
        assert answer.json()["masked"]["spatial"] == "deadline"
    finally:
        services["spatial"].process.send_signal(signal.SIGCONT)
    services["spatial"].wait()


def test_a_switch_under_load_loses_no_request(services, two_classes):
    fusion, file = services["fusion"], two_classes / "spin" / "3.mp4"
    expected = _post(fusion, "/v1/predict", file).json()["top"]
    addresses = {name: services[name].url for name in streams.names()}
    stop, answers = threading.Event(), []

    def load() -> None:
        while not stop.is_set():
            answers.append(_post(fusion, "/v1/predict", file))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            done = httpx.post(fusion.url + "/v1/switch", json={"streams": addresses}, timeout=60)
            assert done.status_code == 200
            time.sleep(0.3)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(answers) >= 4
    assert {answer.status_code for answer in answers} == {200}
    assert all(answer.json()["top"] == expected for answer in answers)
    swapped = {"audio": services["spatial"].url}
    refused = httpx.post(fusion.url + "/v1/switch", json={"streams": swapped}, timeout=60)
    assert refused.status_code == 409


def test_the_contract_holds_for_made_up_requests(services):
    """schemathesis draws requests from the OpenAPI description; no answer is a failure of the service."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings

    schema = schemathesis.openapi.from_url(services["fusion"].url + "/openapi.json")
    for operation in schema.get_all_operations():
        case_of = operation.ok().as_strategy()

        @given(case=case_of)
        @settings(
            max_examples=8,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def calls(case):
            response = case.call(timeout=30)
            assert response.status_code < 500 or response.status_code == 503, response.text
            if response.status_code >= 400 and "json" in response.headers.get("content-type", ""):
                assert "Traceback" not in response.text

        calls()


def test_metrics_and_the_open_inference_protocol(services):
    text = httpx.get(services["fusion"].url + "/metrics").text
    assert 'tristream_requests_total{endpoint="/v1/predict",status="200"}' in text
    assert "tristream_masks_total" in text
    assert httpx.get(services["audio"].url + "/v2/health/ready").status_code == 200
    assert httpx.get(services["audio"].url + "/v2/models/audio").json()["name"] == "audio"
    assert httpx.get(services["audio"].url + "/v2/models/other").status_code == 404


def test_the_page_works_without_a_script(services, two_classes):
    fusion = services["fusion"]
    page = httpx.get(fusion.url + "/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    judged = httpx.post(
        fusion.url + "/",
        files={"file": ("x.mp4", (two_classes / "spin" / "2.mp4").read_bytes())},
        timeout=120,
    ).text
    label = _post(fusion, "/v1/predict", two_classes / "spin" / "2.mp4").json()["label"]
    assert f'<h2 id="label">{label}</h2>' in judged
    bad = httpx.post(fusion.url + "/", files={"file": ("x.mp4", b"<html>")}, timeout=60)
    assert bad.status_code == 422
    assert "cannot be used" in bad.text


def test_a_dropped_file_shows_its_label_in_a_browser_of_360_px(services, two_classes, tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver")
    driver_path = shutil.which("chromedriver")
    browser_path = shutil.which("chromium")
    if not driver_path or not browser_path:
        pytest.skip("needs chromium and chromedriver")
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = browser_path
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                 "--disable-component-update", "--disable-sync", "--no-first-run", "--window-size=360,740",
                 f"--user-data-dir={tmp_path}"):  # fmt: skip
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=driver_path)
    )
    try:
        fusion = services["fusion"]
        driver.get(fusion.url + "/")
        file = two_classes / "spin" / "2.mp4"
        driver.find_element(By.ID, "file").send_keys(str(file))
        driver.find_element(By.TAG_NAME, "button").click()
        label = _post(fusion, "/v1/predict", file).json()["label"]
        WebDriverWait(driver, 60).until(lambda d: d.find_element(By.ID, "label").text == label)
        words = [item.text for item in driver.find_elements(By.CSS_SELECTOR, "[data-stream]")]
        assert len(words) == len(streams.names())
        assert all("done after" in word for word in words), words
        width = driver.execute_script("return document.documentElement.scrollWidth")
        assert width <= driver.execute_script("return window.innerWidth")
        requests = [
            json.loads(entry["message"])["message"]["params"].get("request", {}).get("url", "")
            for entry in driver.get_log("performance")
        ]
        foreign = [url for url in requests if url and not url.startswith((fusion.url, "data:"))]
        assert [url for url in foreign if url.startswith("http")] == []
    finally:
        driver.quit()


def test_an_event_that_comes_while_another_is_sent_is_not_lost():
    """A slow reader: each event is told while the one before is on its way."""
    import asyncio

    from tristream.serving.jobs import Job

    async def read() -> list[str]:
        job, seen = Job(), []
        job.tell("stream", {"n": 0})
        async for text in job.events(0):
            seen.append(text.splitlines()[1])
            if len(seen) < 5:
                job.tell("stream", {"n": len(seen)})
            elif len(seen) == 5:
                job.state = "done"
                job.tell("result", {})
        return seen

    assert asyncio.run(read()) == ["event: stream"] * 5 + ["event: result"]


def test_a_bind_that_others_can_reach_needs_a_token(monkeypatch, tmp_path):
    with pytest.raises(UsageError, match=r"0\.0\.0\.0 can be reached from other machines"):
        ServiceConfig(host="0.0.0.0")
    with pytest.raises(UsageError, match="the token has 5 characters"):
        ServiceConfig(token="short")
    (tmp_path / "token").write_text("sesame-open-sesame\n")
    monkeypatch.setenv("TRISTREAM_TOKEN_FILE", str(tmp_path / "token"))
    assert token_from_environment() == "sesame-open-sesame"
    monkeypatch.setenv("TRISTREAM_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="none cannot be read"):
        token_from_environment()


def test_a_token_is_asked_for_everywhere_but_at_the_probe(monkeypatch):
    from fastapi.testclient import TestClient

    from tristream.serving.app import make_app
    from tristream.serving.telemetry import Telemetry

    @contextlib.asynccontextmanager
    async def nothing(app):
        yield

    app = make_app(
        "t",
        ServiceConfig(token="sesame-open-sesame"),
        Telemetry(),
        model="audio",
        ready=lambda: "",
        lifespan=nothing,
    )
    client = TestClient(app, base_url="http://127.0.0.1")
    assert client.get("/health").status_code == 200
    assert client.get("/metrics").status_code == 401
    wrong = {"authorization": "Bearer sesame-open-sesamo"}
    assert client.get("/metrics", headers=wrong).status_code == 401
    right = {"authorization": "Bearer sesame-open-sesame"}
    assert client.get("/metrics", headers=right).status_code == 200


def test_a_spool_is_private_and_of_one_process(tmp_path):
    spool = Spool(tmp_path / "spool", max_bytes=10, total_bytes=10)
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    with pytest.raises(UsageError, match="spool of another process"):
        Spool(tmp_path / "spool", max_bytes=10, total_bytes=10)
    spool.close()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match=r"letter\.txt, which is no upload"):
        Spool(tmp_path / "mine", max_bytes=10, total_bytes=10)
