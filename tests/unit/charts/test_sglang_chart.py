"""SGLang as the chart makes it: probes, drain, weights, keys, and who gets in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ratchet.api.crd import openapi_schema
from ratchet.api.endpoint import ModelEndpoint

from tests.unit.charts.helm import CHARTS, REGISTRY, helm, only, render, template

FIXTURES = Path(__file__).parents[2] / "fixtures/sglang"
MODEL = "some-lab/some-model"
DIGEST = "sha256:" + "0" * 64
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ACCEPTED = (
    f"--set=sglang.model.name={MODEL}",
    f"--set=sglang.model.licenceAccepted={MODEL}",
)
PLAIN = (
    REGISTRY,
    "--set=sglang.enabled=true",
    *ACCEPTED,
    f"--set=sglang.model.revision={COMMIT}",
    f"--set=sglang.image.digest={DIGEST}",
)
ROUTER = ("--set=sglang.router.enabled=true", f"--set=sglang.router.image.digest={DIGEST}")
TEAM = "--set=defaults.namespace=team"
NAME = "ratchet-sglang"

Objects = list[dict[str, Any]]


def pod(objects: Objects, name: str = NAME) -> dict[str, Any]:
    """The pod of a Deployment."""
    spec: dict[str, Any] = only(objects, "Deployment", name)["spec"]["template"]["spec"]
    return spec


def server(*words: str) -> dict[str, Any]:
    """The container of the server, with these values."""
    (container,) = pod(render(*PLAIN, *words))["containers"]
    found: dict[str, Any] = container
    return found


def after(words: list[str], option: str) -> str:
    """The word behind an option."""
    return words[words.index(option) + 1]


def labels_of(objects: Objects, kind: str, name: str) -> dict[str, str]:
    """Labels of the pods of a Deployment or Job."""
    labels: dict[str, str] = only(objects, kind, name)["spec"]["template"]["metadata"]["labels"]
    return labels


def refused(*words: str) -> str:
    """What helm says instead of rendering."""
    done = template(*words)
    assert done.returncode != 0
    return done.stderr


def job(objects: Objects) -> dict[str, Any]:
    """The Job that fetches the weights."""
    return only(objects, "Job")


# Not there unless asked for


def test_nothing_of_it_is_made_unless_it_is_enabled() -> None:
    assert "sglang.launch_server" not in json.dumps(render(REGISTRY))


def test_helm_lint_has_nothing_to_say() -> None:
    done = helm("lint", "--strict", str(CHARTS / "ratchet"), *PLAIN, *ROUTER, TEAM)
    assert done.returncode == 0, done.stdout


# What is refused


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--set=sglang.image.digest=",), "sglang.image.digest is empty: give the digest"),
        (
            ("--set=sglang.image.digest=", "--set=sglang.image.allowTag=true"),
            "sglang.image.tag is empty",
        ),
        (("--set=sglang.model.licenceAccepted=yes",), f"licence of {MODEL} is not accepted"),
        (("--set=sglang.model.licenceAccepted=",), f"sglang.model.licenceAccepted={MODEL}"),
        (("--set=sglang.model.name=",), "sglang.model.name is empty"),
        (("--set=sglang.model.revision=",), "sglang.model.revision is empty: give the commit"),
        (("--set=sglang.model.source=Claim",), "sglang.model.claim.name"),
        (("--set=sglang.model.source=Image",), "sglang.model.image"),
        (("--set=sglang.replicas=2",), "sglang.router.enabled"),
        (("--set=sglang.router.enabled=true",), "sglang.router.image.digest is empty"),
        (("--set=sglang.drain.graceSeconds=600",), "give at least 695"),
        (("--set=endpoint.timeouts.totalSeconds=1200",), "give at least 1295"),
        (("--set=sglang.apiKeySecret.name=key", TEAM), "endpoint.apiKeySecret is not"),
        (("--set=sglang.apiKeySecret.name=key",), "sglang.apiKeySecret.key is empty"),
        (("--set=sglang.alerts.enabled=true",), "sglang.podMonitor.enabled is not"),
    ],
)
def test_what_cannot_work_is_refused_with_a_sentence(words: tuple[str, ...], says: str) -> None:
    assert says in refused(*PLAIN, *words)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("sglang.model.revision=main", "revision"),
        ("sglang.model.image=weights:latest", "image"),
        ("sglang.model.source=Git", "source"),
        ("sglang.gpus=0", "gpus"),
        ("sglang.options.port=1", "port"),
        ("sglang.options.--port=1", "--port"),
        ("sglang.router.options.retry-max-retries=5", "retry-max-retries"),
        ("sglang.unknown=1", "unknown"),
    ],
)
def test_the_schema_refuses_what_would_be_another_setting_or_none(value: str, says: str) -> None:
    said = refused(*PLAIN, f"--set={value}")
    assert "specifications of the schema" in said
    assert says in said


# The pod


def test_the_probes_give_health_its_second_and_ask_ready_for_the_rest() -> None:
    container = server()
    startup, ready, alive = (
        container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")
    )
    assert startup["httpGet"] == ready["httpGet"] == {"path": "/ready", "port": "http"}
    assert startup["periodSeconds"] * startup["failureThreshold"] == 1800
    assert (ready["periodSeconds"], ready["timeoutSeconds"], ready["failureThreshold"]) == (5, 3, 2)
    assert alive["httpGet"] == {"path": "/health", "port": "http"}
    # The server needs up to 20 s for its own 503.
    assert alive["timeoutSeconds"] == 25 <= alive["periodSeconds"]
    assert alive["failureThreshold"] == 4


def test_a_pod_that_ends_has_time_for_the_longest_reply() -> None:
    spec = pod(render(*PLAIN))
    pause = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause == 15
    assert spec["terminationGracePeriodSeconds"] >= pause + 600 + 80


def test_a_single_server_frees_its_gpus_before_the_next_one_starts() -> None:
    assert only(render(*PLAIN), "Deployment", NAME)["spec"]["strategy"] == {"type": "Recreate"}


def test_several_servers_are_exchanged_one_by_one_and_never_ask_for_more_gpus() -> None:
    spec = only(render(*PLAIN, *ROUTER, "--set=sglang.replicas=3"), "Deployment", NAME)["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_a_drain_of_the_node_is_never_forbidden() -> None:
    budget = only(render(*PLAIN), "PodDisruptionBudget", NAME)["spec"]
    assert budget["maxUnavailable"] == 1
    assert "minAvailable" not in budget


def test_gpus_are_asked_for_and_the_model_is_split_over_them() -> None:
    container = server("--set=sglang.gpus=4")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 4
    assert container["resources"]["requests"]["nvidia.com/gpu"] == 4
    assert after(container["args"], "--tp") == "4"


def test_shared_memory_is_memory_and_not_that_of_the_host() -> None:
    spec = pod(render(*PLAIN))
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    assert "hostIPC" not in spec and "hostNetwork" not in spec


def test_the_pod_has_no_rights_and_no_variables_of_services() -> None:
    spec = pod(render(*PLAIN))
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    for container in [*spec["initContainers"], *spec["containers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }


def test_options_are_passed_as_they_are_written() -> None:
    words = server(
        "--set=sglang.options.mem-fraction-static=0.88",
        "--set=sglang.options.enable-p2p-check=true",
        "--set=sglang.options.trust-remote-code=false",
        "--set=sglang.options.kv-cache-dtype=fp8_e4m3",
    )["args"]
    assert after(words, "--mem-fraction-static") == "0.88"
    assert after(words, "--kv-cache-dtype") == "fp8_e4m3"
    assert "--enable-p2p-check" in words
    assert "--trust-remote-code" not in words


def test_large_numbers_of_a_file_stay_whole_numbers(tmp_path: Path) -> None:
    # Helm reads numbers of files as floating point, and would write 1e+06.
    file = tmp_path / "values.yaml"
    values = {
        "endpoint": {"capacity": {"tokens": 2_000_000}},
        "sglang": {"contextLength": 1_048_576, "options": {"max-total-tokens": 3_000_000}},
    }
    file.write_text(yaml.safe_dump(values))
    objects = render(*PLAIN, TEAM, f"--values={file}")
    (container,) = pod(objects)["containers"]
    assert after(container["args"], "--max-total-tokens") == "3000000"
    assert after(container["args"], "--context-length") == "1048576"
    spec = only(objects, "ModelEndpoint")["spec"]
    assert spec["contextWindow"] == 1_048_576 and isinstance(spec["contextWindow"], int)
    assert isinstance(spec["capacity"]["tokens"], int)


def test_the_server_is_told_what_the_operator_relies_on() -> None:
    container = server()
    given = {item["name"]: item.get("value") for item in container["env"]}
    assert given["SGLANG_FORWARD_UNKNOWN_TOOLS"] == "1"
    assert given["HF_HUB_OFFLINE"] == "1"
    assert {"--enable-cache-report", "--enable-metrics"} <= set(container["args"])
    assert after(container["args"], "--host") == "0.0.0.0"


def test_keys_come_from_secrets_and_stand_in_no_manifest() -> None:
    container = server(
        "--set=sglang.apiKeySecret.name=keys",
        "--set=sglang.apiKeySecret.key=plain",
        "--set=sglang.adminKeySecret.name=keys",
        "--set=sglang.adminKeySecret.key=admin",
    )
    given = {item["name"]: item.get("valueFrom") for item in container["env"]}
    for option, key in (("--api-key", "plain"), ("--admin-api-key", "admin")):
        variable = after(container["args"], option).removeprefix("$(").removesuffix(")")
        assert given[variable] == {"secretKeyRef": {"name": "keys", "key": key}}


# The weights


def test_the_server_waits_for_the_marker_that_the_job_leaves() -> None:
    objects = render(*PLAIN)
    (waits,) = pod(objects)["initContainers"]
    (fetches,) = job(objects)["spec"]["template"]["spec"]["containers"]
    given = {item["name"]: item["value"] for item in fetches["env"]}
    assert waits["env"] == [{"name": "TARGET", "value": given["TARGET"]}]
    assert after(server()["args"], "--model-path") == given["TARGET"]
    assert given["TARGET"].endswith(COMMIT)
    assert (given["MODEL"], given["REVISION"]) == (MODEL, COMMIT)
    assert json.loads(given["EXCLUDE"]) == ["consolidated*"]
    script = only(objects, "ConfigMap", "ratchet-sglang-download")["data"]["download.py"]
    assert script == (CHARTS / "ratchet/files/download.py").read_text()
    assert '"$TARGET/.complete"' in waits["args"][0] and 'MARKER = ".complete"' in script


def test_the_job_has_the_servers_image_and_goes_to_its_node() -> None:
    objects = render(*PLAIN, "--set=sglang.nodeSelector.pool=gpu")
    spec = job(objects)["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == server()["image"] == f"lmsysorg/sglang@{DIGEST}"
    assert spec["nodeSelector"] == {"pool": "gpu"}
    (term,) = spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    wanted = term["labelSelector"]["matchLabels"]
    assert wanted.items() <= labels_of(objects, "Deployment", NAME).items()


def test_without_servers_the_job_goes_where_it_likes() -> None:
    spec = job(render(*PLAIN, "--set=sglang.replicas=0"))["spec"]["template"]["spec"]
    assert "affinity" not in spec


def test_only_the_job_gets_the_token() -> None:
    objects = render(
        *PLAIN,
        "--set=sglang.model.download.tokenSecret.name=hub",
        "--set=sglang.model.download.tokenSecret.key=token",
    )
    assert "HF_TOKEN" in json.dumps(job(objects))
    assert "HF_TOKEN" not in json.dumps(only(objects, "Deployment", NAME))


@pytest.mark.parametrize(
    "words",
    [
        ("--set=sglang.model.revision=" + "f" * 40,),
        ("--set=sglang.image.digest=sha256:" + "1" * 64,),
        ("--set=sglang.model.download.exclude={*.pth}",),
    ],
)
def test_a_job_that_would_have_to_change_is_another_job(words: tuple[str, ...]) -> None:
    before, now = job(render(*PLAIN)), job(render(*PLAIN, *words))
    assert before["metadata"]["name"] != now["metadata"]["name"]


def test_a_new_version_of_the_chart_alone_leaves_the_job_as_it_is() -> None:
    template_of_job = job(render(*PLAIN))["spec"]["template"]
    assert not [key for key in template_of_job["metadata"]["labels"] if "version" in key]
    assert "helm.sh/chart" not in template_of_job["metadata"]["labels"]


def test_the_claim_outlives_the_release_unless_told_otherwise() -> None:
    kept = only(render(*PLAIN), "PersistentVolumeClaim")["metadata"]["annotations"]
    assert kept == {"helm.sh/resource-policy": "keep"}
    gone = only(render(*PLAIN, "--set=sglang.model.claim.keep=false"), "PersistentVolumeClaim")
    assert "annotations" not in gone["metadata"]


@pytest.mark.parametrize(
    ("words", "volume"),
    [
        (
            ("--set=sglang.model.source=Claim", "--set=sglang.model.claim.name=ours"),
            {"persistentVolumeClaim": {"claimName": "ours"}},
        ),
        (
            (
                "--set=sglang.model.source=Image",
                f"--set=sglang.model.image=r.example.com/m@{DIGEST}",
            ),
            {"image": {"reference": f"r.example.com/m@{DIGEST}", "pullPolicy": "IfNotPresent"}},
        ),
    ],
)
def test_weights_that_are_there_already_are_mounted_and_nothing_is_fetched(
    words: tuple[str, ...], volume: dict[str, Any]
) -> None:
    objects = render(
        REGISTRY,
        "--set=sglang.enabled=true",
        *ACCEPTED,
        f"--set=sglang.image.digest={DIGEST}",
        "--set=sglang.model.path=a/b",
        *words,
    )
    assert not [item for item in objects if item["kind"] in ("Job", "PersistentVolumeClaim")]
    spec = pod(objects)
    assert "initContainers" not in spec
    assert spec["volumes"][0] == {"name": "weights", **volume}
    assert after(spec["containers"][0]["args"], "--model-path") == "/models/a/b"
    mount = spec["containers"][0]["volumeMounts"][0]
    assert mount == {"name": "weights", "mountPath": "/models", "readOnly": True}


# Who gets in


def peers(objects: Objects, policy: str) -> list[dict[str, Any]]:
    """Who a NetworkPolicy lets in."""
    (rule,) = only(objects, "NetworkPolicy", policy)["spec"]["ingress"]
    found: list[dict[str, Any]] = rule["from"]
    return found


def lets_in(objects: Objects, policy: str, labels: dict[str, str]) -> bool:
    """Whether a pod of the release's namespace with these labels may connect."""
    selectors = [peer["podSelector"]["matchLabels"] for peer in peers(objects, policy)]
    return any(selector.items() <= labels.items() for selector in selectors)


def test_the_operator_and_the_router_get_in_and_nobody_else() -> None:
    objects = render(*PLAIN, *ROUTER)
    operator = labels_of(objects, "Deployment", "ratchet-operator")
    router = labels_of(objects, "Deployment", f"{NAME}-router")
    fetcher = labels_of(objects, "Job", job(objects)["metadata"]["name"])
    assert lets_in(objects, NAME, operator) and lets_in(objects, NAME, router)
    assert not lets_in(objects, NAME, fetcher)
    assert lets_in(objects, f"{NAME}-router", operator)
    assert not lets_in(objects, f"{NAME}-router", labels_of(objects, "Deployment", NAME))
    for name in (NAME, f"{NAME}-router"):
        wanted = only(objects, "NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"]
        assert wanted.items() <= labels_of(objects, "Deployment", name).items()


def test_prometheus_gets_in_where_it_is_named_and_the_server_out_unless_forbidden() -> None:
    prometheus = "--set=sglang.networkPolicy.from[0].namespaceSelector.matchLabels.name=monitoring"
    objects = render(*PLAIN, prometheus, "--set=sglang.networkPolicy.denyEgress=true")
    assert {"namespaceSelector": {"matchLabels": {"name": "monitoring"}}} in peers(objects, NAME)
    spec = only(objects, "NetworkPolicy", NAME)["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in spec
    assert only(render(*PLAIN), "NetworkPolicy", NAME)["spec"]["policyTypes"] == ["Ingress"]


def test_metrics_are_scraped_where_they_are_served() -> None:
    objects = render(*PLAIN, *ROUTER, "--set=sglang.podMonitor.enabled=true")
    for name in (NAME, f"{NAME}-router"):
        spec = only(objects, "PodMonitor", name)["spec"]
        (endpoint,) = spec["podMetricsEndpoints"]
        (container,) = pod(objects, name)["containers"]
        assert endpoint["port"] in [port["name"] for port in container["ports"]]
        wanted = spec["selector"]["matchLabels"]
        assert wanted.items() <= labels_of(objects, "Deployment", name).items()


def test_the_alerts_ask_for_what_a_real_server_was_seen_to_serve() -> None:
    monitored = "--set=sglang.podMonitor.enabled=true"
    objects = render(*PLAIN, monitored, "--set=sglang.alerts.enabled=true")
    (group,) = only(objects, "PrometheusRule")["spec"]["groups"]
    expressions = "\n".join(rule["expr"] for rule in group["rules"])
    scrape = json.loads((FIXTURES / "cancel/metrics_after_aborts.json").read_text())
    served = set(re.findall(r"^(sglang:\w+)", scrape["response"]["body_text"], re.MULTILINE))
    asked = set(re.findall(r"sglang:\w+", expressions))
    assert len(asked) == 6
    assert asked <= served
    monitor = only(objects, "PodMonitor")["metadata"]
    jobs = set(re.findall(r'job="([^"]+)"', expressions))
    assert jobs == {f"{monitor['namespace']}/{monitor['name']}"}


# The router


def test_the_router_repeats_nothing_and_keeps_a_task_where_it_is() -> None:
    words = pod(render(*PLAIN, *ROUTER), f"{NAME}-router")["containers"][0]["args"]
    assert {"--disable-retries", "--disable-circuit-breaker"} <= set(words)
    assert after(words, "--policy") == "manual"
    assert after(words, "--assignment-mode") == "min_group"


def test_the_router_finds_the_servers_of_its_own_release_alone() -> None:
    objects = render(*PLAIN, *ROUTER)
    words = pod(objects, f"{NAME}-router")["containers"][0]["args"]
    at = words.index("--selector")
    selector = dict(word.split("=") for word in words[at + 1 : at + 3])
    assert selector.items() <= labels_of(objects, "Deployment", NAME).items()
    assert not selector.items() <= labels_of(objects, "Deployment", f"{NAME}-router").items()
    assert after(words, "--service-discovery-namespace") == "ratchet-system"
    (rule,) = only(objects, "Role", f"{NAME}-router")["rules"]
    assert rule == {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}


def test_the_router_that_the_tests_run_knows_every_option() -> None:
    launch = pytest.importorskip("sglang_router.launch_router", reason="sglang-router is not here")
    words = pod(render(*PLAIN, *ROUTER), f"{NAME}-router")["containers"][0]["args"]
    parsed = launch.parse_router_args(words)
    assert parsed.policy == "manual"
    assert parsed.disable_retries
    assert parsed.health_check_endpoint == "/ready"


def test_the_router_outlives_the_replies_that_go_through_it() -> None:
    spec = pod(render(*PLAIN, *ROUTER), f"{NAME}-router")
    words = spec["containers"][0]["args"]
    pause = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = int(after(words, "--shutdown-grace-period-secs"))
    assert 600 <= grace < spec["terminationGracePeriodSeconds"] - pause
    assert int(after(words, "--request-timeout-secs")) >= 7200


# The endpoint


def endpoint(*words: str) -> dict[str, Any]:
    """The spec of the ModelEndpoint that the chart makes."""
    found = only(render(*words), "ModelEndpoint")
    ModelEndpoint.model_validate(found)
    spec: dict[str, Any] = found["spec"]
    return spec


def test_the_default_endpoint_is_the_server_as_it_was_set_up() -> None:
    assert endpoint(*PLAIN, TEAM) == {
        "url": "http://ratchet-sglang.ratchet-system.svc:30000/v1",
        "model": MODEL,
        "engine": "SGLang",
        "contextWindow": 32768,
        "capacity": {"requests": 16},
    }
    service = only(render(*PLAIN), "Service", NAME)
    assert service["spec"]["ports"][0]["port"] == 30000
    labels = labels_of(render(*PLAIN), "Deployment", NAME)
    assert service["spec"]["selector"].items() <= labels.items()


def test_with_a_router_the_default_endpoint_is_the_router() -> None:
    spec = endpoint(*PLAIN, *ROUTER, TEAM, "--set=sglang.replicas=2")
    assert spec["url"] == "http://ratchet-sglang-router.ratchet-system.svc:30000/v1"
    assert spec["capacity"] == {"requests": 32}


def test_what_is_said_of_the_endpoint_wins_over_what_follows_from_the_server() -> None:
    spec = endpoint(
        *PLAIN,
        TEAM,
        "--set=endpoint.capacity.requests=4",
        "--set=endpoint.capacity.tokens=50000",
        "--set=endpoint.contextWindow=16384",
        "--set=sglang.model.servedName=mine",
    )
    assert spec["capacity"] == {"requests": 4, "tokens": 50000}
    assert spec["contextWindow"] == 16384
    assert spec["model"] == "mine"
    elsewhere = ("--set=endpoint.url=https://router/v1", "--set=endpoint.model=m")
    assert endpoint(*PLAIN, TEAM, *elsewhere)["url"] == "https://router/v1"


def test_the_default_endpoint_can_have_every_field_that_an_endpoint_has() -> None:
    values = yaml.safe_load((CHARTS / "ratchet/values.yaml").read_text())["endpoint"]
    schema = json.loads((CHARTS / "ratchet/values.schema.json").read_text())
    known = schema["properties"]["endpoint"]["properties"]
    fields = set(openapi_schema(ModelEndpoint)["properties"]["spec"]["properties"])
    assert values.keys() == known.keys() == (fields - {"apiKeySecretRef"}) | {"apiKeySecret"}


def test_fields_of_the_endpoint_arrive_as_they_are_written() -> None:
    spec = endpoint(
        REGISTRY,
        TEAM,
        "--set=endpoint.url=https://models.example.com/v1",
        "--set=endpoint.model=m",
        "--set=endpoint.contextWindow=131072",
        "--set-string=endpoint.price.inputPerMillion=1.50",
        "--set-string=endpoint.price.outputPerMillion=7.50",
        "--set=endpoint.caConfigMapRef.name=authority",
        "--set=endpoint.headers[0].name=X-Team",
        "--set=endpoint.headers[0].value=blue",
        "--set=endpoint.allowedNamespaces={*}",
        "--set=endpoint.breaker.failures=3",
    )
    assert spec["contextWindow"] == 131_072
    assert spec["price"] == {"inputPerMillion": "1.50", "outputPerMillion": "7.50"}
    assert spec["caConfigMapRef"] == {"name": "authority"}
    assert spec["headers"] == [{"name": "X-Team", "value": "blue"}]
    assert spec["allowedNamespaces"] == ["*"]
    assert spec["breaker"] == {"failures": 3}
    assert not {"capacity", "retry", "timeouts"} & spec.keys()
