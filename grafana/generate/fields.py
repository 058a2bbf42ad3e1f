"""How values look, in every kind of panel: colours, the steps at which they change, and what is
different for single fields."""

from __future__ import annotations

from typing import Any

from grafana.generate.queries import Json

GREEN, YELLOW, ORANGE, RED = "green", "yellow", "orange", "red"
BLUE, PURPLE, GREY = "blue", "purple", "#8e8e99"


def steps(*pairs: tuple[float | None, str]) -> Json:
    """Each colour from its value on; the first, of ``None``, from below everything."""
    return {
        "mode": "absolute",
        "steps": [{"value": value, "color": color} for value, color in pairs],
    }


PLAIN = steps((None, GREEN))
#: What should never be.
ALARM = steps((None, GREEN), (1, RED))
#: Bytes that suspects leave behind an hour.
LEAKED_AN_HOUR = steps((None, GREEN), (1, ORANGE), (100 * 2**20, RED))
#: The share of a limit that is in use.
NEAR_LIMIT = steps((None, GREEN), (0.8, ORANGE), (0.95, RED))
#: The share of runs that failed.
FAILED = steps((None, GREEN), (0.01, ORANGE), (0.05, RED))

#: A table's cell whose figure has the colour of its step.
COLORED_CELL = {"type": "color-text"}
DASHES = {"fill": "dash", "dash": [8, 6]}


def fixed(color: str) -> Json:
    return {"mode": "fixed", "fixedColor": color}


def override(field: str, *, regex: bool = False, **properties: Any) -> Json:
    """``custom__lineWidth=2`` sets ``custom.lineWidth``."""
    matcher = (
        {"id": "byRegexp", "options": f"/{field}/"} if regex else {"id": "byName", "options": field}
    )
    return {
        "matcher": matcher,
        "properties": [
            {"id": key.replace("__", "."), "value": value} for key, value in properties.items()
        ],
    }


def colored(field: str, color: str) -> Json:
    return override(field, color=fixed(color))


def line(field: str, color: str, *, dashed: bool = False) -> Json:
    """In a panel that piles up or fills the others: this one is neither."""
    style: Json = {"custom__lineStyle": DASHES} if dashed else {}
    return override(
        field,
        color=fixed(color),
        custom__stacking={"mode": "none", "group": "A"},
        custom__fillOpacity=0,
        custom__lineWidth=2,
        **style,
    )


def dashed(fields: str) -> Json:
    """Lines of the fields that the regular expression finds, beside full ones."""
    return override(fields, regex=True, custom__lineStyle=DASHES, custom__fillOpacity=0)
