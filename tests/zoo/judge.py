"""From what the exporter answered while a case ran to its verdict; from the verdicts to the figures
and the table. Pure.

A wrong accusation is any task but the case's own among the suspects at any poll; for an innocent,
any suspect at all. A leak may be "not known yet" for as long as it takes, and at no poll be told as
none.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.zoo.case import Case

Answer = dict[str, Any]

#: Below any of these the zoo fails.
LIMITS = {"recall": 1.0, "precision": 1.0, "attribution": 0.95, "never cleared": 1.0}
#: What is not known yet.
UNSETTLED = "unsettled"


@dataclass
class Named:
    """The first poll at which something was told."""

    runs: int
    seconds: float


@dataclass
class Verdict:
    case: Case
    named_first: Named | None = None
    named_at_end: bool = False
    #: Of the case's own suspects, as last seen.
    growth_classes: list[str] = field(default_factory=list)
    explanation: str = ""
    #: Wrong accusations, "task (growth class)" -> the suspect as it was first seen.
    wrong_ever: dict[str, Answer] = field(default_factory=dict)
    wrong_at_end: set[str] = field(default_factory=set)
    #: Growth class -> reason that the case's task was cleared with, at the end.
    cleared: dict[str, str] = field(default_factory=dict)
    #: When each of the above was first said, and a leak first told as none (the growth class).
    wrong_first: dict[str, Named] = field(default_factory=dict)
    cleared_first: dict[str, Named] = field(default_factory=dict)
    baseline_fired: bool = False
    baseline_task: str | None = None
    runs: int = 0
    seconds: float = 0.0
    #: Not about the verdict: the agent's own errors, a worker that ended.
    trouble: str = ""
    answer: Answer = field(default_factory=dict)

    @property
    def class_right(self) -> bool | None:
        """``None`` where no class is asked for, or where there is nothing that could have one."""
        if not self.case.classes or (self.case.leaks and not self.named_at_end):
            return None
        found = set(self.growth_classes) if self.case.leaks else set(self.cleared)
        return bool(found & self.case.classes)

    @property
    def explained(self) -> bool | None:
        asked = self.named_at_end and (self.case.explained_by or self.case.lines)
        return bool(self.explanation) if asked else None

    @property
    def words(self) -> str:
        if self.trouble:
            return "TROUBLE"
        wrong = ["WRONG"] if self.wrong_ever else []
        wrong += ["CLEARED"] if self.cleared_first else []
        if not self.case.leaks:
            return ", ".join(wrong) or "clear"
        own = "named" if self.named_at_end else "DROPPED" if self.named_first else "MISSED"
        return ", ".join([own, *wrong])

    def said_wrong(self) -> dict[str, Named]:
        """What should not have been told, and when it first was."""
        accused = {f"accused {name}": when for name, when in self.wrong_first.items()}
        return accused | {f"cleared as {name}": when for name, when in self.cleared_first.items()}

    @property
    def wrongly_accused(self) -> set[str | None]:
        """The tasks, however many growth classes each was accused of; ``None`` for the process."""
        return {suspect["task"] for suspect in self.wrong_ever.values()}

    def see(self, answer: Answer, runs: int, seconds: float) -> None:
        """One answer of the exporter, after so many completed runs of the case."""
        self.answer = answer
        suspects = answer.get("suspects", [])
        own = [each for each in suspects if self.case.leaks and each["task"] == self.case.task]
        self.named_at_end = bool(own)
        if own:
            self.named_first = self.named_first or Named(runs, seconds)
            self.growth_classes = sorted({each["growth_class"] for each in own})
            self.explanation = explanation(self.case, own)
        wrong = {label(each): each for each in suspects if each not in own and self._wrong(each)}
        self.wrong_at_end = set(wrong)
        self.wrong_ever = wrong | self.wrong_ever
        now = Named(runs, seconds)
        self.wrong_first = dict.fromkeys(wrong, now) | self.wrong_first
        rows = [each for each in answer.get("cleared", []) if each["task"] == self.case.task]
        self.cleared = {each["growth_class"]: each.get("reason", "") for each in rows}
        if self.case.leaks:
            told = [each for each in self.cleared if each != UNSETTLED]
            self.cleared_first = dict.fromkeys(told, now) | self.cleared_first

    def _wrong(self, suspect: Answer) -> bool:
        """That a leaking task's process is named beside it is no accusation of anybody."""
        return suspect["task"] is not None or not self.case.leaks


def label(suspect: Answer) -> str:
    return (
        f"{short(suspect['task']) if suspect['task'] else 'the process'} "
        f"({suspect['growth_class']})"
    )


def short(task: str) -> str:
    return task.rpartition(".")[2]


def explanation(case: Case, suspects: Iterable[Answer]) -> str:
    """What of the answer points at the cause: holder, type or line; empty when nothing does."""
    found = dict.fromkeys(
        text for suspect in suspects for text in parts(suspect) if explains(case, text)
    )
    return ", ".join(text.replace("tests.zoo.", "") for text in found)


def parts(suspect: Answer) -> Iterator[str]:
    for kind, key in (("holders", "path"), ("object_types", "type"), ("sites", "site")):
        for row in suspect.get(kind) or ():
            yield str(row[key])


def explains(case: Case, text: str) -> bool:
    site = re.search(r"zoo/\w+\.py:\d+", text)
    return any(each in text for each in case.explained_by) or (
        site is not None and site[0] in case.lines
    )


# --- figures ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    part: int
    whole: int

    @property
    def value(self) -> float | None:
        return self.part / self.whole if self.whole else None

    def __str__(self) -> str:
        return "–" if self.value is None else f"{self.value:.2f} ({self.part}/{self.whole})"


def share(answers: Iterable[bool | None]) -> Share:
    known = [each for each in answers if each is not None]
    return Share(sum(known), len(known))


def figures(verdicts: Sequence[Verdict]) -> dict[str, Share]:
    """Recall looks at the end; precision and attribution at all that was ever said."""
    leaks = [each for each in verdicts if each.case.leaks]
    right = sum(each.named_first is not None for each in leaks)
    wrong = sum(len(each.wrongly_accused) for each in verdicts)
    accused = [each for each in leaks if each.named_first or each.wrong_ever]
    return {
        "recall": share(each.named_at_end for each in leaks),
        "precision": Share(right, right + wrong),
        "attribution": share(each.named_at_end and not each.wrong_ever for each in accused),
        "explanation": share(each.explained for each in verdicts),
        "class right": share(each.class_right for each in verdicts),
        "never cleared": share(not each.cleared_first for each in leaks),
    }


def baseline_figures(verdicts: Sequence[Verdict]) -> dict[str, Share]:
    """Of the trend of resident memory; a process named where the process grows is right."""
    fired = [each for each in verdicts if each.baseline_fired]
    leaks = [each for each in fired if each.case.leaks]
    return {
        "recall": share(each.baseline_fired for each in verdicts if each.case.leaks),
        "precision": share(each.case.leaks for each in fired),
        "attribution": share(
            each.case.task is None or each.baseline_task == each.case.task for each in leaks
        ),
        "explanation": Share(0, len([each for each in leaks if each.case.explained_by])),
        "class right": Share(0, len(leaks)),
        "never cleared": Share(0, 0),
    }


def passed(found: dict[str, Share]) -> bool:
    """Figures that have no cases are no failure: a run of one innocent has no recall."""
    return all(
        (value := found[name].value) is None or value >= limit for name, limit in LIMITS.items()
    )


# --- table --------------------------------------------------------------------------------------

HEADINGS = (
    "case",
    "expected",
    "verdict",
    "growth class",
    "named",
    "explained by",
    "runs",
    "seconds",
    "RSS trend",
)


def row(verdict: Verdict) -> tuple[str, ...]:
    case, first = verdict.case, verdict.named_first
    expected = (
        "/".join(sorted(case.classes))
        if case.leaks
        else "innocent" + "".join(f", {each}" for each in case.classes)
    )
    found = ",".join(
        verdict.growth_classes if case.leaks else [f"cleared: {each}" for each in verdict.cleared]
    )
    named = [short(case.task) if case.task else "the process"] if verdict.named_at_end else []
    named += [f"NOT {each}" for each in sorted(verdict.wrong_ever)]
    trend = "–"
    if verdict.baseline_fired:
        trend = f"fires, {short(verdict.baseline_task)}" if verdict.baseline_task else "fires"
    return (
        case.name,
        expected,
        verdict.words,
        (found or "none") + " WRONG" if verdict.class_right is False else found,
        ", ".join(named),
        (verdict.explanation or ("NOTHING" if verdict.explained is False else ""))[:60],
        str(first.runs) if first else "",
        f"{first.seconds:.0f}" if first else "",
        trend,
    )


def table(verdicts: Sequence[Verdict]) -> str:
    rows = [HEADINGS, *map(row, verdicts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def summary(verdicts: Sequence[Verdict]) -> str:
    ours, theirs = figures(verdicts), baseline_figures(verdicts)
    lines = [f"{'':<14}{'ours':<16}RSS trend"]
    lines += [f"{name:<14}{ours[name]!s:<16}{theirs[name]}" for name in ours]
    firsts = [each.named_first for each in verdicts if each.named_first]
    if firsts:
        for name, values in (
            ("runs", [each.runs for each in firsts]),
            ("seconds", [each.seconds for each in firsts]),
        ):
            lines.append(
                f"{name} until named: median {statistics.median(values):.0f}, most "
                f"{max(values):.0f}"
            )
    lines += [
        f"{each.case.name}: {what} after {when.runs} runs, {when.seconds:.0f} s"
        for each in verdicts
        for what, when in each.said_wrong().items()
    ]
    return "\n".join(lines)
