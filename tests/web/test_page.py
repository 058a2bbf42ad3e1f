"""The page's file: what it may load, and whether its colours can be read."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from celery_memory_exporter.web import page

FILE = page.load().decode()
#: WCAG 2.2: 1.4.3 for text, 1.4.11 for lines and marks that carry meaning.
TEXT, MARK = 4.5, 3.0


def themes() -> dict[str, dict[str, str]]:
    light, dark = (
        dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", FILE, re.DOTALL)
    )
    assert light.keys() == dark.keys()
    return {"light": light, "dark": dark}


def luminance(colour: str) -> float:
    """Relative luminance as WCAG defines it."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [
        each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels
    ]
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_of_the_extremes() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("ground", ["ground", "surface", "shade"])
def test_colours_can_be_read(theme: str, ground: str) -> None:
    colours = themes()[theme]
    texts = {
        name: contrast(colours[name], colours[ground])
        for name in ("text", "muted", "accent", "bad", "warn", "good")
    }
    assert {name: value for name, value in texts.items() if value < TEXT} == {}
    assert contrast(colours["control"], colours[ground]) >= MARK


def test_nothing_comes_from_elsewhere_and_nothing_is_markup() -> None:
    addresses = re.findall(r"""(?:src|href)=["']([^"']+)|url\(([^)]+)\)|fetch\("([^"]+)""", FILE)
    assert {
        each for found in addresses for each in found if each and not each.startswith("data:")
    } == {
        "metrics",
        "api/v1/diagnosis",
        "api/v1/overview",
        "-/healthy",
        "-/ready",
    }
    for way_in in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        " style=",
        " onclick=",
    ):
        assert way_in not in FILE


def test_nothing_moves() -> None:
    """So that there is nothing to ask prefers-reduced-motion about."""
    assert not re.search("transition|animat|@keyframes|smooth", FILE)


def test_the_policy_allows_the_pages_own_script_and_style_and_no_other() -> None:
    small = b"<style>a{}</style><script>\n1\n</script>"
    script, style = (
        base64.b64encode(hashlib.sha256(each).digest()).decode() for each in (b"\n1\n", b"a{}")
    )
    policy = page.content_security_policy(small)
    assert policy.startswith(
        f"default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; "
        "connect-src 'self';"
    )
    assert "unsafe" not in policy
