#!/usr/bin/env python3
"""Adapter of fault_harness.py: `index` and `embed` in this process, then one npz of the result.

embed_adapter.py RUN IN CACHE OUT     RUN: a run with trained streams; nothing is trained or written there.

Exit code and stderr are those of the commands. The npz holds one array for each video that was not rejected, its
embeddings of all streams one after the other (NaN where it has none), names in sorted order.
"""

import sys


def main(run, videos, cache, out):
    """The exit code of the last command that ran."""
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[2]))
    work = Path(f"{out}.run")
    code = tristream("index", "--data", videos, "--run", str(work))
    if code != 0:
        return code
    if not (work / "streams").exists():
        (work / "streams").symlink_to(Path(run, "streams").absolute())
    code = tristream("embed", "--run", str(work), "--cache", cache, "--device", "cpu")
    if code in (0, 3):
        collect(work, Path(out))
    return code


def tristream(*arguments):
    """Exit code of one command."""
    import orchestrate

    sys.argv = ["tristream", *arguments]
    try:
        orchestrate.main()
    except SystemExit as end:
        return end.code or 0
    return 0


def collect(work, out):
    """Embeddings of the run as one npz."""
    import numpy as np

    from tristream.store import embeddings
    from tristream.store.atomic import replace_file

    tables = [embeddings.read(space) for space in sorted(work.glob("embeddings/*/*"))]
    rows = [dict(zip(table.video_id, table.embedding)) for table in tables]
    arrays = {name: np.concatenate([row[name] for row in rows]) for name in sorted(rows[0])}
    with replace_file(out) as file:
        np.savez(file, **arrays)


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        sys.stderr.write(f"{error.filename or 'writing'}: {error.strerror}\n")
        sys.exit(4)
