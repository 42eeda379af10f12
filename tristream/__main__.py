"""`tristream` and `python -m tristream`: the command line."""

import os


def main() -> None:
    """Run the command line; an interrupt during its own import ends in 130 like every other."""
    try:
        from tristream.commands import main as front
    except KeyboardInterrupt:
        os._exit(130)
    front.main()


if __name__ == "__main__":
    main()
