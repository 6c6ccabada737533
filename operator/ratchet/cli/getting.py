"""`ratchet diff` and `ratchet files get`: what a task changed, from its record or its sandbox."""

from __future__ import annotations

from ratchet.cli.cluster import Cluster
from ratchet.cli.failures import Failed
from ratchet.cli.live import sandbox_of
from ratchet.cli.rebuild import inside, rebuilt
from ratchet.cli.work import Work, read_config, read_patch, read_work
from ratchet.core.records import End
from ratchet.edges.startfiles import FileMissing, read_files
from ratchet.ports import JournalAway


async def diff(cluster: Cluster, name: str) -> bytes:
    """The patch of a task, digest checked; of one that goes on as its workspace is now.

    Raises Failed.
    """
    work = await read_work(cluster, name)
    if work.end is not None:
        return await read_patch(cluster, work, work.end)
    async with sandbox_of(cluster, work) as sandbox:
        return (await sandbox.diff()).patch


async def file(cluster: Cluster, name: str, path: str) -> bytes:
    """A file of the workspace as the task left it, or as it is now. Raises Failed."""
    wanted = inside(path)
    work = await read_work(cluster, name)
    if work.end is not None:
        return await _rebuilt(cluster, work, work.end, wanted)
    async with sandbox_of(cluster, work) as sandbox:
        try:
            return await sandbox.read_file(wanted)
        except UnicodeEncodeError as error:
            text = f"{wanted!r} is not UTF-8: wait for the end of the task, or use kubectl exec."
            raise Failed(text) from error


async def _rebuilt(cluster: Cluster, work: Work, end: End, path: str) -> bytes:
    data = await read_patch(cluster, work, end)
    assert end.patch is not None  # or there was no data
    config = await read_config(cluster, work.task)
    try:
        files = await read_files(cluster.api, work.task.namespace, config.files)
    except (FileMissing, JournalAway) as error:
        raise Failed(f"The start files cannot be read: {error}.") from error
    return rebuilt(path, files, end.patch, data, config.git, work.task.name)
