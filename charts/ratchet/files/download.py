"""Fetch one revision of a model into a folder, once, and say by a file when all of it is there.

Run by the chart's download Job. Variables: MODEL (organisation/name on Hugging Face), REVISION (a
commit), TARGET (the folder), EXCLUDE (patterns that are left out, as a JSON list), and whatever
huggingface_hub reads: HF_TOKEN, HF_ENDPOINT, HTTPS_PROXY.
"""

import json
import os
import sys
from pathlib import Path

from huggingface_hub import snapshot_download

MARKER = ".complete"
INDEX = "model.safetensors.index.json"


def problem(folder: Path) -> str | None:
    """Why a server could not start from this folder, or None.

    An exclusion too many, or a repository in another layout, shows here and not after minutes of
    a server's start.
    """
    config = folder / "config.json"
    if not config.is_file():
        return "there is no config.json: is this the layout of Hugging Face?"
    if not json.loads(config.read_text()).get("architectures"):
        return "config.json names no architectures"
    if (folder / INDEX).is_file():
        weights = set(json.loads((folder / INDEX).read_text())["weight_map"].values())
    else:
        weights = {file.name for file in folder.glob("*.safetensors")} or {"*.safetensors"}
    missing = sorted(name for name in weights if not (folder / name).is_file())
    if missing:
        return f"{len(missing)} files of weights are missing, the first is {missing[0]}"
    return None


def main() -> int:
    """Entry point; gives the exit code."""
    model, revision = os.environ["MODEL"], os.environ["REVISION"]
    folder = Path(os.environ["TARGET"])
    marker = folder / MARKER
    if marker.exists():
        print(f"{model} at {revision} is in {folder} already")
        return 0
    print(f"fetching {model} at {revision} into {folder}", flush=True)
    snapshot_download(
        repo_id=model,
        revision=revision,
        local_dir=folder,
        ignore_patterns=json.loads(os.environ["EXCLUDE"]),
    )
    if found := problem(folder):
        print(f"error: {model} at {revision} cannot be served: {found}", file=sys.stderr)
        print("see sglang.model.download.exclude in the chart's values", file=sys.stderr)
        return 1
    # Everything is on the disk before the file that says so.
    os.sync()
    marker.touch()
    print(f"{model} at {revision} is complete")
    return 0


if __name__ == "__main__":
    sys.exit(main())
