"""The samples of one scrape, by family, as prometheus_client takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from celery_memory_exporter.common.report import Histogram
from celery_memory_exporter.metrics.catalogue import BY_NAME, FAMILIES, HIGHEST, NOT_TOGETHER
from celery_memory_exporter.metrics.exposition import number
from celery_memory_exporter.metrics.families.family import Family


def empty_metric(family: Family) -> Metric:
    """The family without samples. prometheus_client names counters and infos without their
    suffix."""
    name = family.name.removesuffix("_total") if family.kind == "counter" else family.name
    return Metric(
        name.removesuffix("_info") if family.kind == "info" else name, family.help, family.kind
    )


class Samples:
    """Samples by family, checked against the catalogue."""

    def __init__(self) -> None:
        #: The value of the label ``broker`` from now on; ``None`` leaves the label out.
        self.broker: str | None = None
        #: Whether samples with equal labels are merged from now on, as those of a group are: added
        #: up, or the highest kept for the families in ``HIGHEST``.
        self.together = False
        self._samples: dict[str, list[Sample]] = {}
        self._places: dict[tuple[str, tuple[str, ...]], tuple[list[Sample], int]] = {}

    def add(self, name: str, values: tuple[str, ...], value: float | None) -> None:
        """``values`` are the labels' in the catalogue's order. A value that is ``None`` is unknown
        and makes no sample."""
        if value is not None:
            self._put(name, name, self._labels(name, values), float(value))

    def add_summary(self, name: str, values: tuple[str, ...], count: int, total: float) -> None:
        labels = self._labels(name, values)
        self._put(name, f"{name}_count", labels, float(count))
        self._put(name, f"{name}_sum", labels, float(total))

    def add_histogram(
        self,
        name: str,
        values: tuple[str, ...],
        bounds: Sequence[float],
        histogram: Histogram | None,
    ) -> None:
        """Buckets, and their count and sum unless a bound is negative: then the sum could fall, and
        OpenMetrics forbids both."""
        if histogram is None:
            return
        labels = self._labels(name, values)
        bucket = f"{name}_bucket"
        count = 0
        for bound, each in zip([*bounds, float("inf")], histogram.counts, strict=True):
            count += each
            self._put(name, bucket, {**labels, "le": number(bound)}, float(count))
        if bounds[0] >= 0:
            self._put(name, f"{name}_count", labels, float(count))
            self._put(name, f"{name}_sum", labels, float(histogram.sum))

    def metrics(self) -> Iterator[Metric]:
        """The families in the catalogue's order; those without samples are left out."""
        for family in FAMILIES:
            if family.name in self._samples:
                metric = empty_metric(family)
                metric.samples = self._samples[family.name]
                yield metric

    def _put(self, family: str, name: str, labels: dict[str, str], value: float) -> None:
        if self.together and family in NOT_TOGETHER:
            return
        samples = self._samples.setdefault(family, [])
        if self.together:
            place = self._places.setdefault((name, tuple(labels.values())), (samples, len(samples)))
            if place[1] < len(samples):
                before = samples[place[1]].value
                value = max(before, value) if family in HIGHEST else before + value
                samples[place[1]] = Sample(name, labels, value)
                return
        samples.append(Sample(name, labels, value))

    def _labels(self, family: str, values: tuple[str, ...]) -> dict[str, str]:
        labels = dict(zip(BY_NAME[family].labels, values, strict=True))
        return labels if self.broker is None else {"broker": self.broker, **labels}
