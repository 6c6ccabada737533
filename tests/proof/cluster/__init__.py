"""L3: faults on a real cluster that nobody else uses, with the operator as its chart installs it."""

from tests.proof.cluster.level import run

__all__ = ["run"]
