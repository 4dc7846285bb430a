"""Pictures as shapes, which the page draws as SVG: they follow its colors, in dark mode, too, and need no library."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

COLORS = 10
WIDTH, HEIGHT = 520.0, 330.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 14.0, 12.0, 44.0
_INSET = 8.0  # from the sides to where lines begin and end


@dataclass(frozen=True)
class Point:
    """A point of a chart: its position, the ends of its interval (where it has one), and what it says."""

    x: float
    y: float
    low: float
    high: float
    label: str


@dataclass(frozen=True)
class Series:
    """What is drawn of one row.

    Attributes:
        name (str): Its name.
        number (int): Its number among all rows of a report, which gives it the same color in all pictures.
        points (list): Its points.
        stands_out (bool): Whether it is the reference.
        marks (list, optional): The points that stand out of its line. (default: all)
    """

    name: str
    number: int
    points: list[Point]
    stands_out: bool = False
    marks: list[Point] | None = None

    @property
    def color(self) -> int:
        """Number of its color."""
        return self.number % COLORS

    @property
    def dashed(self) -> bool:
        """Whether a row before it has its color."""
        return self.number >= COLORS

    @property
    def marked(self) -> list[Point]:
        """The points that stand out of its line."""
        return self.points if self.marks is None else self.marks

    @property
    def line(self) -> str:
        """The points of its line, as SVG wants them."""
        return _path((point.x, point.y) for point in self.points)

    @property
    def band(self) -> str:
        """The outline of its band; empty where a point has no interval."""
        if any(math.isnan(point.low) for point in self.points):
            return ''
        return _path([*((point.x, point.low) for point in self.points),
                      *((point.x, point.high) for point in reversed(self.points))])


@dataclass(frozen=True)
class Chart:
    """A picture.

    Attributes:
        title (str): What it shows.
        note (str): How to read it.
        x_label, y_label (str): Names of the axes.
        x_ticks, y_ticks (list): Positions and texts.
        series (list): What is drawn.
        height (float): Its height; the width is always the same.
        left (float): Where the area of the data begins.
        dots (bool): Whether it has a row for each series, rather than lines.
    """

    title: str
    note: str
    x_label: str
    y_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    series: list[Series]
    height: float = HEIGHT
    left: float = LEFT
    dots: bool = False

    @property
    def right(self) -> float:
        """Where the area of the data ends."""
        return WIDTH - RIGHT

    @property
    def top(self) -> float:
        """Where it begins from above."""
        return TOP

    @property
    def bottom(self) -> float:
        """Where it ends below."""
        return self.height - BOTTOM


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Returns a function from values to positions.

    Args:
        low, high (float): Values.
        start, end (float): Their positions.
    """
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def across(low: float, high: float) -> Callable[[float], float]:
    """Returns a function from values to positions from left to right, in a picture of lines.

    Args:
        low, high (float): The values between which lines are drawn.
    """
    return scale(low, high, LEFT + _INSET, WIDTH - RIGHT - _INSET)


def upward(low: float, high: float) -> Callable[[float], float]:
    """Returns a function from values to positions from below, in a picture of lines.

    Args:
        low, high (float): The values at the lower and the upper edge.
    """
    return scale(low, high, HEIGHT - BOTTOM, TOP)


def thinned(places: Sequence[float], most: int = 9) -> list[float]:
    """Returns at most so many of the places, every second, third, ... one, the last among them.

    Args:
        places (Sequence[float]): The places.
        most (int): How many. (default: :obj:`9`)
    """
    step = math.ceil(len(places) / most)
    return list(places[(len(places) - 1) % step::step])


def ticks(low: float, high: float, count: int = 6) -> list[tuple[float, str]]:
    """Returns about so many round numbers within a range, with their texts.

    Args:
        low, high (float): The range.
        count (int): How many. (default: :obj:`6`)
    """
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    digits = max(0, -math.floor(math.log10(step)))
    return [(number * step, f'{number * step:.{digits}f}')
            for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _path(points: Iterable[tuple[float, float]]) -> str:
    return ' '.join(f'{x:.1f},{y:.1f}' for x, y in points)
