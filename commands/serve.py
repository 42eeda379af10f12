"""tristream serve: run the services of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tristream.commands import options, screen
from tristream.errors import UsageError
from tristream.workspace import check_names, stream_names

FUSION = "fusion"


@screen.command
def run(
    service: Annotated[
        str | None,
        typer.Argument(
            metavar="[SERVICE]",
            help=f"{', '.join(stream_names())} or fusion; none: all of them, kept running.",
        ),
    ] = None,
    run: options.Run = options.RUN,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="To listen on.")] = 8000,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            help="Address to listen on; another than loopback needs a token (TRISTREAM_TOKEN or "
            "TRISTREAM_TOKEN_FILE).",
        ),
    ] = "127.0.0.1",
    stream: Annotated[
        list[str] | None,
        typer.Option(
            "--stream", metavar="NAME=URL", help="For fusion: service of a stream; repeat it."
        ),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--name", help="Further host name that requests may use; repeat it."),
    ] = None,
    max_mb: Annotated[int, typer.Option("--max-mb", min=1, help="Largest upload, MB.")] = 2048,
    deadline: Annotated[
        float, typer.Option("--deadline", min=0.1, help="Seconds of a request that names none.")
    ] = 30.0,
    spool: Annotated[
        Path | None,
        typer.Option("--spool", help="Folder for uploads, emptied now; default: a new one."),
    ] = None,
    device: options.Device = "auto",
    backend: options.Backend = "auto",
    workers: options.Workers = options.WORKERS,
) -> int:
    """Serve a run over HTTP: each stream and the fusion as a process of its own.

    Without SERVICE all services of the run are started on this machine, the fusion with its web page on --port, and
    restarted when one ends. docs/serve.md has the requests, units for systemd and containers.
    """
    workspace = options.existing(run, device=device, backend=backend, workers=workers)
    _check_installed()
    if service is None:
        if stream or spool:
            raise UsageError("--stream and --spool are for one SERVICE; leave them out")
        from tristream import interrupts
        from tristream.serving.supervisor import commands_for, supervise

        streams = workspace.check_trained(None)
        more = ["--host", host, "--max-mb", str(max_mb), "--deadline", str(deadline)]
        commands = commands_for(
            run, streams, port=port, options=["--device", device, "--backend", backend]
        )
        commands[FUSION] += more
        screen.note(f"the page: http://{host}:{port}/ ; Ctrl-C ends all services")
        supervise(commands, note=screen.warn, check=interrupts.check)
        return screen.OK
    from tristream.serving.config import FusionConfig, ServiceConfig, token_from_environment

    token = token_from_environment()
    config = ServiceConfig(
        host=host,
        port=port,
        token=token,
        names=tuple(names or ()),
        max_bytes=max_mb << 20,
        deadline_seconds=deadline,
        spool=spool,
    )
    screen.begin(f"serving {service} of {run} on http://{host}:{port}")
    if service == FUSION:
        from tristream.serving.fusion_app import fusion_app

        app = fusion_app(workspace, FusionConfig(_addresses(stream or []), token), config)
    else:
        from tristream.serving.stream_app import stream_app

        check_names([service])
        if stream:
            raise UsageError("--stream is for the service fusion")
        app = stream_app(workspace, service, config)
    import uvicorn

    uvicorn.run(
        app, host=host, port=port, log_level="warning", access_log=False, server_header=False
    )
    return screen.OK


def _check_installed() -> None:
    import importlib.util

    for module in ("fastapi", "uvicorn", "httpx", "prometheus_client", "python_multipart"):
        if importlib.util.find_spec(module) is None:
            raise UsageError(f"serve needs the library {module}: pip install 'tristream[serve]'")


def _addresses(given: list[str]) -> dict[str, str]:
    """Return {stream: URL}.

    Raises:
        UsageError: a word that is not NAME=URL.
    """
    addresses = {}
    for word in given:
        name, separator, url = word.partition("=")
        if not separator or not url.startswith(("http://", "https://")):
            raise UsageError(f"--stream {word} is not NAME=URL, as audio=http://127.0.0.1:8001")
        check_names([name])
        addresses[name] = url
    return addresses
