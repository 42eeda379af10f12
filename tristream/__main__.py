"""`python -m tristream`: the command line."""

from tristream.commands.main import main

if __name__ == "__main__":
    main()
