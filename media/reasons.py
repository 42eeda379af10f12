"""Stable reason codes of degraded and rejected files, the exception of the latter, and printable names."""

from __future__ import annotations

import os
from pathlib import Path

from tristream.errors import TristreamError

REJECTED = {
    "not_found": "no such file",
    "not_readable": "the file cannot be read",
    "not_a_regular_file": "a directory, pipe or device",
    "outside_root": "outside the data root, or a link that leads out of it",
    "empty_file": "0 bytes",
    "file_too_large": "more bytes than allowed",
    "not_a_video": "neither video nor audio in a known container",
    "container_not_allowed": "a container that is not decoded here: playlists, still images, stream descriptions",
    "truncated_no_index": "the recording stopped before its index was written",
    "not_streamable": "an MP4 whose index comes after its frames, given as a stream",
    "not_reachable": "a live source that does not answer yet",
    "too_many_streams": "more tracks than allowed",
    "no_decoder": "no decoder for its video",
    "codec_not_allowed": "a codec that is not decoded here",
    "no_frames_decoded": "no frame of its video track can be decoded",
    "resolution_too_small": "frames too small for networks and optical flow",
    "resolution_too_large": "frames with more pixels than allowed",
    "too_long": "longer than allowed",
    "too_many_frames": "more frames than allowed",
    "no_audio": "audio alone was requested, and there is none",
    "silent_audio": "audio alone was requested, and the track is digital silence",
    "no_video": "video alone was requested, and there is none",
    "nothing_in_range": "nothing in the requested seconds",
    "out_of_memory": "decoding needs more memory than a decode process may use",
    "decoder_timeout": "decoding took longer than allowed",
    "decoder_crashed": "the decode process crashed",
    "label_file_invalid": "a list of videos with errors",
    "unsafe_archive": "an archive that is damaged, a decompression bomb, or would write outside its folder",
    "unsafe_artifact": "a file that could run code when loaded, or is not plain weights",
    "artifact_corrupt": "weights that do not match their header or their checksum",
}

DEGRADED = {
    "no_audio": "no usable audio",
    "silent_audio": "an audio track of digital silence; treated as missing",
    "channels_cancel": "the mean of the audio channels keeps less than 1 % of their energy (opposite phases)",
    "no_video": "no video track",
    "no_decoder": "no decoder for its audio",
    "codec_not_allowed": "its audio is in a codec that is not decoded here",
    "decode_errors": "parts cannot be decoded, or only with damage",
    "fewer_frames_than_declared": "ends before its declared length",
    "audio_shorter_than_video": "the audio ends before the video",
    "nonfinite_audio": "NaN or infinite samples, replaced by silence",
    "timestamp_gap": "a gap in its time stamps",
    "timestamps_not_monotonic": "its time stamps step back",
    "resolution_changed": "the frame size changes; all frames are scaled to the first size",
    "multiple_video_streams": "several video tracks; the one with the most pixels is used",
    "frames_thinned": "too many frames for the memory of a decode process; every second, fourth, … is kept",
    "nothing_in_range": "video or audio, but not in the requested seconds",
    "too_short_for_flow": "one frame: no optical flow",
    "audio_too_short": "audio shorter than one example of the audio stream",
    "padded_short_clip": "too short for one flow stack; its last flow is repeated",
}


class Rejected(TristreamError):
    """No requested stream can use this file.

    Attributes:
        reason: a key of `REJECTED`.
        sentence: what the file is, what it must be and what to do, without its name.
    """

    def __init__(self, reason: str, path: Path, sentence: str) -> None:
        super().__init__(f"{printable(path)} {sentence}")
        self.reason = reason
        self.path = path
        self.sentence = sentence

    def __reduce__(self) -> tuple[type[Rejected], tuple[str, Path, str]]:
        # pickled between processes
        return Rejected, (self.reason, self.path, self.sentence)


def printable(name: Path | str) -> str:
    """Return the name on one line, with control characters, line ends and broken UTF-8 escaped."""

    def escape(c: str) -> str:
        return (
            c.encode("utf-8", "surrogateescape").decode("latin-1").encode("unicode_escape").decode()
        )

    return "".join(c if c.isprintable() and c != "\\" else escape(c) for c in os.fsdecode(name))
