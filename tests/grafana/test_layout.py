"""Places on the grid, and the variables that queries follow."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grafana.generate import layout
from grafana.generate.layout import COLUMNS, placed, row
from grafana.generate.panels import stat
from tests.grafana.linter import QUERY, parsed, selectors

ONE = stat("One", "It is one.", "1", "none")
#: Rows of panels whose widths fill the grid.
WIDTHS = st.lists(st.integers(1, COLUMNS - 1), unique=True, max_size=5).map(
    lambda cuts: [b - a for a, b in itertools.pairwise([0, *sorted(cuts), COLUMNS])]
)
ROWS = st.lists(st.tuples(st.integers(1, 12), WIDTHS), max_size=5)


@given(ROWS)
def test_every_cell_of_the_grid_is_in_one_panel(rows: list[tuple[int, list[int]]]) -> None:
    panels = placed((height, [(width, ONE) for width in widths]) for height, widths in rows)
    taken = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    grid = itertools.product(range(COLUMNS), range(sum(height for height, _ in rows)))
    assert sorted(taken) == sorted(grid)
    assert [panel["id"] for panel in panels] == [*range(1, len(panels) + 1)]


def test_a_row_has_to_fill_the_grid() -> None:
    with pytest.raises(ValueError, match="the row of 'One' is 10 columns wide"):
        placed([(4, [(10, ONE)])])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_panels_beside_each_other_are_as_wide_as_each_other(count: int) -> None:
    height, cells = row(7, *[ONE] * count)
    assert (height, {width for width, _ in cells}) == (7, {COLUMNS // count})


def test_a_heading_stands_above_its_rows() -> None:
    below = row(5, ONE)
    title, *rest = layout.heading("Above", below)
    assert rest == [below]
    ((width, panel),) = title[1]
    assert (width, panel["type"], panel["title"]) == (COLUMNS, "row", "Above")


def test_any_number_of_values_can_be_chosen_and_at_first_all_are() -> None:
    one = layout.variable("job", "Job", "label_values(up, job)")
    assert (one["multi"], one["includeAll"], one["allValue"]) == (True, True, ".+")
    assert one["current"]["value"] == ["$__all"]


def test_a_label_that_may_be_absent_is_matched_by_nothing_too() -> None:
    one = layout.variable("cluster", "Cluster", "label_values(up, cluster)", may_be_absent=True)
    assert one["allValue"] == ".*"


def test_one_value_is_chosen_where_only_one_can_be() -> None:
    one = layout.variable("worker", "Worker", "label_values(up, worker)", multi=False)
    assert (one["multi"], one["includeAll"], one["current"]) == (False, False, {})
    assert "allValue" not in one


def test_each_target_variable_follows_those_before_it() -> None:
    source, *labels = layout.target_variables()
    assert source["type"] == "datasource"
    before: list[str] = []
    for each in labels:
        match = QUERY.fullmatch(each["query"])
        assert match is not None
        series, _, label = match[2].rpartition(", ")
        (selector,) = selectors(series)
        assert [matcher.name for matcher in selector.matchers.matchers] == before
        assert [matcher.value for matcher in selector.matchers.matchers] == [
            f"${name}" for name in before
        ]
        assert label == each["name"]
        before.append(label)
    assert before == ["cluster", "namespace", "job", "instance"]


def test_a_labels_variable_asks_for_its_series_with_its_selector() -> None:
    one = layout.label_variable("task", "Task", "x_total{$worker}", "name")
    match = QUERY.fullmatch(one["query"])
    assert match is not None
    parsed(match[2].rpartition(",")[0])
    assert 'worker=~"$worker"' in one["query"]
    assert one["query"].endswith(", name)")


def test_a_dashboard_leads_to_the_others_over_the_same_time_with_the_same_variables() -> None:
    one = layout.dashboard("uid", "Title", "Doc", [layout.WORKER], [row(4, ONE)])
    (link,) = one["links"]
    assert set(link["tags"]) <= set(one["tags"])
    assert (link["includeVars"], link["keepTime"]) == (True, True)
    names = [each["name"] for each in one["templating"]["list"]]
    assert names == ["datasource", "cluster", "namespace", "job", "instance", "worker"]
    assert [panel["title"] for panel in one["panels"]] == ["One"]


def test_annotations_ask_in_full_and_name_what_they_mark() -> None:
    mark = layout.annotation("Kills", "red", "x{$all} > 0", "{{worker}}", "worker")
    assert 'job=~"$job"' in mark["expr"]
    assert (mark["titleFormat"], mark["tagKeys"]) == ("{{worker}}", "worker")
