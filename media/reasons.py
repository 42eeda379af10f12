"""Why a file is not simply `ok`: stable codes, the exception that carries one, and names that are safe to print."""

from __future__ import annotations

import os
from pathlib import Path

from tristream.errors import TristreamError

REJECTED = {
    "not_found": "there is no such file",
    "not_readable": "the file cannot be read",
    "not_a_regular_file": "a directory, pipe or device",
    "outside_root": "lies outside the data root, or is a link that leads out of it",
    "empty_file": "0 bytes",
    "file_too_large": "more bytes than allowed",
    "not_a_video": "neither pictures nor sound in any known container",
    "container_not_allowed": "a container that is not decoded here: playlists, still pictures, stream descriptions",
    "truncated_no_index": "the recording stopped before its index was written",
    "not_streamable": "an MP4 whose index comes after its frames, given as a stream",
    "not_reachable": "a live source that does not answer yet",
    "too_many_streams": "more tracks than allowed",
    "no_decoder": "no decoder for its pictures",
    "codec_not_allowed": "a codec that is not decoded here",
    "no_frames_decoded": "its picture track gives no picture",
    "resolution_too_small": "pictures smaller than a network can look at",
    "resolution_too_large": "pictures with more pixels than allowed",
    "too_long": "plays for longer than allowed",
    "too_many_frames": "more pictures than allowed",
    "no_audio": "sound alone was asked for, and there is none",
    "silent_audio": "audio alone was requested, and the track is digital silence",
    "no_video": "pictures alone were asked for, and there are none",
    "nothing_in_range": "nothing in the seconds that were asked for",
    "out_of_memory": "decoding needs more memory than a decode process may have",
    "decoder_timeout": "decoding took longer than allowed",
    "decoder_crashed": "the decode process died",
    "label_file_invalid": "a list of videos with mistakes in it",
    "unsafe_archive": "an archive that could write where it must not, or that is a bomb, or damaged",
    "unsafe_artifact": "a file that could run code when it is loaded, or no plain weights",
    "artifact_corrupt": "weights whose bytes are not what their header or their checksum says",
}

DEGRADED = {
    "no_audio": "no usable sound",
    "silent_audio": "an audio track of digital silence; treated as missing",
    "channels_cancel": "the mean of the audio channels keeps less than 1 % of their energy (opposite phases)",
    "no_video": "no pictures",
    "no_decoder": "no decoder for its sound",
    "codec_not_allowed": "its sound is in a codec that is not decoded here",
    "decode_errors": "some of it cannot be decoded, or only with damage",
    "fewer_frames_than_declared": "ends before its header says",
    "audio_shorter_than_video": "the sound ends before the pictures",
    "nonfinite_audio": "NaN or infinite samples, taken as silence",
    "timestamp_gap": "a hole in its time",
    "timestamps_not_monotonic": "its time steps back",
    "resolution_changed": "the size of the picture changes; all are scaled to the first size",
    "multiple_video_streams": "several picture tracks; the one with the most pixels is used",
    "frames_thinned": "too many pictures for the memory of a decode process; every second, fourth, … is kept",
    "nothing_in_range": "pictures or sound, but not in the seconds that were asked for",
    "too_short_for_flow": "one picture: no optical flow",
    "audio_too_short": "sound shorter than one example of the audio stream",
    "padded_short_clip": "too short for one flow stack; its last flow is repeated",
}


class Rejected(TristreamError):
    """No stream that was asked for can use this file.

    Attributes:
        reason: a key of `REJECTED`.
        sentence: what the file is, what it must be and what to do, without the file's name.
    """

    def __init__(self, reason: str, path: Path, sentence: str) -> None:
        super().__init__(f"{printable(path)} {sentence}")
        self.reason = reason
        self.path = path
        self.sentence = sentence

    def __reduce__(self) -> tuple[type[Rejected], tuple[str, Path, str]]:
        return Rejected, (
            self.reason,
            self.path,
            self.sentence,
        )  # it may have to travel between processes


def printable(name: Path | str) -> str:
    """The name with control characters, line ends and broken UTF-8 escaped: safe in logs and on screen, one line."""

    def escape(c: str) -> str:
        return (
            c.encode("utf-8", "surrogateescape").decode("latin-1").encode("unicode_escape").decode()
        )

    return "".join(c if c.isprintable() and c != "\\" else escape(c) for c in os.fsdecode(name))
