"""Entry point of a checkout: `python orchestrate.py COMMAND …` is `tristream COMMAND …`."""

from tristream.commands.main import COMMANDS, main

__all__ = ["COMMANDS", "main"]

if __name__ == "__main__":
    main()
