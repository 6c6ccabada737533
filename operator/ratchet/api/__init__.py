"""The custom resources of ``ratchet.run/v1alpha1``: types, names, conditions, CRD generation.

The pydantic models here are the one source of truth: ``python -m ratchet.api.generate`` derives the
CRDs, their chart and ``docs/api.md`` from them.
"""
