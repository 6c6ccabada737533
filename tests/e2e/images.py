"""The images that tests run: what `make images` built and `make load` put into the cluster."""

from __future__ import annotations

import os

REGISTRY = os.environ.get("REGISTRY") or "localhost"
TAG = os.environ.get("RATCHET_TAG") or "dev"

OPERATOR = f"{REGISTRY}/ratchet-operator:{TAG}"
SERVER = f"{REGISTRY}/ratchet-sandbox-server:{TAG}"
RUNNER = f"{REGISTRY}/ratchet-runner:{TAG}"
FAKE = f"{REGISTRY}/ratchet-fake-sglang:{TAG}"
SHELL = f"{REGISTRY}/ratchet-demo-shell:{TAG}"
"""A user's image: Debian with bash, git and Python."""
