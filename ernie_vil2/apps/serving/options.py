"""Options of the commands that serve, and a function that serves an application by their values."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING

from ernie_vil2.cli import EXPECTED_ERRORS, format_error, import_modules, rewrite_commands
from ernie_vil2.cli.arguments import count, input_file, port
from ernie_vil2.io.terminal import print_error

if TYPE_CHECKING:
    from ernie_vil2.apps.serving.metrics import Metrics
    from ernie_vil2.apps.serving.middleware import Access
    from ernie_vil2.apps.serving.server import Application

    ApplicationOpener = Callable[[argparse.Namespace, Metrics, Access], AbstractContextManager[Application]]


def add_server_options(parser: argparse.ArgumentParser, default_queue: int) -> None:
    """Add the options that say where a server listens and who may ask it.

    Args:
        parser: parser of the command.
        default_queue: default of --queue, which differs between commands.
    """
    # Defaults are written out here: importing the modules that define them would take longer than printing the help.
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; default: 127.0.0.1, this machine")
    parser.add_argument("--port", type=port, default=8000, help="default: 8000; 0: any free port")
    parser.add_argument("--workers", type=count, default=1, help="number of processes that share the port; default: 1")
    parser.add_argument(
        "--queue",
        type=count,
        default=default_queue,
        help="number of texts and images that may wait in a process; further ones get status 503; default: "
        f"{default_queue}",
    )
    parser.add_argument(
        "--token-file",
        type=input_file,
        metavar="FILE",
        help="file with a token, which every request except /healthz and /readyz must have",
    )
    parser.add_argument(
        "--trusted-proxy",
        nargs="+",
        action="extend",
        default=[],
        type=network,
        metavar="ADDRESS",
        help="addresses or networks (10.0.0.0/8) of proxies to trust: the limit on slow connections does not apply to "
        "them, and their X-Forwarded-For is logged",
    )
    parser.add_argument("--public", action="store_true", help="let other machines ask without a token")
    parser.add_argument(
        "--allowed-host",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="names that a request may have in its Host header, which a proxy may set; default: 127.0.0.1 and "
        "localhost, or any name if --host lets other machines ask",
    )
    parser.add_argument(
        "--root-path",
        type=root_path,
        default="",
        metavar="/PATH",
        help="path under which a proxy shows the server: https://example.com/PATH/",
    )
    parser.add_argument("--access-log", action="store_true", help="log a line for each request, without the query")
    parser.add_argument("--log-queries", action="store_true", help="log a line for each request, with the query")


def network(text: str) -> IPv4Network | IPv6Network:
    """Return the network, or the single address, that is the value of an option."""
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text} is not an address such as 10.0.0.1, nor a network such as 10.0.0.0/8"
        ) from None


def root_path(text: str) -> str:
    """Return the path of a URL, such as `/images`, that is the value of an option."""
    if not re.fullmatch(r"(/[\w.~-]+)*/?", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text} is not a path such as /images")
    return text.rstrip("/")


def serve_application(open_application: ApplicationOpener, args: argparse.Namespace) -> int:
    """Serve an application by the options of the command, and return the exit code.

    Args:
        open_application: a function of a module, which worker processes can import.
        args: values of the options.

    Raises:
        ValueError: other machines could ask without a token, or the token is too short.
    """
    from ernie_vil2.apps.serving.middleware import LOOPBACK_HOSTS, Access, read_token
    from ernie_vil2.apps.serving.server import Settings, serve

    token = read_token(args.token_file) if args.token_file else None
    is_local = args.host in LOOPBACK_HOSTS
    if not is_local and not (token or args.public):
        raise ValueError(f"--host {args.host} lets other machines ask: name a --token-file, or --public if anybody may")
    # A foreign web page may let its own host name point to a local server and so read answers (DNS rebinding). Requests
    # must therefore name one of the hosts: the local names and those of --allowed-host. A server for other machines
    # without --allowed-host accepts any name, because its names are not known here.
    default_hosts = LOOPBACK_HOSTS if is_local or args.allowed_host else ("*",)
    access = Access(
        hosts=(*default_hosts, *map(str.lower, args.allowed_host)),
        token=token,
        root_path=args.root_path,
        log_requests=args.access_log or args.log_queries,
        log_queries=args.log_queries,
    )
    settings = Settings(args.host, args.port, args.workers, access, args.trusted_proxy)
    if args.workers > 1:
        return serve(partial(_open_in_worker, open_application, args), settings)
    return serve(partial(open_application, args), settings)


@contextmanager
def _open_in_worker(
    open_application: ApplicationOpener, args: argparse.Namespace, metrics: Metrics, access: Access
) -> Iterator[Application]:
    """Open an application in a worker process.

    The worker has not run the command line, so it imports the user's modules and reports errors itself.
    """
    try:
        import_modules(args)
        with open_application(args, metrics, access) as application:
            yield application
    except EXPECTED_ERRORS as error:
        print_error(rewrite_commands(format_error(error), args.prog))
        sys.exit(2)
