"""The images that tests run: what `make images` built and `make load` put into the cluster."""

from __future__ import annotations

from tools.images import FOR_TESTS, IMAGES

_TAGS = {image.name: image.tag for image in (*IMAGES, *FOR_TESTS)}

SERVER = _TAGS["ratchet-sandbox-server"]
RUNNER = _TAGS["ratchet-runner"]
SHELL = _TAGS["ratchet-demo-shell"]
"""A user's image: Debian with bash, git and Python."""
BASH = _TAGS["ratchet-test-bash"]
"""One with bash, and neither Python nor git."""
BUSYBOX = _TAGS["ratchet-test-busybox"]
"""One with nothing but a static busybox."""
