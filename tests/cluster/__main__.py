"""Command line: python3 -m tests.cluster up|down|status|kubeconfig|load|stop|start|build-image."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import (
    description,
    folders,
    given,
    image_builder,
    kind,
    networks,
    providers,
)
from tests.cluster.errors import ClusterError
from tests.cluster.local import health, layout, machine
from tests.cluster.providers import Provider


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m tests.cluster", description=__doc__)
    parser.add_argument("--name", help=f"another cluster of this checkout; sets {folders.NAME}")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start this checkout's cluster, or leave it if it is up")
    up.add_argument("--network", help=f"plain, or cilium to enforce; sets {networks.VARIABLE}")
    commands.add_parser("down", help="end it; binaries and base images stay in the cache")
    commands.add_parser("status", help="print its parts; exit code 1 if it is not up")
    commands.add_parser("kubeconfig", help="print the path of its kubeconfig")
    load = commands.add_parser("load", help="bring images into the cluster")
    load.add_argument("archive", nargs="+", type=Path, help="tar file as `docker save` makes it")
    stop = commands.add_parser("stop", help="stop one part of a local cluster")
    stop.add_argument("part", choices=layout.PARTS)
    stop.add_argument("--signal", choices=("TERM", "KILL", "STOP"), default="TERM")
    start = commands.add_parser("start", help="start a part again, or let a stopped one go on")
    start.add_argument("part", choices=layout.PARTS)
    start.add_argument(
        "more", nargs="*", metavar="FLAG", help="flags until its next start, after --"
    )
    build = commands.add_parser("build-image", help="build an image; prints its tar file's path")
    build.add_argument("--file", required=True, type=Path, help="the Dockerfile")
    build.add_argument("--tag", required=True, help="NAME:TAG of the image")
    build.add_argument("--context", type=Path, help="folder to build from (default: the file's)")
    build.add_argument("--target", default="", help="stage of the Dockerfile (default: the last)")
    build.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    return parser


def _provider() -> Provider:
    """The provider of the running cluster, else the one that `up` would choose."""
    try:
        return Provider(description.current().provider)
    except ClusterError:
        return providers.choose(os.environ, image_builder.docker_answers())


def _up() -> None:
    provider = providers.choose(os.environ, image_builder.docker_answers())
    start = {Provider.GIVEN: given.up, Provider.KIND: kind.up, Provider.LOCAL: machine.up}
    cluster = start[provider]()
    print(f"cluster is up: {cluster.apiserver}")
    print(f"export KUBECONFIG={cluster.kubeconfig}  # context {cluster.context}")


def _down() -> None:
    provider = _provider()
    if provider is Provider.KIND:
        kind.down()
    elif provider is Provider.GIVEN:
        description.forget()
        print("the cluster is not ours and stays as it is")
    machine.down_if_root()


def _status() -> bool:
    provider = _provider()
    if provider is Provider.LOCAL:
        rows, up = machine.parts_and_health()
        for name, row in rows.items():
            print(f"{name:<26}{row.process:>8}  {row.state:<9}{row.megabytes:>6} MB")
    else:
        up = _answers()
    print(f"{provider.value} cluster is {'up' if up else 'not up: run `make cluster-up`'}")
    return up


def _answers() -> bool:
    try:
        cluster = description.current()
    except ClusterError:
        return False
    return health.node_is_ready(cluster)


def _build(options: argparse.Namespace) -> None:
    arguments = dict(word.partition("=")[::2] for word in options.build_arg)
    context = (options.context or options.file.parent).resolve()
    recipe = image_builder.Recipe(options.file, options.tag, context, arguments, options.target)
    print(image_builder.build(recipe))


def _load(archives: Sequence[Path]) -> None:
    loaders = {Provider.GIVEN: given.load, Provider.KIND: kind.load, Provider.LOCAL: machine.load}
    for archive in archives:
        loaders[_provider()](archive.resolve())


def main(words: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(words)
    if options.name is not None:
        os.environ[folders.NAME] = options.name
    if options.command == "up" and options.network is not None:
        os.environ[networks.VARIABLE] = options.network
    try:
        match options.command:
            case "up":
                _up()
            case "down":
                _down()
            case "status":
                return 0 if _status() else 1
            case "kubeconfig":
                print(description.current().kubeconfig)
            case "load":
                _load(options.archive)
            case "stop":
                machine.stop_part(options.part, signal.Signals[f"SIG{options.signal}"])
            case "start":
                machine.start_part(options.part, options.more)
            case "build-image":
                _build(options)
            case _:  # argparse admits no other.
                raise AssertionError(options.command)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the next `make cluster-up` goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
