"""Colours, steps, and what is different for single fields."""

from __future__ import annotations

from typing import Any

from grafana.generate.fields import colored, dashed, line, override, steps


def properties(one: dict[str, Any]) -> dict[str, Any]:
    return {each["id"]: each["value"] for each in one["properties"]}


def test_a_field_is_found_by_its_name_or_by_a_pattern() -> None:
    assert override("RSS (MiB)", unit="bytes")["matcher"] == {
        "id": "byName",
        "options": "RSS (MiB)",
    }
    assert override("^a|b$", regex=True)["matcher"] == {"id": "byRegexp", "options": "/^a|b$/"}


def test_two_underscores_lead_into_custom_settings() -> None:
    assert properties(override("x", unit="s", custom__lineWidth=2)) == {
        "unit": "s",
        "custom.lineWidth": 2,
    }


def test_each_step_has_its_value_and_its_colour_in_order() -> None:
    assert steps((None, "green"), (0.8, "red"))["steps"] == [
        {"value": None, "color": "green"},
        {"value": 0.8, "color": "red"},
    ]


def test_a_line_is_neither_piled_up_nor_filled() -> None:
    full, broken = properties(line("x", "red")), properties(line("x", "red", dashed=True))
    assert full["custom.stacking"]["mode"] == "none"
    assert full["custom.fillOpacity"] == 0
    assert broken.keys() - full.keys() == {"custom.lineStyle"}
    assert properties(colored("x", "red"))["color"] == full["color"]


def test_dashes_are_for_all_that_the_pattern_finds() -> None:
    one = dashed("^shared")
    assert one["matcher"]["id"] == "byRegexp"
    assert properties(one)["custom.lineStyle"]["fill"] == "dash"
