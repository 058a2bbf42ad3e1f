"""What deep audits found out about one task type in one process. Names and numbers only, and not
more than so many of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from celery_memory_exporter.agent.audit.suspicion import Suspicion
from celery_memory_exporter.agent.stats.profile import WARM_AGE, Column, ProfileRow

#: Deep audits that found something: then a type is explained, and looked at ever more seldom.
ENOUGH = 4
#: Or this many, whatever they found.
PATIENCE = 60
#: Most lines are the application's own; where a library allocates, some more frames show who called
#: it.
FEW_FRAMES, FRAMES = 1, 12
#: How much slower a run may get by tracing; what it really was, once a run of the type has been
#: traced.
SLOWDOWN = 10.0
MAX_NAMES = 20


@dataclass(slots=True)
class Dossier:
    """What deep audits of one task type in one process found."""

    suspicion: Suspicion = field(default_factory=Suspicion)
    #: Runs of the type when the suspicion was last looked into, and at the last deep audit.
    checked: int = 0
    last: int = -1
    audits: int = 0
    #: Those with tracemalloc's answer, and those with a watch over lines.
    traced: int = 0
    watched: int = 0
    #: Deep audits after containers had been looked for in all modules.
    searched: int = 0
    #: Deep audits that found bytes or a figure that rose.
    found: int = 0
    traced_bytes: float = 0.0
    #: (figure, site) -> amount; the figure is "bytes" from tracemalloc, else what the line watch
    #: reads.
    sites: dict[tuple[str, str], float] = field(default_factory=dict)
    #: Container path -> kind and items that audited runs added.
    holders: dict[str, tuple[str, float]] = field(default_factory=dict)
    #: Reference path from a module to a survivor -> how often it was found.
    paths: dict[str, int] = field(default_factory=dict)
    paths_tried: int = 0
    #: At the first run of each age (its place among ``AGES``): sizes of the containers that were
    #: followed then.
    sizes: dict[int, dict[str, int]] = field(default_factory=dict)
    #: Runs allocate more than can be listed.
    too_large: bool = False
    slowdown: float = SLOWDOWN
    #: Frames that tracemalloc keeps of each allocation.
    frames: int = FEW_FRAMES

    @property
    def explained(self) -> bool:
        """Whether there is little to gain from more: enough was found, and its holder, unless it
        has been looked for everywhere."""
        return self.found >= ENOUGH and (
            bool(self.holders) or self.searched >= ENOUGH or self.audits >= PATIENCE
        )

    @property
    def beyond_tracemalloc(self) -> bool:
        """Whether lines have to be watched: what rises is not Python's memory, or tracemalloc saw
        none of it."""
        if self.too_large:
            return True
        blind = self.audits >= 2 and self.traced_bytes < self.suspicion.bytes / 2
        # Both kinds may be there: they take turns.
        return (self.suspicion.kernel or blind) and (
            self.audits % 2 == 1 or not self.suspicion.bytes
        )

    def fill(self, path: str, items: int, row: ProfileRow) -> list[tuple[float, float]]:
        """How a container filled up that now has so many items, age by age past start-up: items
        gained, and runs of the type meanwhile; zeros where its size is not known. ``row``: the
        type's profile."""
        filled: list[tuple[float, float]] = []
        newest = max(self.sizes, default=-1)
        for age in range(WARM_AGE, newest + 1):
            runs = row[age, Column.RUNS]
            before, after = self.sizes.get(age, {}).get(path), self.sizes.get(age + 1, {}).get(path)
            if age == newest:
                # The age was entered by a run that was over when sizes were read.
                after, runs = items, runs - 1
            if before is None or after is None:
                filled.append((0.0, 0.0))
            else:
                filled.append((float(after - before), runs))
        return filled

    def add_site(self, figure: str, site: str, amount: float) -> None:
        if (figure, site) in self.sites or len(self.sites) < MAX_NAMES:
            self.sites[figure, site] = self.sites.get((figure, site), 0.0) + amount

    def add_holder(self, path: str, kind: str, items: float) -> None:
        if path in self.holders or len(self.holders) < MAX_NAMES:
            self.holders[path] = (kind, self.holders.get(path, (kind, 0.0))[1] + items)

    def add_path(self, path: str) -> None:
        self.paths[path] = self.paths.get(path, 0) + 1
