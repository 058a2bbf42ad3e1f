"""Panels: their queries in order, and what each kind adds."""

from __future__ import annotations

from typing import Any

import pytest

from grafana.generate.fields import ALARM, PLAIN
from grafana.generate.panels import bar_gauge, heatmap, panel, series, stat, table
from grafana.generate.queries import query


def defaults(one: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = one["fieldConfig"]["defaults"]
    return found


def test_queries_have_the_letters_that_columns_and_overrides_name() -> None:
    targets = panel("stat", "T", "D", [query("a"), query("b"), query("c")], "s")["targets"]
    assert [(each["refId"], each["expr"]) for each in targets] == [
        ("A", "a"),
        ("B", "b"),
        ("C", "c"),
    ]


def test_a_panel_has_the_steps_of_nothing_special_unless_it_says_otherwise() -> None:
    assert defaults(stat("T", "D", "1", "s"))["thresholds"] == PLAIN
    assert defaults(stat("T", "D", "1", "s", thresholds=ALARM))["thresholds"] == ALARM


@pytest.mark.parametrize(("unit", "decimals"), [("none", 0), ("bytes", None)])
def test_a_count_has_no_decimals(unit: str, decimals: int | None) -> None:
    assert defaults(stat("T", "D", "1", unit)).get("decimals") == decimals


@pytest.mark.parametrize(("spark", "mode"), [(True, "area"), (False, "none")])
def test_a_number_over_its_own_course_is_asked_for_over_time(spark: bool, mode: str) -> None:
    one = stat("T", "D", "1", "s", spark=spark)
    assert one["options"]["graphMode"] == mode
    assert one["targets"][0]["instant"] is not spark


def test_an_axis_begins_at_zero_unless_values_have_a_sign() -> None:
    assert defaults(series("T", "D", [query("a")], "s"))["min"] == 0
    assert "min" not in defaults(series("T", "D", [query("a")], "s", signed=True))


def test_a_legend_is_a_table_where_it_has_figures() -> None:
    with_figures = series("T", "D", [query("a")], "s")["options"]["legend"]
    assert (with_figures["displayMode"], with_figures["sortBy"]) == ("table", "Last *")
    without = series("T", "D", [query("a")], "s", calcs=())["options"]["legend"]
    assert without["displayMode"] == "list"
    assert "sortBy" not in without


def test_lines_are_piled_up_or_drawn_as_bars_where_that_is_asked() -> None:
    custom = defaults(series("T", "D", [query("a")], "s", stack=True, bars=True))["custom"]
    assert (custom["stacking"]["mode"], custom["drawStyle"]) == ("normal", "bars")
    custom = defaults(series("T", "D", [query("a")], "s"))["custom"]
    assert (custom["stacking"]["mode"], custom["drawStyle"]) == ("none", "line")


def test_a_table_has_its_columns_alone_in_their_order_and_under_their_headings() -> None:
    columns = [("name", "Task"), ("Value #A", "A run"), ("site", "Line")]
    one = table("T", "D", columns, ["a", "b"], sort="A run", ascending=True)
    steps = {each["id"]: each["options"] for each in one["transformations"]}
    assert steps["filterFieldsByName"]["include"]["names"] == ["name", "Value #A", "site"]
    assert steps["organize"]["indexByName"] == {"name": 0, "Value #A": 1, "site": 2}
    assert steps["organize"]["renameByName"] == dict(columns)
    assert steps["sortBy"]["sort"] == [{"field": "A run", "desc": False}]
    narrow = [each["matcher"]["options"] for each in one["fieldConfig"]["overrides"]]
    assert narrow == ["A run"], "columns of figures; names have the rest"
    assert [each["format"] for each in one["targets"]] == ["table", "table"]


def test_what_an_empty_table_says_is_said_only_where_it_is_told() -> None:
    columns = [("name", "Task")]
    assert defaults(table("T", "D", columns, ["a"], sort="Task", empty="None."))["noValue"] == (
        "None."
    )
    assert "noValue" not in defaults(table("T", "D", columns, ["a"], sort="Task"))


def test_bars_and_buckets_name_what_they_are_of() -> None:
    assert bar_gauge("T", "D", "a", "{{x}}", "s")["targets"][0]["legendFormat"] == "{{x}}"
    (buckets,) = heatmap("T", "D", "a", "bytes")["targets"]
    assert (buckets["legendFormat"], buckets["format"]) == ("{{le}}", "heatmap")
