"""Write docs/cli.md from the command line itself: python docs/cli.py > docs/cli.md"""

from __future__ import annotations

from typing import Any

import typer

from edgeseg.cli import app


def document() -> str:
    """Markdown: every command with its arguments and options."""
    root: Any = typer.main.get_command(app)
    parts = ["# The command line", "Written by `make docs`; a test compares it with the program.", f"{root.help}"]
    for name, command in root.commands.items():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        usage = " ".join(["edgeseg", name, *(_argument(p) for p in arguments), "[OPTIONS]"])
        parts += [f"## {name}", command.help or "", f"```text\n{usage}\n```"]
        rows = [(_argument(p), p.help or "", "") for p in arguments] + [_option(p) for p in options]
        table = ["| | | default |", "|---|---|---|", *(f"| `{a}` | {_cell(b)} | {_cell(c)} |" for a, b, c in rows)]
        parts.append("\n".join(table))
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _argument(param: Any) -> str:
    return f"{param.name.upper()}{'...' if param.nargs == -1 else ''}"


def _option(param: Any) -> tuple[str, str, str]:
    names = " ".join([*param.opts, *param.secondary_opts])
    default = param.default
    shown = "" if default in (None, False, (), []) or callable(default) or default == "" else f"`{default}`"
    return names, param.help or "", "required" if param.required else shown


if __name__ == "__main__":
    print(document(), end="")
