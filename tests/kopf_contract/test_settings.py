"""The settings that our operator sets are settings of this kopf."""

from __future__ import annotations

import dataclasses
from importlib.metadata import version

import kopf
from ratchet.api import names
from ratchet.shell.main import API_OUTAGE_BACKOFFS_S, kopf_settings
from ratchet.shell.stateless import NoDiffBase, NoProgress


def test_kopf_is_the_version_whose_behaviour_is_held_here() -> None:
    """After an upgrade: read what the other tests of this folder say, then change this."""
    assert version("kopf") == "1.45.2"


def test_what_our_operator_sets_are_fields_that_kopf_reads() -> None:
    """`main.kopf_settings`: kopf takes an assignment to a name that it does not know silently."""
    settings = kopf_settings()
    for section in dataclasses.fields(settings):
        found = getattr(settings, section.name)
        known = {each.name for each in dataclasses.fields(found)}
        assert vars(found).keys() <= known, section.name
    assert vars(settings).keys() == {each.name for each in dataclasses.fields(settings)}


def test_our_settings_are_as_meant() -> None:
    """`main.kopf_settings`: nothing is posted, scanned or stored, and outages are waited out."""
    settings = kopf_settings()
    assert not settings.posting.enabled
    assert settings.scanning.disabled
    assert settings.networking.error_backoffs == API_OUTAGE_BACKOFFS_S
    assert settings.persistence.finalizer == f"{names.GROUP}/never-set"
    assert isinstance(settings.persistence.diffbase_storage, NoDiffBase)
    assert isinstance(settings.persistence.progress_storage, NoProgress)
    assert settings.queueing.worker_limit is None


def test_kopf_still_has_the_storages_that_ours_stand_in_for() -> None:
    """`stateless`: the methods that kopf calls are those that ours override."""
    for ours, base in ((NoDiffBase, kopf.DiffBaseStorage), (NoProgress, kopf.ProgressStorage)):
        assert issubclass(ours, base)
        abstract: frozenset[str] = getattr(base, "__abstractmethods__", frozenset())
        assert abstract and abstract <= vars(ours).keys()
