"""The ``p2pdist`` command: which subcommands there are. Tests: ``test_cli_main``.

Each subcommand's module is imported when it is asked for: starting up fast is a feature.
"""

from __future__ import annotations

import importlib

import click

from p2pdist import __version__

COMMANDS = {
    "make": ("p2pdist.faces.cli.make", "Hash a file or folder and write its descriptor."),
    "get": ("p2pdist.faces.cli.get", "Fetch the content of a descriptor or p2pdist: link."),
    "seed": ("p2pdist.faces.cli.seed", "Serve a complete file or folder until interrupted."),
    "status": ("p2pdist.faces.cli.status", "Show how a running node and its fleet stand."),
    "wait": ("p2pdist.faces.cli.wait", "Wait until machines have the whole content."),
    "why": ("p2pdist.faces.cli.status", "Say what holds up every machine that is not done."),
    "add": ("p2pdist.faces.cli.tell", "Have a running node fetch and seed another content."),
    "remove": ("p2pdist.faces.cli.tell", "Have a running node drop a content."),
    "pause": ("p2pdist.faces.cli.tell", "Have a running node leave a swarm for now."),
    "resume": ("p2pdist.faces.cli.tell", "Have a running node go on with a paused content."),
    "limit": ("p2pdist.faces.cli.tell", "Change the speed limits of a running node."),
    "push": ("p2pdist.faces.cli.push", "Bring a file onto many machines over ssh."),
    "doctor": ("p2pdist.faces.cli.doctor", "Find what keeps a node on this machine from working."),
    "sign": ("p2pdist.faces.cli.sign", "Sign a descriptor with an OpenSSH key."),
    "id": ("p2pdist.faces.cli.id", "Print who the node of a state directory is."),
    "verify": ("p2pdist.faces.cli.verify", "Compare what is on disk with a descriptor."),
    "demo": ("p2pdist.faces.cli.demo", "Distribute a file among processes of this machine."),
    "completion": ("p2pdist.faces.cli.completion", "Print completion for bash, zsh or fish."),
    "simulate": (
        "p2pdist.faces.cli.simulate",
        "Try discovery with thousands of simulated nodes.",
    ),
}


class LazyGroup(click.Group):
    """A group whose commands are imported one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of a user's first day."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="p2pdist")
def main() -> None:
    """Distribute one big file or folder to many machines, without tracker or server.

    Services run with: twistd -n p2pdist --descriptor FILE.desc
    """
