"""The classes of the documentation, as an API server sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.box import Boxes
from tests.unit.docs.test_docs import manifests

pytestmark = pytest.mark.cluster

PAGES = ("docs/sandboxes.md", "docs/network.md")
ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("page", PAGES)
async def test_every_class_that_is_shown_is_taken(boxes: Boxes, page: str) -> None:
    shown: list[Any] = list(manifests((ROOT / page).read_text()))
    assert shown
    text = yaml.safe_dump_all(shown)
    options = ("--dry-run=server", "--validate=strict", "-f", "-")
    said = await boxes.kubectl.run("apply", *options, stdin=text)
    assert said.count("created") == len(shown)
