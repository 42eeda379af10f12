"""`tristream` and `python -m tristream`: the command line."""

import atexit
import os
import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line; every interrupt ends in 130, one during the imports here as well."""
    try:
        from tristream.commands import main as front
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)
    try:
        front.main()
    except SystemExit as end:
        if end.code != INTERRUPTED:
            raise
        # Python itself would die of SIGINT after an interrupt inside `exec`, even a handled one.
        atexit._run_exitfuncs()
        sys.stderr.flush()
        os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
