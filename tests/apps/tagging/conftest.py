import pytest

from ernie_vil2 import cli as commands


@pytest.fixture
def run_tool():
    """Calls a command line in this process; returns its exit status."""

    def run(*arguments, command="tag"):
        return commands.run(command, list(map(str, arguments)))

    return run
