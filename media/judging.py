"""Verdict on a decoding that has ended: reasons for what is missing, and rejection where nothing is usable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tristream.media.pictures import Pictures
from tristream.media.reasons import Rejected
from tristream.media.sound import Sound

if TYPE_CHECKING:
    from av.container import InputContainer

SHORT_SECONDS = 0.5  # audio that ends so much before the last frame begins is too short, …
SHORT_SHARE = 0.25  # … or by this share of a shorter video
MISSING_SHARE = 0.05  # of the declared length that may be missing
# Containers that declare a duration and count no frames.
_DECLARE_DURATION = ("matroska", "flv")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """State of a decoding when its last packet has been read.

    Attributes:
        path: for messages.
        container: the open file.
        pictures: the decoded video track; None if not requested or missing.
        sound: the decoded audio track; None if not requested or missing.
        reasons: degradations are added here.
        n_errors: packets that could not be decoded, and read errors.
        read_to_the_end: False if reading stopped because everything wanted was there.
        early_seconds: by which the latest track was moved ahead (media/clocks.py).
    """

    path: Path
    container: InputContainer
    pictures: Pictures | None
    sound: Sound | None
    reasons: set[str]
    n_errors: int
    read_to_the_end: bool
    early_seconds: float = 0.0

    def judge(self, *, pictures: bool, sound: bool) -> None:
        """Add a reason for each thing that is missing of what was requested.

        Raises:
            Rejected: nothing is usable.
        """
        if pictures:
            self.judge_pictures()
        if sound:
            self.judge_sound()
        shown = self.pictures.last_start_seconds if self.pictures else None
        sounded = self.sound.stop_seconds if self.sound else None
        if shown is None and (sounded is None or "silent_audio" in self.reasons):
            raise self._nothing_usable(pictures=pictures, sound=sound)
        self._compare_lengths(shown, sounded)

    def judge_pictures(self) -> None:
        """Add a reason if there are no frames.

        Raises:
            Rejected: there is a video track, and none of its frames can be decoded.
        """
        if self.pictures is None:
            self.reasons.add("no_video")
        elif not self.pictures.n_decoded and not self.pictures.begins_later:
            declared = self.pictures.track.frames
            raise Rejected(
                "no_frames_decoded",
                self.path,
                f"has a video track without a frame ({declared} frames declared, {self.n_errors} decode errors)"
                "; copy it again, or request its audio alone",
            )
        elif self.pictures.last_start_seconds is None:
            self.reasons.add("nothing_in_range")

    def judge_sound(self) -> None:
        """Add a reason if there is no audio, or none that can be heard."""
        if self.sound is None or not (self.sound.played_seconds or self.sound.begins_later):
            self.reasons.add("no_audio")
        elif self.sound.stop_seconds is None:
            self.reasons.add("nothing_in_range")
        else:
            if self.sound.is_cancelled:
                self.reasons.add("channels_cancel")
            if self.sound.is_silent:
                self.reasons.add("silent_audio")

    def _nothing_usable(self, *, pictures: bool, sound: bool) -> Rejected:
        if "silent_audio" in self.reasons:
            cause = (
                "its channels cancel each other"
                if "channels_cancel" in self.reasons
                else "every sample is the same"
            )
            sentence = f"has an audio track that is silent: {cause}"
            return Rejected("silent_audio", self.path, sentence)
        if "nothing_in_range" in self.reasons:
            return Rejected("nothing_in_range", self.path, "has nothing in the requested seconds")
        if pictures and sound:
            return Rejected(
                "not_a_video", self.path, "has neither frames nor audio that can be decoded"
            )
        if pictures:
            return Rejected("no_video", self.path, "has no video track")
        return Rejected("no_audio", self.path, "has no audio that can be decoded")

    def _compare_lengths(self, shown: float | None, sounded: float | None) -> None:
        if (
            shown is not None
            and sounded is not None
            and "silent_audio" not in self.reasons
            and shown - sounded > min(SHORT_SECONDS, SHORT_SHARE * shown)
        ):
            self.reasons.add("audio_shorter_than_video")
        if self.read_to_the_end and self._is_shorter_than_declared(
            max(shown or 0.0, sounded or 0.0) + self.early_seconds
        ):
            self.reasons.add("fewer_frames_than_declared")

    def _is_shorter_than_declared(self, reached_seconds: float) -> bool:
        """True if packets are missing where the container counts them, else if its declared duration is not reached."""
        if self.pictures is not None and self.pictures.track.frames:
            declared = self.pictures.track.frames
            missing = declared - self.pictures.n_packets
            return missing > max(1.0, MISSING_SHARE * declared)
        tracks = [part for part in (self.pictures, self.sound) if part is not None]
        n_media = len(
            [track for track in self.container.streams if track.type in ("video", "audio")]
        )
        if len(tracks) < n_media or not self.container.duration:
            return False
        if not self.container.format.name.startswith(_DECLARE_DURATION):
            return False
        declared_seconds = self.container.duration / 1e6
        return declared_seconds - reached_seconds > max(
            SHORT_SECONDS, MISSING_SHARE * declared_seconds
        )
