"""The reference pages of the documentation, generated from the code; also what tests hold it to.

``python tools/reference.py FOLDER`` writes them as Markdown: commands, the twistd plugin's options,
exit codes with every sentence that can end a program, log events, metrics. The site's ``conf.py``
calls :func:`write`. So a new option, error, log line or metric is in the documents as soon as it is
in the code. Only the standard library and the package itself are needed, no Sphinx.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))
PACKAGE = ROOT / "p2pdist"
UNSHOWN = {"test", "simulation"}
"""Rooms whose errors and log lines no user meets."""
LEVELS = ("error", "warn", "info", "debug")
DESCRIPTOR_WORDS = {"descriptor.py", "outline.py", "secretfile.py"}
"""Modules whose ``fail(...)`` and BadSecret become a DescriptorError."""
TWISTDS_OWN = {"help", "version"}
"""Options that Twisted gives to every plugin."""


# --- Markdown ---


def cell(text: str) -> str:
    """Return text that stays inside a table's cell, one line."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def code(text: str) -> str:
    """Return it as code inside a table."""
    return "`" + " ".join(text.split()).replace("|", "\\|") + "`" if text else ""


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table; an empty one is a sentence."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    if not lines:
        return "None.\n"
    names = list(heads)
    head = "| " + " | ".join(names) + " |\n|" + "---|" * len(names)
    return head + "\n" + "\n".join(lines) + "\n"


# --- commands ---


def commands() -> dict[str, click.Command]:
    """Return every command by its words, such as ``p2pdist make``; groups are followed."""
    from p2pdist.faces.cli.main import main

    found: dict[str, click.Command] = {}

    def walk(command: click.Command, name: str) -> None:
        found[name] = command
        if isinstance(command, click.Group):
            context = click.Context(command, info_name=name)
            for child in command.list_commands(context):
                member = command.get_command(context, child)
                if member is not None:
                    walk(member, f"{name} {child}")

    walk(main, "p2pdist")
    return found


def command_section(name: str, command: click.Command) -> str:
    """Return one command's part of the reference."""
    context = click.Context(command, info_name=name, help_option_names=["-h", "--help"])
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    text = "\n\n".join(cell(part) for part in re.split(r"\n\s*\n", (command.help or "").strip()))
    rows = []
    for parameter in command.get_params(context):
        if not isinstance(parameter, click.Option):
            continue
        names = ", ".join(code(opt) for opt in [*parameter.opts, *parameter.secondary_opts])
        takes = "" if parameter.is_flag or parameter.count else parameter.make_metavar(context)
        rows.append((names, code(takes), cell(described(parameter, context))))
    return f"## {name}\n\n{text}\n\n```console\n$ {usage}\n```\n\n" + table(
        ("option", "takes", "meaning"), rows
    )


def described(option: click.Option, context: click.Context) -> str:
    """Return an option's help as the terminal shows it, with its default."""
    record = option.get_help_record(context)
    return record[1] if record is not None else option.help or ""


def commands_page() -> str:
    """Return the page of all commands."""
    parts = [command_section(name, command) for name, command in commands().items()]
    return (
        "# Commands\n\nGenerated from the code; `p2pdist COMMAND --help` says the same. What the "
        "exit codes mean is in [Exit codes and errors](errors.md).\n\n" + "\n".join(parts)
    )


# --- twistd ---


def twistd_options() -> dict[str, tuple[str, str, str]]:
    """Return the plugin's options: long name -> short name, default, meaning."""
    from p2pdist.faces.tap import Options

    options = Options()
    shorts = {long: short for short, long in options.synonyms.items() if len(short) == 1}
    found = {}
    for entry in options.longOpt:
        name = entry.rstrip("=")
        if name in TWISTDS_OWN:
            continue
        default = options.defaults.get(name) if entry.endswith("=") else None
        meaning = options.docs.get(name) or ""
        found[name] = (shorts.get(name, ""), "" if default is None else str(default), meaning)
    return found


def twistd_page() -> str:
    """Return the page of the twistd plugin."""
    from p2pdist.faces.tap import Options

    rows = [
        (
            ", ".join(filter(None, (code(f"--{name}"), code(f"-{short}" if short else "")))),
            code(default),
            cell(meaning),
        )
        for name, (short, default, meaning) in sorted(twistd_options().items())
    ]
    return (
        "# The service: twistd -n p2pdist\n\nGenerated from the code; `twistd p2pdist --help` says "
        f"the same.\n\n```console\n$ twistd -n --pidfile= p2pdist {Options.synopsis}\n```\n\n"
        f"{cell(Options.longdesc)}\n\n" + table(("option", "default", "meaning"), rows)
    )


# --- what the code says: errors, log lines, metrics ---


@functools.cache
def modules() -> tuple[tuple[str, ast.Module], ...]:
    """Return name and syntax tree of every module that users meet."""
    return tuple(
        (path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8")))
        for path in sorted(PACKAGE.rglob("*.py"))
        if UNSHOWN.isdisjoint(path.relative_to(PACKAGE).parts)
    )


def constants(tree: ast.Module) -> Iterator[str]:
    """Yield every text of a module, the pieces of f-strings joined with three dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr | ast.Constant | ast.BinOp):
            text = text_of(node)
            if text != "...":
                yield text


@functools.cache
def error_classes() -> dict[str, type[Exception]]:
    """Return every error of ours by name, wherever it is defined."""
    from p2pdist.errors import P2PDistError

    for name, tree in modules():
        bases = {
            base.id
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            for base in node.bases
            if isinstance(base, ast.Name)
        }
        if any(base.endswith(("Error", "Conflict", "Full")) for base in bases):
            importlib.import_module("p2pdist." + name.removesuffix(".py").replace("/", "."))
    found: dict[str, type[Exception]] = {}

    def walk(kind: type[Exception]) -> None:
        if UNSHOWN.isdisjoint(kind.__module__.split(".")):
            found[kind.__name__] = kind
        for child in kind.__subclasses__():
            walk(child)

    walk(P2PDistError)
    return found


@functools.cache
def exit_codes() -> dict[int, list[str]]:
    """Return the errors that end a program, by the exit code they give."""
    from p2pdist.errors import ProtocolError, RPCError

    codes: dict[int, list[str]] = {}
    for name, kind in error_classes().items():
        if not issubclass(kind, (ProtocolError, RPCError)):
            codes.setdefault(kind.exit_code, []).append(name)  # type: ignore[attr-defined]
    return dict(sorted(codes.items()))


def text_of(node: ast.expr) -> str:
    """Return the text of an expression, with ``...`` where it is not constant."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=parts):
            return "".join(text_of(part) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return text_of(left) + text_of(right)
    return "..."


def called(node: ast.Call) -> str:
    """Return the last name of what is called."""
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


@dataclass(frozen=True)
class Sentence:
    """What an error says.

    Attributes:
        error: name of its class.
        text: with ``...`` for what differs.
        where: the module that says it.
    """

    error: str
    text: str
    where: str

    @property
    def says_what_to_do(self) -> bool:
        """Whether a remedy stands behind a semicolon or colon, as the house wants it."""
        return bool(re.search(r"(; |: expected |\bsay )", self.text))

    @property
    def phrase(self) -> str:
        """The longest constant part, which tells this sentence from others."""
        return max(re.split(r"\s*\.\.\.[\s:;,]*", self.text), key=len).strip(" ;:,")


@functools.cache
def sentences() -> list[Sentence]:
    """Return every sentence with which a program of ours can end, once."""
    errors = set().union(*exit_codes().values()) | {"UsageError", "BadParameter"}
    found: dict[tuple[str, str], Sentence] = {}
    for where, tree in modules():
        raised = dict.fromkeys(errors, "")
        if where in DESCRIPTOR_WORDS:
            raised |= dict.fromkeys(("fail", "_fail", "BadSecret"), "DescriptorError")
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or called(node) not in raised:
                continue
            name = raised[called(node)] or called(node)
            parts = [text_of(argument) for argument in node.args]
            parts += [text_of(word.value) for word in node.keywords if word.arg == "remedy"]
            text = "; ".join(part for part in parts if part.strip(". "))
            sentence = Sentence(name, " ".join(text.split()), where)
            if len(sentence.phrase) > 3:
                found.setdefault((sentence.error, sentence.text), sentence)
    return sorted(found.values(), key=lambda one: (one.error, one.text.lstrip(".- ")))


def errors_page() -> str:
    """Return the page of exit codes and of what programs say when they end."""
    classes = error_classes()
    code_rows = [
        (
            str(number),
            ", ".join(code(name) for name in names),
            cell(" ".join((classes[name].__doc__ or "").split("\n")[0] for name in names[:1])),
        )
        for number, names in exit_codes().items()
    ]
    usage = {"UsageError": 2, "BadParameter": 2}
    sentence_rows = [
        (
            cell(one.text),
            code(one.error),
            str(usage.get(one.error) or classes[one.error].exit_code),  # type: ignore[attr-defined]
        )
        for one in sentences()
    ]
    return (
        "# Exit codes and errors\n\nGenerated from the code. 0 is success. What to do about each "
        "code is in [Operations](../operations.md#exit-codes), by symptom in "
        "[Troubleshooting](../troubleshooting.md).\n\n## Codes\n\n"
        + table(("code", "errors", "meaning of the first"), code_rows)
        + "\n## Sentences\n\nThree dots stand for names, addresses and numbers.\n\n"
        + table(("it says", "error", "code"), sentence_rows)
    )


@dataclass(frozen=True)
class LogEvent:
    """One line a program can log.

    Attributes:
        level: of it.
        format: the text with its fields in braces.
        fields: what a JSON log has beside the text.
        where: the module.
    """

    level: str
    format: str
    fields: tuple[str, ...]
    where: str


def log_calls(tree: ast.Module) -> Iterator[tuple[str, list[ast.expr], list[ast.keyword]]]:
    """Yield level and arguments of what is logged, also by way of ``callWhenRunning``."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        for number, method in enumerate([node.func, *node.args]):
            if not isinstance(method, ast.Attribute):
                continue
            level = "error" if method.attr == "failure" else method.attr
            owner = ast.unparse(method.value).rpartition(".")[2].strip("_")
            if level in LEVELS and owner == "log":
                yield level, node.args[number:], node.keywords


@functools.cache
def log_events() -> list[LogEvent]:
    """Return everything the package logs, sorted by level."""
    found: dict[tuple[str, str], LogEvent] = {}
    for where, tree in modules():
        for level, arguments, words in log_calls(tree):
            if not arguments or (format_ := text_of(arguments[0])) == "...":
                continue
            named = re.findall(r"\{(\w+)", format_)
            fields = (*named, *(word.arg for word in words if word.arg))
            event = LogEvent(level, format_, tuple(dict.fromkeys(fields)), where)
            found.setdefault((level, format_), event)
    return sorted(found.values(), key=lambda one: (LEVELS.index(one.level), one.where, one.format))


def logs_page() -> str:
    """Return the page of log events and their fields."""
    rows = [
        (one.level, code(one.format), " ".join(code(name) for name in one.fields), one.where)
        for one in log_events()
    ]
    by_field: dict[str, int] = {}
    for one in log_events():
        for name in one.fields:
            by_field[name] = by_field.get(name, 0) + 1
    often = ", ".join(code(name) for name, _ in sorted(by_field.items(), key=lambda p: -p[1])[:12])
    return (
        "# Log events and fields\n\nGenerated from the code. What the levels mean is in "
        "[Operations](../operations.md#log-levels). Each event is a text with named fields, and "
        f"Twisted's JSON log observers keep the fields by name. The commonest are {often}.\n\n"
        + table(("level", "text", "fields", "said by"), rows)
    )


def metrics() -> list[tuple[str, str, tuple[str, ...], str]]:
    """Return name, kind, labels and meaning of every metric of ours."""
    from p2pdist.web.metrics import catalogue

    return catalogue()


def metrics_page() -> str:
    """Return the page of metrics."""
    rows = [
        (code(name), kind, " ".join(code(label) for label in labels), cell(meaning))
        for name, kind, labels, meaning in metrics()
    ]
    return (
        "# Metrics\n\nGenerated from the code: what `/metrics` tells Prometheus, beside "
        "prometheus-client's own `process_...` metrics. How to ask for them is in "
        "[The page, the API and the metrics](../page.md).\n\n"
        + table(("metric", "kind", "labels", "meaning"), rows)
    )


# --- changes ---


def changes_page() -> str:
    """Return the changelog, with what is not released yet."""
    kinds = {
        "security": "Security",
        "incompat": "Incompatible changes",
        "feature": "Features",
        "bugfix": "Bug fixes",
        "doc": "Documentation",
    }
    released = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    parts = []
    for kind, title in kinds.items():
        texts = [
            " ".join(path.read_text(encoding="utf-8").replace("``", "`").split())
            for path in sorted((ROOT / "newsfragments").glob(f"*.{kind}"))
        ]
        if texts:
            parts.append(f"### {title}\n\n" + "\n".join(f"- {text}" for text in texts) + "\n")
    head, mark, rest = released.partition("<!-- towncrier release notes start -->")
    return f"{head}{mark}\n\n## Not released yet\n\n" + "\n".join(parts) + rest


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands_page,
    "twistd.md": twistd_page,
    "errors.md": errors_page,
    "logs.md": logs_page,
    "metrics.md": metrics_page,
    "changes.md": changes_page,
}


def write(folder: Path) -> None:
    """Write every page; files that did not change keep their time, so that Sphinx skips them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        path, text = folder / name, page()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def main(arguments: list[Any]) -> int:
    """Write the pages into the folder that was named."""
    if len(arguments) != 1:
        print("usage: python tools/reference.py FOLDER")
        return 2
    write(Path(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
