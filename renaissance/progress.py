"""Progress bars with rate and time left, on the terminal; silent where there is no terminal or in other processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    pass

Item = TypeVar("Item")


class Progress(Protocol):
    """Shows that work goes on."""

    def track(self, items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
        """Yield the items, showing how many of `total` are done."""
        ...

    def bar(self, what: str) -> Callable[[int, int], None]:
        """Return a function that shows (done, total) as a bar; it is closed once all is done."""
        ...

    def say(self, line: str) -> None:
        """Show one line above the bars."""
        ...

    def note(self, what: str) -> None:
        """Show a short text beside the newest bar, such as the loss."""
        ...


class Silent:
    """Shows nothing."""

    def track(self, items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
        """Yield the items."""
        yield from items

    def bar(self, what: str) -> Callable[[int, int], None]:
        """Return a function that shows nothing."""
        return lambda done, total: None

    def say(self, line: str) -> None:
        """Show nothing."""

    def note(self, what: str) -> None:
        """Show nothing."""


class Bars:
    """Bars of the `rich` library on standard error, so that standard output stays for results."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}", justify="left"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=self._console,
            disable=not self._console.is_terminal,
        )

    def track(self, items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
        """Yield the items, showing how many of `total` are done, the rate and the time left."""
        show = self.bar(what)
        show(0, total)
        done = 0
        try:
            for item in items:
                yield item
                done += 1
                show(done, total)
        finally:
            if done < total:
                self._bars.stop()

    def bar(self, what: str) -> Callable[[int, int], None]:
        """Return a function that shows (done, total) as a bar; the bars end when all of them are full."""
        task = self._bars.add_task(f"{what:<28}", total=None, start=False, visible=False, rate="", note="")

        def show(done: int, total: int) -> None:
            shown = {other.id: other for other in self._bars.tasks}
            if task not in shown:
                return
            if not shown[task].started:
                self._bars.start()
                self._bars.start_task(task)
            rate = f"{speed:,.1f}/s" if (speed := shown[task].speed) else ""
            self._bars.update(task, completed=done, total=total, visible=True, rate=rate)
            if all(other.finished or not other.started for other in self._bars.tasks):
                self._close()

        return show

    def _close(self) -> None:
        """Leave the full bars on the terminal, and forget them: bars that start again would draw them once more."""
        self._bars.stop()
        for task in self._bars.tasks:
            if task.started:
                self._bars.remove_task(task.id)

    def say(self, line: str) -> None:
        """Show one line above the bars."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def note(self, what: str) -> None:
        """Show a short text beside the newest bar that is not full yet."""
        running = [task.id for task in self._bars.tasks if task.started and not task.finished]
        if running:
            self._bars.update(running[-1], note=what)


@contextmanager
def closing(progress: Progress) -> Iterator[Progress]:
    """Leave no bar running, whatever happens."""
    try:
        yield progress
    finally:
        if isinstance(progress, Bars):
            progress._bars.stop()
