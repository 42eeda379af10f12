from __future__ import annotations

import pytest

from tristream.media.live.redact import redact


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://admin:hunter2@10.0.0.5:554/stream", "rtsp://***@10.0.0.5:554/stream"),
        ("https://token@host/x.mp4", "https://***@host/x.mp4"),
        ("rtsp://admin:hunter@2@host/x", "rtsp://***@host/x"),
        ("rtsp://admin:hunter/2@host/x", "rtsp://***@host/x"),
        ("rtsp://admin:hunter?2@host/x", "rtsp://***@host/x"),
        ("rtsp://admin:hunter#2@host/x", "rtsp://***@host/x"),
        ("rtsp://admin:hunter2@host/x?mail=a@b", "rtsp://***@host/x?mail=a@b"),
        ("rtsp://host/stream@main", "rtsp://host/stream@main"),
        (
            "http://host/v.mp4?user=a&password=hunter2&t=3",
            "http://host/v.mp4?user=a&password=***&t=3",
        ),
        ("http://host/v.mp4?X-Amz-Signature=hunter2#x", "http://host/v.mp4?X-Amz-Signature=***#x"),
        ("http://host/v.mp4?access_token=hunter2", "http://host/v.mp4?access_token=***"),
        (
            "cannot open rtsp://a:hunter2@h/1 nor rtsp://b:hunter2@h/2",
            "cannot open rtsp://***@h/1 nor rtsp://***@h/2",
        ),
        ("/videos/a@b:c.mp4", "/videos/a@b:c.mp4"),
        ("clip?password=1.mp4", "clip?password=1.mp4"),
        ("", ""),
    ],
)
def test_no_password_is_left_and_everything_else_is(source, shown):
    assert redact(source) == shown
    assert "hunter" not in shown
    assert redact(shown) == shown
