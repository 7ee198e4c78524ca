"""``p2pdist completion``: the script that completes commands and options in a shell.

Tests: ``test_cli_completion``.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from p2pdist.faces.cli.output import Output

HINTS = {
    "bash": 'add to ~/.bashrc: eval "$(p2pdist completion bash)"',
    "zsh": 'add to ~/.zshrc: eval "$(p2pdist completion zsh)"',
    "fish": "p2pdist completion fish > ~/.config/fish/completions/p2pdist.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(list(HINTS)))
@click.option("--json", "as_json", is_flag=True, help="Print the script as JSON.")
@click.pass_context
def completion(context: click.Context, shell: str, *, as_json: bool) -> None:
    """Print the script that completes commands and options; --help says where it goes.

    bash: add eval "$(p2pdist completion bash)" to ~/.bashrc; zsh: likewise to ~/.zshrc;
    fish: p2pdist completion fish > ~/.config/fish/completions/p2pdist.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    main = context.find_root().command
    made = kind(main, {}, "p2pdist", "_P2PDIST_COMPLETE")
    script = made.source_template % made.source_vars()
    output = Output(as_json)
    output.result({"shell": shell, "script": script, "install": HINTS[shell]})
    if not as_json:
        click.echo(script)
