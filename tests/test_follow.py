from __future__ import annotations

import contextlib
import http.server
import io
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from tests.rtsp_camera import RtspCamera, access_units
from tristream.media.live.arriving import BoxWatch
from tristream.media.live.follow import Follower, Notice, Piece
from tristream.media.live.source import parse_source

FPS = 25


def transport_stream(seconds: float, *, seed: int = 0, side: int = 64) -> bytes:
    """Return an MPEG transport stream of changing noise, which may be cut and joined anywhere."""
    import av

    rng, buffer = np.random.default_rng(seed), io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        stream.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "10"}
        for n in range(round(seconds * FPS)):
            small = rng.integers(0, 255, (8, 8, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(
                np.kron(small, np.ones((side // 8, side // 8, 1), np.uint8))
            )
            frame.pts = n
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def bare_h264(n_frames: int, *, side: int = 64) -> list[bytes]:
    """Access units of an H.264 stream without a container: one frame each."""
    import av

    rng = np.random.default_rng(0)
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width = encoder.height = side
    encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, FPS)
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "10"}
    units = []
    for n in range(n_frames):
        frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (side, side, 3), np.uint8))
        frame.pts, frame.time_base = n, Fraction(1, FPS)
        units += [bytes(packet) for packet in encoder.encode(frame)]
    return units + [bytes(packet) for packet in encoder.encode(None)]


def jpegs(n: int, *, side: int = 64) -> list[bytes]:
    import cv2

    rng = np.random.default_rng(0)
    return [
        cv2.imencode(".jpg", rng.integers(0, 255, (side, side, 3), np.uint8))[1].tobytes()
        for _ in range(n)
    ]


def collect(follower: Follower, *, until: str, seconds: float = 40.0) -> list[Piece | Notice]:
    """Return everything up to the first notice of a kind."""
    found: list[Piece | Notice] = []
    deadline = time.monotonic() + seconds
    for thing in follower:
        found.append(thing)
        if isinstance(thing, Notice) and thing.kind == until:
            return found
        assert time.monotonic() < deadline, [n for n in found if isinstance(n, Notice)]
    return found


def kinds(found: list[Piece | Notice]) -> list[str]:
    return [thing.kind for thing in found if isinstance(thing, Notice)]


def frames(found: list[Piece | Notice]) -> int:
    return sum(len(thing.video.start_seconds) for thing in found if isinstance(thing, Piece))


def test_what_is_followed_and_what_never_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.ts").write_bytes(b"x")
    assert parse_source("-").kind == "pipe"
    assert parse_source(str(tmp_path / "pipe")).kind == "pipe"
    assert parse_source(str(tmp_path / "a.ts")).kind == "file"
    assert parse_source("/dev/null").kind == "camera"
    camera = parse_source("rtsp://me:secret@10.0.0.7/a", ["rtsp"])
    assert (camera.kind, camera.shown) == ("network", "rtsp://***@10.0.0.7/a")
    assert set(camera.protocols) == {"rtsp", "rtp", "tcp", "udp"}
    with pytest.raises(
        ValueError, match=r"rtsp://\*\*\*@h/a needs the network; allow it with --protocols rtsp"
    ):
        parse_source("rtsp://me:secret@h/a")
    for text in (
        "concat:a.ts|b.ts",
        "file:///etc/passwd",
        "subfile,,start,0,end,1,,:a",
        "hls+http://h/a",
        "http:a",
    ):
        with pytest.raises(ValueError, match=r"is never opened|does not exist"):
            parse_source(text, ["http"])
    with pytest.raises(
        ValueError, match=r"protocol 'file' is never opened; available: tcp, udp, rtp, rtsp"
    ):
        parse_source("http://h/a", ["file"])
    with pytest.raises(ValueError, match=r"/no/such does not exist; follow a file"):
        parse_source("/no/such")
    with pytest.raises(ValueError, match="is a directory or a socket"):
        parse_source(str(tmp_path))


@pytest.mark.slow
def test_a_growing_file_is_waited_for_and_its_silence_is_an_alarm(tmp_path: Path) -> None:
    data, path = transport_stream(8), tmp_path / "grows.ts"
    path.write_bytes(data[: len(data) // 2])
    with Follower(parse_source(str(path)), chunk_seconds=0.5, silence_seconds=1.5) as follower:
        before = collect(follower, until="no_frames")
        assert kinds(before) == ["opened", "no_frames"]
        assert frames(before) >= 2 * FPS
        with path.open("ab") as file:
            file.write(data[len(data) // 2 :])
        after = collect(follower, until="no_frames")
        assert kinds(after) == ["recovered", "no_frames"]
        assert frames(before) + frames(after) >= 7 * FPS
        starts = [
            t
            for thing in before + after
            if isinstance(thing, Piece)
            for t in thing.video.start_seconds
        ]
        np.testing.assert_allclose(
            np.diff(starts), 1 / FPS, atol=1e-3
        )  # one clock, nothing twice, nothing lost


@pytest.mark.slow
def test_a_pipe_whose_writer_ends_is_opened_again_on_the_same_clock(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write(data: bytes) -> threading.Thread:
        thread = threading.Thread(target=lambda: path.open("wb").write(data), daemon=True)
        thread.start()
        return thread

    write(transport_stream(3))
    with Follower(parse_source(str(path)), silence_seconds=10, back_off=(0.2, 1.0)) as follower:
        before = collect(follower, until="reconnecting")
        assert kinds(before) == ["opened", "lost", "reconnecting"]
        assert frames(before) == 3 * FPS
        write(transport_stream(2, seed=1))
        after = collect(follower, until="reconnecting")
    assert kinds(after) == ["recovered", "lost", "reconnecting"]
    assert frames(after) == 2 * FPS
    pieces = [thing for thing in before + after if isinstance(thing, Piece)]
    assert [piece.is_new for piece in pieces].count(True) == 2
    last, first = pieces[2], next(piece for piece in pieces[1:] if piece.is_new)
    assert first.offset_seconds + first.video.start_seconds[0] >= last.video.stop_seconds[-1]


def test_standard_input_ends_the_watch(tmp_path: Path) -> None:
    script = """
from tristream.media.live.arriving import BoxWatch
from tristream.media.live.follow import *; from tristream.media.live.source import parse_source
with Follower(parse_source('-')) as f:
    things = list(f)
n = sum(len(t.video.start_seconds) for t in things if isinstance(t, Piece))
print([t.kind for t in things if isinstance(t, Notice)], n)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], input=transport_stream(3), capture_output=True, check=False,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.stdout.decode().strip() == "['opened', 'ended'] 75", done.stderr.decode()[-1000:]


class Camera(http.server.BaseHTTPRequestHandler):
    """Camera that sends a stream at the speed of its clock, and falls silent while `silent` is set."""

    silent = threading.Event()
    data = b""
    answer: tuple[int, dict[str, str], bytes] | None = None

    def do_GET(self) -> None:
        if self.answer is not None:
            code, headers, body = self.answer
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            return
        if self.silent.is_set():
            time.sleep(1.0)
            return
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        step = len(self.data) // 80 // 188 * 188
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for start in range(0, len(self.data), step):
                while self.silent.is_set():
                    time.sleep(0.05)
                self.wfile.write(self.data[start : start + step])
                self.wfile.flush()
                time.sleep(0.05)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Camera.silent.clear()
    Camera.data, Camera.answer = transport_stream(8), None
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://me:secret@127.0.0.1:{made.server_port}/live.ts"
    Camera.silent.clear()
    made.shutdown()
    made.server_close()


@pytest.mark.slow
def test_a_camera_that_falls_silent_is_an_alarm_and_is_opened_again(server: str) -> None:
    with Follower(
        parse_source(server, ["http"]), chunk_seconds=0.5, silence_seconds=1.5, back_off=(0.3, 1.0)
    ) as follower:
        found: list[Piece | Notice] = []
        for thing in follower:
            found.append(thing)
            if frames(found) >= FPS and not Camera.silent.is_set():
                Camera.silent.set()
                threading.Timer(4.0, Camera.silent.clear).start()
            if isinstance(thing, Notice) and thing.kind == "recovered":
                break
        after = next(thing for thing in follower if isinstance(thing, Piece))
    said = kinds(found)
    assert said[:4] == ["opened", "no_frames", "lost", "reconnecting"]
    assert said[-1] == "recovered"
    assert after.is_new
    assert not [n for n in found if isinstance(n, Notice) and "secret" in n.words]
    alarm = next(n for n in found if isinstance(n, Notice) and n.kind == "no_frames")
    assert "ALARM http://***@127.0.0.1" in alarm.words


@pytest.mark.slow
def test_an_rtsp_camera_that_falls_silent_comes_back() -> None:
    with RtspCamera(access_units(30)) as camera:
        source = parse_source(camera.address, ["rtsp"])
        found: list[Piece | Notice] = []
        with Follower(
            source, chunk_seconds=0.5, silence_seconds=1.5, back_off=(0.3, 1.0)
        ) as follower:
            for thing in follower:
                found.append(thing)
                if (
                    frames(found) >= FPS
                    and not camera.silent.is_set()
                    and "no_frames" not in kinds(found)
                ):
                    camera.silent.set()
                if "no_frames" in kinds(found):
                    camera.silent.clear()
                if isinstance(thing, Notice) and thing.kind == "recovered":
                    break
            after = next(thing for thing in follower if isinstance(thing, Piece))
        camera.shutdown()
    assert kinds(found)[:2] == ["opened", "no_frames"]
    assert after.is_new == ("reconnecting" in kinds(found))
    assert camera.asked[:4] == ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"]
    assert not [n for n in found if isinstance(n, Notice) and "secret" in n.words]


@pytest.mark.slow
def test_frames_that_wait_too_long_are_dropped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(transport_stream(12))
    with Follower(
        parse_source(str(path)), chunk_seconds=0.5, silence_seconds=2.0, max_lag_seconds=2.0
    ) as follower:
        things = iter(follower)
        found = [next(things), next(things)]
        time.sleep(3.0)  # whoever looks is slow
        found += collect(follower, until="no_frames")
        dropped = follower.n_dropped_frames
    assert dropped > 0
    assert dropped == sum(n.value for n in found if isinstance(n, Notice) and n.kind == "dropped")
    assert frames(found) + dropped >= 11 * FPS  # each is seen or counted
    after = found[[getattr(t, "kind", "") for t in found].index("dropped") + 1 :]
    assert next(
        thing for thing in after if isinstance(thing, Piece)
    ).is_new  # windows must not reach across


@pytest.mark.parametrize(
    "answer",
    [
        (
            200,
            {"Content-Type": "application/vnd.apple.mpegurl"},
            b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        ),
        (302, {"Location": "file:///etc/passwd"}, b""),
        (200, {}, b"ffconcat version 1.0\nfile /etc/passwd\n"),
        (404, {}, b"none"),
    ],
)
def test_no_playlist_no_list_and_no_file_behind_an_address(server: str, answer: tuple) -> None:
    Camera.answer = answer
    with (
        Follower(parse_source(server, ["http"]), silence_seconds=5) as follower,
        pytest.raises(
            ValueError,
            match=r"http://\*\*\*@127\.0\.0\.1:\d+/live\.ts cannot be opened|holds nothing",
        ),
    ):
        list(follower)


@pytest.mark.slow
def test_a_source_that_sends_itself_round_in_circles_is_given_up(server: str) -> None:
    asked = []
    answer = (302, {"Location": server}, b"")

    class Counting(tuple):
        def __iter__(self):
            asked.append(1)
            return super().__iter__()

    Camera.answer = Counting(answer)
    with (
        Follower(parse_source(server, ["http"]), silence_seconds=5) as follower,
        pytest.raises(ValueError, match="cannot be opened"),
    ):
        list(follower)
    assert len(asked) <= 5


def test_its_process_may_connect_but_not_listen_write_or_start_programs(tmp_path: Path) -> None:
    script = f"""
import os, socket
from tristream.media.sandbox.isolation import isolate
isolate(memory_bytes=4 << 30, parent=os.getppid(), network=True)
s = socket.socket(); s.bind(("127.0.0.1", 0))
def refused(what):
    try: what()
    except OSError: return True
    return False
calls = s.listen, lambda: open({str(tmp_path / "x")!r}, "w"), lambda: os.execv("/bin/true", ["true"])
print(*map(refused, calls))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.split() == ["True", "True", "True"], done.stderr[-500:]


def test_a_closed_follower_leaves_no_process(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(transport_stream(2))
    with Follower(parse_source(str(path)), silence_seconds=30) as follower:
        found = iter(follower)
        assert isinstance(next(found), Notice)
        child = follower._child
        assert child is not None
    assert child.process.poll() is not None


class MotionJpeg(http.server.BaseHTTPRequestHandler):
    """Camera that sends `multipart/x-mixed-replace`, ten frames a second."""

    frames: ClassVar[list[bytes]] = []

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for data in self.frames:
                head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
                self.wfile.write(head % len(data) + data + b"\r\n")
                time.sleep(0.1)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(handler: type, port: int = 0) -> Iterator[int]:
    made = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    try:
        yield made.server_port
    finally:
        made.shutdown()
        made.server_close()


def starts_of(found: list[Piece | Notice]) -> np.ndarray:
    return np.concatenate([t.video.start_seconds for t in found if isinstance(t, Piece)])


def test_motion_jpeg_over_http_is_followed_on_the_wall_clock() -> None:
    MotionJpeg.frames = jpegs(30)
    with serving(MotionJpeg) as port:
        source = parse_source(f"http://127.0.0.1:{port}/", ["http"])
        with Follower(source, chunk_seconds=0.5, silence_seconds=5) as follower:
            found = collect(follower, until="lost")
    assert kinds(found)[0] == "opened"
    starts = starts_of(found)
    assert len(starts) == 30
    assert starts[0] == 0
    assert np.median(np.diff(starts)) == pytest.approx(0.1, abs=0.03)
    assert starts[-1] == pytest.approx(2.9, abs=0.5)


def test_bare_h264_on_a_pipe_is_followed_on_the_wall_clock(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    units = bare_h264(60)

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            for unit in units:
                pipe.write(unit)
                time.sleep(0.05)

    threading.Thread(target=write, daemon=True).start()
    with Follower(parse_source(str(path)), chunk_seconds=0.5, silence_seconds=10) as follower:
        found = collect(follower, until="lost")
    starts = starts_of(found)
    assert len(starts) == 60
    assert np.median(np.diff(starts)) == pytest.approx(0.05, abs=0.02)
    assert starts[-1] == pytest.approx(3.0, abs=0.7)


def test_a_bare_h264_file_is_refused_with_the_line_that_gives_it_time_stamps(
    tmp_path: Path,
) -> None:
    path = tmp_path / "camera.h264"
    path.write_bytes(b"".join(bare_h264(30)) * 5)
    with (
        Follower(parse_source(str(path)), silence_seconds=3) as follower,
        pytest.raises(ValueError, match=r"is bare h264 video.*ffmpeg -r 25 -i \S+camera\.h264"),
    ):
        list(follower)


def test_an_unknown_format_is_refused_with_the_line_that_converts_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = b"YUV4MPEG2 W64 H64 F25:1 Ip A0:0 C420\n" + (b"FRAME\n" + bytes(64 * 96)) * 300

    def write() -> None:
        with contextlib.suppress(BrokenPipeError):
            pipe.write_bytes(data)

    threading.Thread(target=write, daemon=True).start()
    with (
        Follower(parse_source(str(pipe)), silence_seconds=5) as follower,
        pytest.raises(ValueError, match=r"ffmpeg -i \S+/pipe -f mpegts - \|"),
    ):
        list(follower)


@pytest.mark.parametrize("faststart", [False, True])
def test_an_mp4_on_a_pipe_needs_its_index_first(tmp_path: Path, faststart: bool) -> None:
    import av

    pipe, path = tmp_path / "pipe", tmp_path / "a.mp4"
    os.mkfifo(pipe)
    source = av.open(io.BytesIO(transport_stream(2)))
    with (
        source,
        av.open(str(path), "w", options={"movflags": "+faststart"} if faststart else {}) as out,
    ):
        track = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = track
                out.mux(packet)

    def write() -> None:
        with contextlib.suppress(BrokenPipeError):
            pipe.write_bytes(path.read_bytes())

    threading.Thread(target=write, daemon=True).start()
    with Follower(parse_source(str(pipe)), silence_seconds=5) as follower:
        if faststart:
            assert frames(collect(follower, until="lost")) == 2 * FPS
            return
        with pytest.raises(ValueError, match=r"index \(moov\) comes after .*\+faststart"):
            list(follower)


def test_boxes_are_watched_however_the_bytes_are_divided() -> None:
    def box(kind: bytes, n: int, *, wide: bool = False) -> bytes:
        size = (n + (16 if wide else 8)).to_bytes(8 if wide else 4, "big")
        return (b"\0\0\0\1" + kind + size if wide else size + kind) + bytes(n)

    begin = box(b"ftyp", 24) + box(b"free", 7, wide=True)
    for data, late in (
        (begin + box(b"mdat", 100), True),
        (begin + box(b"mdat", 100, wide=True), True),
        (begin + box(b"moov", 100) + box(b"mdat", 100), False),
        (b"G" * 188 + box(b"mdat", 100), False),
    ):
        for step in (1, 5, 8, 1000):
            watch = BoxWatch()
            for i in range(0, len(data), step):
                watch.add(data[i : i + step])
            assert watch.index_is_late == late


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def test_a_camera_that_is_not_up_yet_is_tried_again_until_it_is() -> None:
    port = free_port()
    source = parse_source(f"http://127.0.0.1:{port}/", ["http"])
    MotionJpeg.frames = jpegs(20)
    with Follower(source, chunk_seconds=0.5, silence_seconds=5, back_off=(0.2, 0.4)) as follower:
        before = collect(follower, until="reconnecting")
        assert kinds(before) == ["lost", "reconnecting"]
        assert "Connection refused" in next(n.words for n in before if isinstance(n, Notice))
        with serving(MotionJpeg, port):
            found = collect(follower, until="opened")
            assert isinstance(next(iter(follower)), Piece)
    assert kinds(found)[-1] == "opened"


def test_a_camera_that_is_not_up_is_an_error_if_it_shall_not_be_tried_again() -> None:
    source = parse_source(f"http://127.0.0.1:{free_port()}/", ["http"])
    with (
        Follower(source, silence_seconds=5, keep_trying=False) as follower,
        pytest.raises(ValueError, match="cannot be opened: Connection refused"),
    ):
        list(follower)


def test_a_host_name_that_is_not_known_yet_is_tried_again() -> None:
    source = parse_source("http://no-such-camera.invalid/", ["http"])
    with Follower(source, silence_seconds=5, back_off=(0.1, 0.2)) as follower:
        assert kinds(collect(follower, until="reconnecting")) == ["lost", "reconnecting"]
