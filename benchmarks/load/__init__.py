"""Many tasks at one endpoint: how much of it they use, and what the operator costs.

Real are the API server, the operator as shipped with its queue, and HTTP to the fake SGLang. The
sandboxes are the operator's own doubles: so many pods fit on no small machine, and a sandbox's
own cost is measured elsewhere.
"""

from benchmarks.load.figures import LoadFigures
from benchmarks.load.measure import LATENCY_S, QUICK_TASKS, SLOTS, TASKS, TURNS, measure

__all__ = ["LATENCY_S", "QUICK_TASKS", "SLOTS", "TASKS", "TURNS", "LoadFigures", "measure"]
