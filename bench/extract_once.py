"""One extraction in its own process, for benches of a whole process: python -m tristream.bench.extract_once."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from tristream.errors import MachineError


def main(text: str) -> None:
    """Print one JSON line: seconds until the first result, until the last, and inside the extraction.

    The argument: `videos`, `cache`, `streams` (names), `n_samples`, `seed`, `light` (small networks).
    """
    begun = time.perf_counter()
    import torch

    from tristream.bench import paper_streams
    from tristream.bench.inputs import Subject
    from tristream.media.machine import n_cores
    from tristream.store.cache import Cache
    from tristream.streams.compute import choose
    from tristream.streams.extraction import extract

    wanted = json.loads(text)
    paths = [Path(path) for path in wanted["videos"]]
    subject = Subject(paths, "", Path(wanted["cache"]), seed=wanted["seed"])
    light = {"encoder": "small", "input_size": (96, 128)}
    trained = [
        paper_streams.stream(
            name, subject, n_samples=wanted["n_samples"], **(light if wanted.get("light") else {})
        )
        for name in wanted["streams"]
    ]
    cache = Cache(Path(wanted["cache"]))
    backend = choose("auto", device=torch.device("cpu"), cache=cache)
    first, started = 0.0, time.perf_counter()
    with paper_streams.decoding() as pool:
        videos = paper_streams.videos(paths, trained, pool, cache)
        for result in extract(
            videos, trained, cache=cache, backend=backend, n_threads=n_cores() + 1
        ):
            first = first or time.perf_counter() - begun
            if result.rejected:
                raise MachineError(result.rejected)
    over = time.perf_counter()
    print(json.dumps({"first": first, "all": over - begun, "extraction": over - started}))


if __name__ == "__main__":
    main(sys.argv[1])
