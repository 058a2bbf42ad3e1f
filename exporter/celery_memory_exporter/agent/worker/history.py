"""A process's past in at most ``SIZE`` points, spread over its whole life: when there are too many,
every second one goes."""

from __future__ import annotations

SIZE = 24


class History:
    """Points are tuples as ``report.HISTORY`` names them; the first figure is the time and
    rises."""

    def __init__(self) -> None:
        self.points: list[list[float]] = []
        self._pause = 0.0

    def add(self, point: list[float]) -> None:
        """Keeps the point, or lets it stand for the last one while that is too young for another
        beside it."""
        if len(self.points) >= 2 and self.points[-1][0] - self.points[-2][0] < self._pause:
            self.points[-1] = point
            return
        self.points.append(point)
        if len(self.points) > SIZE:
            self._pause = 2 * max(self._pause, (self.points[-1][0] - self.points[0][0]) / SIZE)
            self.points = [*self.points[:-1:2], self.points[-1]]
