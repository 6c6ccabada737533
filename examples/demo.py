"""`make demo`: a cluster, the operator, and a task that fixes a real bug, from nothing.

Standard library only. Every step has a deadline; the exit code is 0 only if the task succeeded.
"""

from __future__ import annotations

import argparse
import base64
import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.cluster import Cluster, ClusterError, current
from tools import images
from tools.install import NAMESPACE as SYSTEM
from tools.install import environment, install

EXAMPLE = Path(__file__).resolve().parent / "fix-failing-test"
NAMESPACE = "ratchet-demo"
TASK = "fix-timesheet"
SCRIPT = EXAMPLE / "model-script.yaml"
SECRET = "model-key"
ENDED = ("Succeeded", "Failed", "Cancelled")
SCRIPTED_S, REAL_S = 180.0, 1800.0
"""How long the task may take, in seconds, with the script and with a real model."""

TURNS = (
    "custom-columns=N:.spec.number,KIND:.spec.kind,VERDICT:.spec.reply.verdict,"
    "TOOLS:.spec.reply.calls[*].tool,OUTCOMES:.status.results[*].outcome,SAID:.spec.reply.text"
)
SUMMARY = "jsonpath={.status.result.summary}"
END = "jsonpath={.status.result.turn}"
PATCH = "jsonpath={.spec.end.patch.inline}"


class DemoFailed(Exception):
    """The demo cannot go on. The text says why."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl, for the demo's namespace of one cluster."""

    cluster: Cluster

    def argv(self, *words: str) -> list[str]:
        """A command line."""
        where = ["--context", self.cluster.context, "--namespace", NAMESPACE]
        return [f"{self.cluster.path}/kubectl", *where, *words]

    def run(self, *words: str, given: str | None = None, timeout: float = 60.0) -> str:
        """Run it to its end and return what it printed. Raises DemoFailed."""
        shown = f"kubectl {' '.join(words)}"
        try:
            done = subprocess.run(
                self.argv(*words),
                env=environment(self.cluster),
                input=given,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DemoFailed(f"`{shown}` took more than {timeout:g} s") from error
        if done.returncode != 0:
            raise DemoFailed(f"`{shown}` failed: {done.stderr.strip()}")
        return done.stdout


@dataclass(frozen=True, slots=True)
class RealModel:
    """A model endpoint that the caller named."""

    url: str
    model: str
    key_file: Path | None

    def manifests(self) -> dict[str, object]:
        """The ModelEndpoint, and the Secret with its key."""
        spec: dict[str, object] = {"url": self.url, "model": self.model}
        items: list[object] = []
        if self.key_file is not None:
            key = self.key_file.read_bytes().strip()
            items.append(
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": SECRET},
                    "data": {"key": base64.b64encode(key).decode()},
                }
            )
            spec["apiKeySecretRef"] = {"name": SECRET, "key": "key"}
        items.append(
            {
                "apiVersion": "ratchet.run/v1alpha1",
                "kind": "ModelEndpoint",
                "metadata": {"name": "default"},
                "spec": spec,
            }
        )
        return {"apiVersion": "v1", "kind": "List", "items": items}


def demo(real: RealModel | None) -> bool:
    """The whole of it; whether the task succeeded."""
    say("A cluster, the images, the operator")
    cluster = prepare()
    kubectl = Kubectl(cluster)
    if real is not None:
        refuse_loopback(real, cluster)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    kubectl.run("apply", "-f", "-", given=json.dumps(namespace))
    # Only there, so that it never meets the operators of tests on the same cluster.
    only = f"--set=operator.watchNamespaces={{{NAMESPACE}}}"
    install(cluster, fake_script=None if real else SCRIPT, more=[only])
    say(f"The task: {EXAMPLE.relative_to(images.ROOT)}/task.yaml")
    if real is None:
        print("The model is SCRIPTED: a server plays model-script.yaml. The pod, the tools, the")
        print("tests that fail and then pass, the turns and the patch are real.\n")
    apply(kubectl, real)
    phase = watch(kubectl, REAL_S if real else SCRIPTED_S)
    show_turns(kubectl)
    if phase != "Succeeded":
        explain(kubectl, phase)
        return False
    show_result(kubectl)
    say_next(cluster, real)
    return True


def prepare() -> Cluster:
    """A cluster that is up, with the images in it."""
    up = subprocess.run(
        [sys.executable, "-m", "tests.cluster", "up"], cwd=images.ROOT, stdout=2, check=False
    )
    if up.returncode != 0:
        raise DemoFailed("there is no cluster: see above")
    images.build()
    images.load()
    return current()


def apply(kubectl: Kubectl, real: RealModel | None) -> None:
    """Bring in the example's objects, the task last; an earlier run of it goes first."""
    kubectl.run("delete", "agenttask", TASK, "--ignore-not-found", "--timeout=60s", timeout=90)
    for name in ("sandbox-class.yaml", "profile.yaml"):
        kubectl.run("apply", "-f", "-", given=localised(EXAMPLE / name, kubectl.cluster))
    if real is None:
        kubectl.run("apply", "-f", str(EXAMPLE / "model-endpoint.yaml"))
    else:
        kubectl.run("apply", "-f", "-", given=json.dumps(real.manifests()))
    print(f"$ kubectl apply -f {(EXAMPLE / 'task.yaml').relative_to(images.ROOT)}")
    print(kubectl.run("apply", "-f", str(EXAMPLE / "task.yaml")))


def localised(manifest: Path, cluster: Cluster) -> str:
    """A manifest with its images taken from where this cluster has them."""
    text = manifest.read_text(encoding="utf-8")
    registry = cluster.registry or images.REGISTRY
    return text.replace(f" {images.REGISTRY}/", f" {registry}/")


def watch(kubectl: Kubectl, limit_s: float) -> str:
    """Print `kubectl get agenttasks -w` until the task has ended; its last phase.

    Raises DemoFailed when it has not ended after `limit_s` seconds.
    """
    print("$ kubectl get agenttasks -w")
    argv = kubectl.argv("get", "agenttasks", TASK, "--watch")
    with subprocess.Popen(
        argv, env=environment(kubectl.cluster), stdout=subprocess.PIPE, text=True
    ) as process:
        over = threading.Timer(limit_s, process.kill)
        over.start()
        try:
            for line in process.stdout or ():
                print(line, end="", flush=True)
                phase = line.split()[1]
                if phase in ENDED:
                    return phase
        finally:
            over.cancel()
            process.kill()
    raise DemoFailed(f"the watch ended, or {limit_s:g} s passed, before the task had ended")


def show_turns(kubectl: Kubectl) -> None:
    """What the journal has."""
    selector = f"ratchet.run/task-uid={uid(kubectl)}"
    print(f"\n$ kubectl get agentturns -l {selector} --sort-by=.spec.number -o {TURNS}")
    words = ("get", "agentturns", "-l", selector, "--sort-by=.spec.number", "-o", TURNS)
    for line in kubectl.run(*words).splitlines():
        print(line if len(line) <= 150 else line[:147] + "...")


def show_result(kubectl: Kubectl) -> None:
    """The answer and the patch."""
    print(f"\n$ kubectl get agenttask {TASK} -o {SUMMARY!r}")
    print(kubectl.run("get", "agenttask", TASK, "-o", SUMMARY))
    turn = kubectl.run("get", "agenttask", TASK, "-o", END)
    print(f"\n$ kubectl get agentturn {turn} -o {PATCH!r}")
    print(kubectl.run("get", "agentturn", turn, "-o", PATCH))


def explain(kubectl: Kubectl, phase: str) -> None:
    """Why it did not succeed, as far as the cluster tells."""
    why = "jsonpath={.status.reason}: {.status.message}"
    print(f"\nThe task is {phase}. {kubectl.run('get', 'agenttask', TASK, '-o', why)}")
    print("\nThe last lines of the operator's log:")
    log = ("logs", "--namespace", SYSTEM, "deployment/ratchet-operator", "--tail=20")
    print(kubectl.run(*log))


def say_next(cluster: Cluster, real: RealModel | None) -> None:
    """What a person may want now."""
    say("Next")
    print("Look round:")
    print(f"  export KUBECONFIG={cluster.kubeconfig} PATH={cluster.path}:$PATH")
    print(f"  kubectl --namespace {NAMESPACE} get agenttasks,agentturns")
    if real is None:
        print("With a real model, any OpenAI-compatible endpoint that calls tools:")
        print("  make demo MODEL_URL=https://.../v1 MODEL=name [MODEL_KEY_FILE=path]")
        if cluster.host_ip:
            print(f"  (one on this machine: MODEL_URL=http://{cluster.host_ip}:PORT/v1)")
    print("End the cluster:")
    print("  make cluster-down")


def uid(kubectl: Kubectl) -> str:
    """The uid of the task, by which its turns are found."""
    return kubectl.run("get", "agenttask", TASK, "-o", "jsonpath={.metadata.uid}")


def refuse_loopback(real: RealModel, cluster: Cluster) -> None:
    """Refuse an address that means the operator's own pod. Raises DemoFailed."""
    if urlsplit(real.url).hostname in ("localhost", "127.0.0.1", "::1"):
        instead = f": use http://{cluster.host_ip}:PORT/v1" if cluster.host_ip else ""
        raise DemoFailed(
            f"MODEL_URL={real.url} is this machine only from outside; the operator runs in a pod"
            f"{instead}, and let the server listen on that address"
        )


def say(line: str) -> None:
    """A heading."""
    print(f"\n=== {line}", flush=True)


def model_of(options: argparse.Namespace) -> RealModel | None:
    """The endpoint that was named, if any. Raises DemoFailed."""
    if not options.model_url:
        if options.model or options.key_file:
            raise DemoFailed("MODEL and MODEL_KEY_FILE go with MODEL_URL: name all of them")
        return None
    if not options.model:
        raise DemoFailed("MODEL is missing: name the model as the server lists it under /v1/models")
    if options.key_file is not None and not options.key_file.is_file():
        raise DemoFailed(f"MODEL_KEY_FILE={options.key_file} is no file")
    return RealModel(options.model_url.rstrip("/"), options.model, options.key_file)


def main() -> int:
    """Entry point; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m examples.demo", description=__doc__)
    parser.add_argument("--model-url", default="", help="base URL, up to and including /v1")
    parser.add_argument("--model", default="", help="name of the model there")
    parser.add_argument("--key-file", type=Path, help="file that holds the API key")
    started = time.monotonic()
    try:
        succeeded = demo(model_of(parser.parse_args()))
    except (DemoFailed, ClusterError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    print(f"\n{'Done' if succeeded else 'Failed'} after {time.monotonic() - started:.0f} s.")
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
