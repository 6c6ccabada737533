"""Named places around what is durable or outside, where tests make things go wrong.

`step` is in the production code; while nothing is switched on it is one look at a variable and the
call itself. `RATCHET_FAILPOINT` switches faults on for a process (`shell/main.py`), a simulation
switches them on for one owner.
"""

from ratchet.failpoints.points import Fault, Point
from ratchet.failpoints.steps import Faults, enable, step

__all__ = ["Fault", "Faults", "Point", "enable", "step"]
