import pytest

from ernie_vil2 import cli as commands


@pytest.fixture
def run_tool():
    """Return a function that runs a command in this process and returns its exit code."""

    def run(*arguments, command="tag"):
        return commands.run(command, list(map(str, arguments)))

    return run
