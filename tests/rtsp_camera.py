"""Network camera: H.264 over RTP inside an RTSP connection (RFC 2326, 6184), on loopback."""

from __future__ import annotations

import base64
import contextlib
import io
import socketserver
import struct
import threading
import time
from fractions import Fraction

import numpy as np

FPS = 25
CLOCK = 90_000  # of RTP time stamps of video


def access_units(seconds: float, *, side: int = 64) -> list[list[bytes]]:
    """H.264 of frames of noise: the NAL units of each frame, without start codes."""
    import av

    rng = np.random.default_rng(0)
    found = []
    with av.open(io.BytesIO(), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = (
            side,
            side,
            "yuv420p",
            Fraction(1, FPS),
        )
        stream.options = {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "g": "10",
            "x264-params": "annexb=1",
        }
        for n in range(round(seconds * FPS)):
            small = rng.integers(0, 255, (8, 8, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(
                np.kron(small, np.ones((side // 8, side // 8, 1), np.uint8))
            )
            frame.pts = n
            found += [[unit.rstrip(b"\0") for unit in bytes(packet).split(b"\0\0\1") if unit.strip(b"\0")]
                      for packet in stream.encode(frame)]  # fmt: skip
    return found


class RtspCamera(socketserver.ThreadingTCPServer):
    """Play frames at the speed of their clock to every client, and fall silent while `silent` is set."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, pictures: list[list[bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.pictures = pictures
        self.silent = threading.Event()
        self.asked: list[str] = []  # methods, in order
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"rtsp://me:secret@127.0.0.1:{self.server_address[1]}/stream"

    def description(self) -> str:
        sets = ",".join(
            base64.b64encode(unit).decode() for unit in self.pictures[0] if unit[0] & 31 in (7, 8)
        )
        return (
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
            f"a=rtpmap:96 H264/{CLOCK}\r\na=fmtp:96 packetization-mode=1; sprop-parameter-sets={sets}\r\n"
            "a=control:track1\r\n"
        )


class _Session(socketserver.StreamRequestHandler):
    server: RtspCamera

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, ValueError):
            while line := self.rfile.readline():
                method = line.split()[0].decode()
                headers = {}
                while (header := self.rfile.readline().strip().decode()) != "":
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                self.server.asked.append(method)
                while self.server.silent.is_set() and method == "OPTIONS":
                    time.sleep(0.05)  # a camera that is gone does not answer
                self._answer(method, headers)
                if method == "PLAY":
                    self._play()
                    return

    def _answer(self, method: str, headers: dict[str, str]) -> None:
        body, more = "", "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        if method == "DESCRIBE":
            body = self.server.description()
            more = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
        elif method == "SETUP":
            more = f"Transport: {headers['transport']}\r\nSession: 1\r\n"
        elif method == "PLAY":
            more = "Session: 1\r\nRange: npt=0-\r\n"
        self.wfile.write(f"RTSP/1.0 200 OK\r\nCSeq: {headers['cseq']}\r\n{more}\r\n{body}".encode())

    def _play(self) -> None:
        sequence, begun = 0, time.monotonic()
        for n, units in enumerate(self.server.pictures):
            while self.server.silent.is_set():
                time.sleep(0.05)
            for k, unit in enumerate(units):
                marker = 128 if k == len(units) - 1 else 0
                header = struct.pack(
                    ">BBHII", 128, marker | 96, sequence % 65536, n * CLOCK // FPS, 1
                )
                self.wfile.write(
                    struct.pack(">cBH", b"$", 0, len(header) + len(unit)) + header + unit
                )
                sequence += 1
            time.sleep(max(0.0, begun + n / FPS - time.monotonic()))
