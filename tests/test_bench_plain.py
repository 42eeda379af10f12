"""The plain features name what they can see and hear, and nothing else; every fold is tested once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tristream.bench import baseline_features
from tristream.dataset.listing import ListedVideo
from tristream.media.encode import write_video

N_FRAMES, SIDE = 20, 64


def clip(path, *, hertz: float, step: int, seed: int) -> None:
    """A tone beside a texture of which the right half alone moves, up or down."""
    generator = np.random.default_rng(seed)
    texture = np.kron(generator.integers(40, 215, (16, 16, 1)), np.ones((4, 4, 3))).astype(np.uint8)
    frames = np.stack([texture] * N_FRAMES)
    for t in range(N_FRAMES):
        frames[t, :, SIDE // 2 :] = np.roll(texture, step * t, axis=0)[:, SIDE // 2 :]
    t = np.arange(16_000) / 16_000
    samples = 0.3 * np.sin(2 * np.pi * hertz * t) + 0.02 * generator.normal(size=len(t))
    write_video(path, frames, fps=25, samples=samples.astype(np.float32))


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> list[ListedVideo]:
    """Four classes: a tone of two pitches, beside motion of two directions."""
    folder, found = tmp_path_factory.mktemp("plain"), []
    for i in range(24):
        high, down = i % 2, i // 2 % 2
        path = folder / f"{i}.mp4"
        clip(path, hertz=(400, 2000)[high], step=(-2, 2)[down], seed=i)
        label = f"{('low', 'high')[high]} {('up', 'down')[down]}"
        split = "test" if i >= 16 else "train"
        found.append(
            ListedVideo(video_id=path.name, path=path, label=label, split=split, group=path.name)
        )
    return found


def accuracy(table) -> dict[str, float]:
    return {row[0]: float(row[1]) for row in table.rows}


def test_sound_tells_pitches_and_flow_of_the_moving_part_tells_directions(rows):
    found = accuracy(baseline_features.run(rows, crop=(0.0, 0.5, 1.0, 1.0), yamnet=None))
    assert found["log-mel, mean and deviation"] <= 75
    pitches = [dataclasses.replace(row, label=row.label.split()[0]) for row in rows]
    directions = [dataclasses.replace(row, label=row.label.split()[1]) for row in rows]
    assert (
        accuracy(baseline_features.run(pitches, crop=None, yamnet=None))[
            "log-mel, mean and deviation"
        ]
        == 100
    )
    moving, still = (
        accuracy(baseline_features.run(directions, crop=crop, yamnet=None))[
            "flow of the crop, slices"
        ]
        for crop in ((0.0, 0.5, 1.0, 1.0), (0.0, 0.0, 1.0, 0.4))
    )
    assert moving == 100
    assert still < 100


def test_every_fold_is_the_test_split_once(rows):
    folded = [dataclasses.replace(row, split="", fold=str(i % 3)) for i, row in enumerate(rows)]
    table = baseline_features.run(folded, crop=None, yamnet=None)
    assert table.notes[0].startswith("24 videos, 24 tested, 4 classes")


def test_a_file_without_what_is_compared_is_named(rows, tmp_path):
    path = tmp_path / "silent.mp4"
    write_video(path, np.zeros((5, 32, 32, 3), np.uint8), fps=25)
    silent = dataclasses.replace(rows[0], path=path)
    with pytest.raises(
        ValueError, match=r"silent\.mp4 has no_audio; every file must have what is compared"
    ):
        baseline_features.run([silent, *rows[1:]], crop=(0.0, 0.0, 1.0, 1.0), yamnet=None)
