"""How a fact changes what is known: `evolve` is total, and knows no clock."""

from ratchet.core.evolve.asking import finish_arguments, finished
from ratchet.core.evolve.chain import begin, misfit
from ratchet.core.evolve.dispatch import evolve

__all__ = ["begin", "evolve", "finish_arguments", "finished", "misfit"]
