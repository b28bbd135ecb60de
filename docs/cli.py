"""Write docs/cli.md from the command line itself: python docs/cli.py > docs/cli.md"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

import typer

from edgeseg.cli import app

EXAMPLE = "Example: "


def document() -> str:
    """Markdown: every verb with its arguments, options and an example, after an overview by panel."""
    root: Any = typer.main.get_command(app)
    panels: dict[str, list[str]] = {}
    verbs = dict(_verbs(root))
    for name, command in verbs.items():
        panel = getattr(command, "rich_help_panel", None) or PANEL_OF_GROUPS
        panels.setdefault(panel, []).append(f"[`{name}`](#{name.replace(' ', '-')})")
    overview = [f"| {panel} | {', '.join(links)} |" for panel, links in panels.items()]
    parts = [
        "# The command line",
        "Written by `make docs`; a test compares it with the program.",
        f"{root.help}",
        "\n".join(["| | |", "|---|---|", *overview]),
        "Results are printed on standard output, progress and log lines on standard error. Exit status: 0 done; 1 a "
        "limit was missed (gate, soak, data check) or a device is not well (rollout); 2 the user's error; 3 gate "
        "undecided; 70 a bug in edgeseg; 130 interrupted.",
        "Options of every verb, before its name:",
        _table([_option(p) for p in root.params if not p.hidden and p.name not in SHELL]),
    ]
    for name, command in verbs.items():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        usage = " ".join(["edgeseg", name, *(_argument(p) for p in arguments), "[OPTIONS]"])
        parts += [f"## {name}", command.help or "", f"```text\n{usage}\n```"]
        parts.append(_table([(_argument(p), p.help or "", "") for p in arguments] + [_option(p) for p in options]))
        if (command.epilog or "").startswith(EXAMPLE):
            parts.append(f"```console\n{command.epilog.removeprefix(EXAMPLE)}\n```")
    return "\n\n".join(parts) + "\n"


def _verbs(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(name, command) of every verb; those of a group are called `group verb`."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _verbs(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


PANEL_OF_GROUPS = "Data"
SHELL = ("install_completion", "show_completion", "help")


def _table(rows: list[tuple[str, str, str]]) -> str:
    return "\n".join(
        ["| | | default |", "|---|---|---|", *(f"| `{a}` | {_cell(b)} | {_cell(c)} |" for a, b, c in rows)]
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _argument(param: Any) -> str:
    return f"{param.name.upper()}{'...' if param.nargs == -1 else ''}"


def _option(param: Any) -> tuple[str, str, str]:
    names = " ".join([*param.opts, *param.secondary_opts])
    default = param.default.value if isinstance(param.default, Enum) else param.default
    nothing = default is None or default is False or default in ((), [], "") or callable(default)
    return names, param.help or "", "required" if param.required else "" if nothing else f"`{default}`"


if __name__ == "__main__":
    print(document(), end="")
