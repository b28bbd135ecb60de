"""Alerts and dashboard: promtool's rule tests, and real Prometheus that scrapes a live run and server."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from edgeseg.bench.sensors import Sensors
from edgeseg.telemetry.catalog import METRICS

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "edgeseg.json"
WAIT = 60.0
needs_prometheus = pytest.mark.skipif(not shutil.which("prometheus"), reason="needs prometheus (Debian's package)")
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool (Debian's prometheus)")
VARIABLES = {"$__rate_interval": "1m", "$instance": ".*", "$stream": ".*"}  # as Grafana fills them in
NAME = re.compile(r"\b(edgeseg_\w+)\b")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions() -> dict[str, str]:
    """Every expression of the alerts and panels by a name that says where it is."""
    found = {f"alert {rule['alert']}": rule["expr"] for rule in rules()}
    for panel in panels():
        found |= {f"panel {panel['title']} {target['refId']}": target["expr"] for target in panel["targets"]}
    for name, expr in found.items():
        for variable, value in VARIABLES.items():
            expr = expr.replace(variable, value)
        found[name] = expr
    return found


@needs_promtool
def test_every_alert_has_a_case_in_which_it_fires() -> None:
    done = subprocess.run(["promtool", "test", "rules", "alerts_test.yml"], cwd=ALERTS.parent, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = yaml.safe_load((ALERTS.parent / "alerts_test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in cases for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules()}


@needs_promtool
def test_the_example_configuration_is_valid() -> None:
    done = subprocess.run(["promtool", "check", "config", ALERTS.with_name("prometheus.yml")], capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_what_its_script_makes() -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="needs: pip install grafana-foundation-sdk")
    spec = importlib.util.spec_from_file_location("edgeseg_dashboard", DASHBOARD.with_name("dashboard.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    assert module.build() == DASHBOARD.read_text(), "write it again: python deploy/grafana/dashboard.py"


def test_alerts_and_panels_name_only_metrics_of_the_catalog() -> None:
    known = {m.exported for m in METRICS} | {f"{m.name}_bucket" for m in METRICS if m.kind == "histogram"}
    used = {name for expr in expressions().values() for name in NAME.findall(expr)}
    assert used <= known and len(used) > 20


class Prometheus:
    """A real server; `ask` is its HTTP API."""

    def __init__(self, port: int):
        self._url = f"http://127.0.0.1:{port}/api/v1/"

    def ask(self, page: str, **query: str) -> Any:
        with urllib.request.urlopen(f"{self._url}{page}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def wait_for(self, expr: str) -> None:
        """Until the expression has a result."""
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            try:
                if self.ask("query", query=expr)["result"]:
                    return
            except OSError:  # it starts
                pass
            time.sleep(0.2)
        raise AssertionError(f"Prometheus has no {expr}")


def free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def textfile_server(folder: Path) -> ThreadingHTTPServer:
    """Serves the files of a folder as metrics."""

    class Handler(SimpleHTTPRequestHandler):
        extensions_map: ClassVar = {".prom": "text/plain; version=0.0.4"}

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def scraped(
    bundle_of: Callable[[str, str], Path], street: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """Prometheus with our alerts, scraping a live `edgeseg run` at night, which was told of the day only, a server, and
    the file of `edgeseg accuracy` as node_exporter's textfile collector would pass it on.
    The alert of drift does not wait a minute here."""
    if not shutil.which("prometheus"):
        pytest.skip("needs prometheus (Debian's package)")
    for package in ("prometheus_client", "fastapi", "uvicorn"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("prometheus")
    bundle = bundle_of("openvino-cpu", "fp32")
    run, serve, own = free_port(), free_port(), free_port()
    config = yaml.safe_load((ALERTS.parent / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "1s"}
    document = yaml.safe_load(ALERTS.read_text())
    next(rule for rule in document["groups"][0]["rules"] if rule["alert"] == "EdgesegDrift")["for"] = "1s"
    (folder / "alerts.yml").write_text(yaml.safe_dump(document))
    config["rule_files"] = [str(folder / "alerts.yml")]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{run}", f"127.0.0.1:{serve}"]}]
    files = textfile_server(folder)
    config["scrape_configs"].append({
        "job_name": "node", "metrics_path": "/accuracy.prom",
        "static_configs": [{"targets": [f"127.0.0.1:{files.server_address[1]}"]}],
    })  # fmt: skip
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    edgeseg = [sys.executable, "-m", "edgeseg"]
    day = ["--reference", "synthetic://street?frames=300&size=192x128", "--out", folder / "reference.json"]
    subprocess.run([*map(str, [*edgeseg, "drift", bundle, *day])], check=True)
    accuracy = ["--labels", street, "--min-miou", "0", "--prometheus", folder / "accuracy.prom"]
    subprocess.run([*map(str, [*edgeseg, "accuracy", bundle, *accuracy])], check=True)
    commands = [
        [*edgeseg, "run", bundle, "--source", "synthetic://street?fps=15&size=192x128&night=1",
         "--metrics", f"127.0.0.1:{run}", "--deadline", "500", "--min-confidence", "0.01",
         "--review-queue", folder / "queue", "--sink", f"drift://{folder}/drift/?reference={folder}/reference.json"],
        [*edgeseg, "serve", bundle, "--port", serve],
        ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
         f"--web.listen-address=127.0.0.1:{own}"],
    ]  # fmt: skip
    with (folder / "log").open("w") as log:
        processes = [subprocess.Popen([*map(str, words)], stdout=log, stderr=log) for words in commands]
        try:
            prometheus = Prometheus(own)
            prometheus.wait_for("edgeseg_margin{stream='main'}")
            prometheus.wait_for(f"edgeseg_model_info{{model='{bundle.name}'}}")
            image = (bundle / "golden" / "0.png").read_bytes()
            urllib.request.urlopen(f"http://127.0.0.1:{serve}/v1/segment", image, timeout=30).close()
            prometheus.wait_for("edgeseg_images_total > 0")
            prometheus.wait_for("edgeseg_accuracy_verdict")
            yield prometheus
        finally:
            files.shutdown()
            files.server_close()
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
    assert "Traceback" not in (folder / "log").read_text()


def absent_here() -> set[str]:
    """What this machine cannot export: it has no such sensor. The descriptions are exported all the same."""
    now = Sensors().sample()
    values = {
        "edgeseg_temperature_celsius": now.celsius,
        "edgeseg_power_watts": now.watts,
        "edgeseg_energy_joules_total": now.joules,
        "edgeseg_throttled_total": now.throttled,
    }
    return {name for name, value in values.items() if value is None}


def test_every_metric_of_alerts_and_panels_exists_in_a_live_scrape(scraped: Prometheus) -> None:
    stored = set(scraped.ask("label/__name__/values"))
    described = set(scraped.ask("metadata"))
    for where, expr in expressions().items():
        for name in NAME.findall(expr):
            described_name = name if name in described else re.sub("_(total|bucket)$", "", name)
            assert name in stored or (name in absent_here() and described_name in described), f"{where}: {name}"


@pytest.mark.parametrize("where", sorted(expressions()))
def test_every_expression_parses(scraped: Prometheus, where: str) -> None:
    assert scraped.ask("query", query=expressions()[where])["resultType"] == "vector"


def test_the_catalog_is_what_is_exported(scraped: Prometheus) -> None:
    """Every metric, with its kind and its help, and nothing that is not in the catalog."""
    described = {k: v[0] for k, v in scraped.ask("metadata").items() if k.startswith("edgeseg_")}
    described = {k: v for k, v in described.items() if not k.endswith("_created")}
    names = {m.exported if m.exported in described else m.name: m for m in METRICS}
    assert set(described) == set(names)
    for name, row in described.items():
        assert (row["type"], row["help"]) == (names[name].kind, names[name].help)


def test_the_alert_of_drift_fires_and_no_other(scraped: Prometheus) -> None:
    scraped.wait_for("ALERTS{alertname='EdgesegDrift', alertstate='firing'}")
    loaded = [rule for group in scraped.ask("rules")["groups"] for rule in group["rules"]]
    assert len(loaded) == len(rules()) and {rule["health"] for rule in loaded} <= {"ok", "unknown"}
    firing = [alert for alert in scraped.ask("alerts")["alerts"] if alert["state"] == "firing"]
    assert {alert["labels"]["alertname"] for alert in firing} == {"EdgesegDrift"}
    assert (
        "main on 127.0.0.1:" in firing[0]["annotations"]["summary"] and "drifted" in firing[0]["annotations"]["summary"]
    )
