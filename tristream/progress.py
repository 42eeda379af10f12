"""Progress of long work: silent by default, passed in by whoever wants to show it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Advance(Protocol):
    """Move a bar by `advance` steps and show `note` beside it."""

    def __call__(self, advance: int = 1, note: str = "") -> None: ...


class Progress(Protocol):
    """Receiver of notes, warnings and progress bars."""

    def note(self, sentence: str) -> None:
        """Show one line."""

    def warn(self, sentence: str) -> None:
        """Show one line that asks for attention."""

    def bar(self, title: str, total: int | None) -> contextlib.AbstractContextManager[Advance]:
        """Open a bar of `total` steps; the block moves it. None: the total is unknown."""


class Silent:
    """Progress that shows nothing."""

    def note(self, sentence: str) -> None:
        pass

    def warn(self, sentence: str) -> None:
        pass

    @contextlib.contextmanager
    def bar(self, title: str, total: int | None) -> Iterator[Advance]:
        yield lambda advance=1, note="": None


class Notebook:
    """Progress with bars of `tqdm.auto`: widgets in a notebook, text elsewhere."""

    def note(self, sentence: str) -> None:
        from tqdm.auto import tqdm

        tqdm.write(sentence)

    def warn(self, sentence: str) -> None:
        from tqdm.auto import tqdm

        tqdm.write(f"warning: {sentence}")

    @contextlib.contextmanager
    def bar(self, title: str, total: int | None) -> Iterator[Advance]:
        from tqdm.auto import tqdm

        with tqdm(desc=title, total=total) as bar:

            def move(advance: int = 1, note: str = "") -> None:
                if note:
                    bar.set_postfix_str(note, refresh=False)
                bar.update(advance)

            yield move


SILENT = Silent()
