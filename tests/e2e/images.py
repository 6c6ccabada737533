"""The images that tests run: what `make images` built and `make load` put into the cluster."""

from __future__ import annotations

from tools.images import IMAGES

_TAGS = {image.name: image.tag for image in IMAGES}

SERVER = _TAGS["ratchet-sandbox-server"]
RUNNER = _TAGS["ratchet-runner"]
SHELL = _TAGS["ratchet-demo-shell"]
"""A user's image: Debian with bash, git and Python."""
