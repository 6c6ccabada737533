"""A node of the cluster whose sandboxes are processes of this machine.

The operator is the shipped one and unchanged: it makes pods, and reads their status and dials
their address as ever. Only the kubelet is replaced, so that a sandbox starts in half a second, is
killed by pid, and can be given failpoints.
"""

from tests.proof.node.node import ProcessNode
from tests.proof.node.sandbox import RunningSandbox

__all__ = ["ProcessNode", "RunningSandbox"]
