"""Every metric that `edgeseg run --metrics`, `edgeseg serve` and `edgeseg accuracy` export: its name, kind, labels, and
what it means.

Names follow the conventions of Prometheus, and are what an OpenTelemetry SDK would export under the name that
`otel_name` gives: dots become underscores, the unit and `_total` are appended (OpenTelemetry specification, "Prometheus
and OpenMetrics Compatibility"). A quantity has one name in both programs; the label says whose it is, a `stream` of a
run or a `model` of a server.
"""

from __future__ import annotations

from dataclasses import dataclass

HISTOGRAM, GAUGE, COUNTER = "histogram", "gauge", "counter"
RUN, SERVE, BOTH, ACCURACY = ("run",), ("serve",), ("run", "serve"), ("accuracy",)
SUFFIXES = {"s": "_seconds", "By": "_bytes", "Cel": "_celsius", "W": "_watts", "J": "_joules", "1": "_ratio"}
BUILD_LABELS = ("version", "bundle", "digest", "target", "precision")


@dataclass(frozen=True)
class Metric:
    """`name`: without `_total`. `unit`: as OpenTelemetry writes it (UCUM), "" for counts and states. `labels`: of a
    run; a server has `model` in place of `stream`. `where`: what exports it."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    where: tuple[str, ...] = RUN

    @property
    def exported(self) -> str:
        """The name in Prometheus; of a histogram, without _bucket, _sum and _count."""
        return self.name + "_total" * (self.kind == COUNTER)

    @property
    def otel_name(self) -> str:
        """The name of the OpenTelemetry instrument that would be exported as this one."""
        return self.name.removesuffix(SUFFIXES.get(self.unit, "")).replace("_", ".")


METRICS = (
    Metric("edgeseg_stage_seconds", HISTOGRAM, "Time that each stage of a frame took.", ("stage",), "s", BOTH),
    Metric("edgeseg_latency_seconds", HISTOGRAM, "Time of the model's own stages together.", ("stream",), "s"),
    Metric("edgeseg_frame_age_seconds", HISTOGRAM, "Age of a frame when a sink has written it.", ("stream",), "s"),
    Metric(
        "edgeseg_frame_age_from",
        GAUGE,
        "1: ages of this stream start at the capture, the arrival of the data, or when it was read.",
        ("stream", "origin"),
    ),
    Metric("edgeseg_frames", COUNTER, "Results delivered to the sinks.", ("stream",)),
    Metric("edgeseg_fps", GAUGE, "Results per second over the latest 30.", ("stream",)),
    Metric("edgeseg_silent_seconds", GAUGE, "Seconds since the latest result.", ("stream",), "s"),
    Metric("edgeseg_dropped", COUNTER, "Frames lost, by the stage that lost them.", ("stream", "stage")),
    Metric("edgeseg_damaged", COUNTER, "Packets that did not decode.", ("stream",)),
    Metric("edgeseg_reconnects", COUNTER, "Connections after the first.", ("stream",)),
    Metric("edgeseg_state", GAUGE, "1 for the state the source is in, 0 for the others.", ("stream", "state")),
    Metric("edgeseg_fallback_level", GAUGE, "0 at full quality, else how many steps down the deadline forced."),
    Metric("edgeseg_late", COUNTER, "Results older than the deadline."),
    Metric("edgeseg_key_frames", COUNTER, "With --reuse: frames that went through the network."),
    Metric("edgeseg_reuse_estimated_drop", GAUGE, "With --reuse auto: the estimated loss in points of mIoU."),
    Metric(
        "edgeseg_class_area_ratio",
        GAUGE,
        "Share of the latest frame that a class covers, 0 to 1; absent classes have none.",
        ("stream", "class"),
        "1",
        BOTH,
    ),
    Metric(
        "edgeseg_margin",
        GAUGE,
        "Confidence: by how much the best logit beats the second, mean over a frame, where it is measured.",
        ("stream",),
    ),
    Metric(
        "edgeseg_drift_score",
        GAUGE,
        "Evidence of drift, 0 to 1: an alarm at 1, which stays until the statistic is back in its range.",
        ("stream", "statistic"),
    ),
    Metric("edgeseg_drift_alarms", COUNTER, "Alarms of drift.", ("stream", "statistic")),
    Metric(
        "edgeseg_undecided_frames",
        COUNTER,
        "Results that a person has to look at, by the first of their reasons.",
        ("stream", "reason"),
    ),
    Metric(
        "edgeseg_review_frames",
        COUNTER,
        "Undecided results by what became of them: queued, limited, or lost for want of room.",
        ("stream", "outcome"),
    ),
    Metric(
        "edgeseg_accuracy_miou_ratio",
        GAUGE,
        "mIoU on labeled frames of the field, 0 to 1; sample: all of them, or those drawn at random.",
        ("stream", "sample"),
        "1",
        ACCURACY,
    ),
    Metric("edgeseg_accuracy_low_ratio", GAUGE, "Lower end of its 95 % interval.", ("stream", "sample"), "1", ACCURACY),
    Metric("edgeseg_accuracy_high_ratio", GAUGE, "Upper end of it.", ("stream", "sample"), "1", ACCURACY),
    Metric("edgeseg_accuracy_limit_ratio", GAUGE, "The mIoU that is accepted.", ("stream",), "1", ACCURACY),
    Metric("edgeseg_accuracy_frames", GAUGE, "Labeled frames of the field.", ("stream", "sample"), "", ACCURACY),
    Metric(
        "edgeseg_accuracy_verdict",
        GAUGE,
        "1 for the verdict on the accuracy of a camera (pass, fail, undecided), 0 for the others.",
        ("stream", "verdict"),
        "",
        ACCURACY,
    ),
    Metric("edgeseg_temperature_celsius", GAUGE, "The hottest thermal zone.", (), "Cel", BOTH),
    Metric("edgeseg_power_watts", GAUGE, "Power of the board, where it has a sensor.", (), "W", BOTH),
    Metric("edgeseg_energy_joules", COUNTER, "Energy that the CPU package counts (RAPL).", (), "J", BOTH),
    Metric("edgeseg_throttled", COUNTER, "Thermal throttling events of the CPU since it started.", (), "", BOTH),
    Metric("edgeseg_requests", COUNTER, "Requests answered.", ("route", "status"), "", SERVE),
    Metric("edgeseg_request_seconds", HISTOGRAM, "From a request's header to its answer.", ("route",), "s", SERVE),
    Metric("edgeseg_images", COUNTER, "Images segmented.", ("model",), "", SERVE),
    Metric("edgeseg_in_flight", GAUGE, "Images let in and not answered.", ("model",), "", SERVE),
    Metric("edgeseg_queue", GAUGE, "Images that wait for a free slot.", ("model",), "", SERVE),
    Metric("edgeseg_reloads", COUNTER, "Reloads and rollbacks.", ("model", "result"), "", SERVE),
    Metric("edgeseg_model_info", GAUGE, "The bundle that serves.", ("model", "digest", "version"), "", SERVE),
    Metric("edgeseg_uptime_seconds", GAUGE, "Seconds since the run started.", (), "s"),
    Metric("edgeseg_resident_bytes", GAUGE, "Memory of the process.", (), "By", BOTH),
    Metric(
        "edgeseg_build_info", GAUGE, "Always 1: the version of edgeseg, the bundle that runs.", BUILD_LABELS, "", BOTH
    ),
)  # fmt: skip
BY_NAME = {metric.name: metric for metric in METRICS}


def labels(name: str, owner: str = "stream") -> tuple[str, ...]:
    """The labels of a metric, with `owner` ("stream" or "model") for whose it is."""
    return tuple(owner if label == "stream" else label for label in BY_NAME[name].labels)
