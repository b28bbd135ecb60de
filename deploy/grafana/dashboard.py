"""Writes edgeseg.json, the Grafana dashboard, with grafana-foundation-sdk: python deploy/grafana/dashboard.py

Import the JSON into Grafana (10.1 or later) and choose the Prometheus data source.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef

OUT = Path(__file__).with_name("edgeseg.json")
SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
RUN = '{instance=~"$instance", stream=~"$stream"}'
DEVICE = '{instance=~"$instance"}'


@dataclass(frozen=True)
class Panel:
    """`queries`: (PromQL, legend). `unit`: as Grafana names it."""

    title: str
    about: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"


def quantiles(metric: str, by: str, where: str, legend: str) -> tuple[tuple[str, str], ...]:
    """Median and 95th percentile of a histogram."""
    text = f"sum by ({by}, le) (rate({metric}_bucket{where}[$__rate_interval]))"
    return tuple((f"histogram_quantile({q}, {text})", f"{legend} p{100 * q:g}") for q in (0.5, 0.95))


ROWS = {
    "Streams": (
        Panel("Results per second", "Over the latest 30 results.", ((f"edgeseg_fps{RUN}", "{{instance}} {{stream}}"),)),
        Panel(
            "Age of frames",
            "From the capture (or what edgeseg_frame_age_from says) to the end of the sink.",
            quantiles("edgeseg_frame_age_seconds", "instance, stream", RUN, "{{instance}} {{stream}}"),
            "s",
        ),
        Panel(
            "Seconds without a result",
            "An alert fires at 30.",
            ((f"edgeseg_silent_seconds{RUN}", "{{instance}} {{stream}}"),),
            "s",
        ),
        Panel(
            "Frames lost per second",
            "By the stage that lost them, and packets that did not decode.",
            (
                (f"rate(edgeseg_dropped_total{RUN}[$__rate_interval])", "{{instance}} {{stream}} {{stage}}"),
                (f"rate(edgeseg_damaged_total{RUN}[$__rate_interval])", "{{instance}} {{stream}} damaged"),
            ),
        ),
        Panel(
            "Camera states",
            "The state that each source is in, and how often it was connected again in an hour.",
            (
                (f"edgeseg_state{RUN} == 1", "{{instance}} {{stream}} {{state}}"),
                (f"increase(edgeseg_reconnects_total{RUN}[1h])", "{{instance}} {{stream}} reconnects"),
            ),
        ),
        Panel(
            "Deadline",
            "The fallback level (0: full quality) and results per second that were late.",
            (
                (f"edgeseg_fallback_level{DEVICE}", "{{instance}} level"),
                (f"rate(edgeseg_late_total{DEVICE}[$__rate_interval])", "{{instance}} late"),
            ),
        ),
    ),
    "What the model sees": (
        Panel(
            "Class areas",
            "Share of the latest frame that each class covers.",
            (('edgeseg_class_area_ratio{instance=~"$instance"}', "{{instance}} {{stream}}{{model}} {{class}}"),),
            "percentunit",
        ),
        Panel(
            "Confidence",
            "Mean margin between the best and the second class, where it is measured.",
            ((f"edgeseg_margin{RUN}", "{{instance}} {{stream}}"),),
        ),
        Panel(
            "Drift",
            "Evidence that frames have changed, by statistic: an alarm at 1. Alarms of the last hour.",
            (
                (f"edgeseg_drift_score{RUN}", "{{instance}} {{stream}} {{statistic}}"),
                (f"increase(edgeseg_drift_alarms_total{RUN}[1h])", "{{instance}} {{stream}} {{statistic}} alarms"),
            ),
        ),
        Panel(
            "Undecided",
            "Results per second that a person has to look at, by reason, and what became of them.",
            (
                (f"rate(edgeseg_undecided_frames_total{RUN}[$__rate_interval])", "{{instance}} {{stream}} {{reason}}"),
                (f"rate(edgeseg_review_frames_total{RUN}[$__rate_interval])", "{{instance}} {{stream}} {{outcome}}"),
            ),
        ),
        Panel(
            "Accuracy in the field",
            "mIoU on labeled frames with its 95 % interval, and what is accepted (edgeseg accuracy --prometheus).",
            (
                ('edgeseg_accuracy_miou_ratio{stream=~"$stream"}', "{{stream}}, {{sample}}"),
                ('edgeseg_accuracy_low_ratio{stream=~"$stream"}', "{{stream}}, {{sample}} low"),
                ('edgeseg_accuracy_high_ratio{stream=~"$stream"}', "{{stream}}, {{sample}} high"),
                ('edgeseg_accuracy_limit_ratio{stream=~"$stream"}', "{{stream}} accepted"),
            ),
            "percentunit",
        ),
        Panel(
            "Labeled frames",
            "That the accuracy in the field is from.",
            (('edgeseg_accuracy_frames{stream=~"$stream"}', "{{stream}}, {{sample}}"),),
        ),
    ),
    "Model and device": (
        Panel(
            "Time of each stage",
            "Resize, inference and mask are the model's own.",
            quantiles("edgeseg_stage_seconds", "instance, stage", DEVICE, "{{instance}} {{stage}}"),
            "s",
        ),
        Panel(
            "Latency of the model",
            "Resize, inference and mask together.",
            quantiles("edgeseg_latency_seconds", "instance, stream", RUN, "{{instance}} {{stream}}"),
            "s",
        ),
        Panel(
            "Temperature",
            "The hottest thermal zone, where there is a sensor.",
            ((f"edgeseg_temperature_celsius{DEVICE}", "{{instance}}"),),
            "celsius",
        ),
        Panel(
            "Power",
            "Of the board, or what the CPU package counts.",
            (
                (f"edgeseg_power_watts{DEVICE}", "{{instance}} board"),
                (f"rate(edgeseg_energy_joules_total{DEVICE}[$__rate_interval])", "{{instance}} CPU"),
            ),
            "watt",
        ),
        Panel("Memory", "Of the process.", ((f"edgeseg_resident_bytes{DEVICE}", "{{instance}}"),), "bytes"),
        Panel(
            "What runs",
            "Devices by version and bundle: a rollout moves them from one line to another.",
            ((f"count by (version, bundle, precision) (edgeseg_build_info{DEVICE})",
              "{{bundle}} {{precision}}, edgeseg {{version}}"),),
        ),
    ),
    "Server": (
        Panel(
            "Requests per second",
            "By status: 429 is a full queue, 504 a missed deadline.",
            (
                (f"sum by (instance, status) (rate(edgeseg_requests_total{DEVICE}[$__rate_interval]))",
                 "{{instance}} {{status}}"),
                (f"sum by (instance, model) (rate(edgeseg_images_total{DEVICE}[$__rate_interval]))",
                 "{{instance}} images of {{model}}"),
            ),
        ),
        Panel(
            "Time of a request",
            "From its header to its answer.",
            quantiles("edgeseg_request_seconds", "instance, route", DEVICE, "{{instance}} {{route}}"),
            "s",
        ),
        Panel(
            "Queue",
            "Images let in, and those of them that wait for a free slot.",
            (
                (f"edgeseg_in_flight{DEVICE}", "{{instance}} {{model}} in flight"),
                (f"edgeseg_queue{DEVICE}", "{{instance}} {{model}} waiting"),
            ),
        ),
    ),
}  # fmt: skip


def panel(shown: Panel) -> timeseries.Panel:
    built = timeseries.Panel().title(shown.title).description(shown.about).unit(shown.unit).datasource(SOURCE)
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    built = built.span(8).height(8).min(0).legend(legend.show_legend(True))
    built = built.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    for letter, (expr, name) in zip("ABCD", shown.queries):
        built = built.with_target(prometheus.Dataquery().expr(expr).legend_format(name).ref_id(letter))
    return built


def variable(name: str, metric: str) -> dashboard.QueryVariable:
    """A choice of the values that a label has."""
    query = dashboard.QueryVariable(name).datasource(SOURCE).query(f"label_values({metric}, {name})")
    return query.multi(True).include_all(True).all_value(".*")


def build() -> str:
    """The dashboard as JSON."""
    board = (
        dashboard.Dashboard("edgeseg")
        .uid("edgeseg")
        .tags(["edgeseg"])
        .refresh("30s")
        .time("now-6h", "now")
        .with_variable(dashboard.DatasourceVariable("source").type("prometheus"))
        .with_variable(variable("instance", "edgeseg_build_info"))
        .with_variable(variable("stream", "edgeseg_frames_total"))
    )
    for title, panels in ROWS.items():
        board = board.with_row(dashboard.Row(title))
        for shown in panels:
            board = board.with_panel(panel(shown))
    return JSONEncoder(sort_keys=True, indent=1).encode(board.build()) + "\n"


if __name__ == "__main__":
    OUT.write_text(build())
