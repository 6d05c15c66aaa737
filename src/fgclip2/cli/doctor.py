"""`fgclip2 doctor`: check that this installation gives the right numbers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from . import common

EXAMPLES = """
fgclip2 doctor
fgclip2 doctor --checkpoint fg-clip2-base --coco-image 000000039769.jpg
fgclip2 doctor --checkpoint 我的模型 --json
"""


def doctor(
    checkpoint: Annotated[str | None, typer.Option(help="Folder or hub id of another checkpoint to check too.")] = None,
    coco_image: Annotated[
        Path | None,
        typer.Option(
            help="Picture 000000039769.jpg of COCO val2017, to check the regions of the official base as --checkpoint."
        ),
    ] = None,
    device: common.Device = None,
    as_json: common.AsJson = False,
) -> None:
    """Check the installation against known answers.

    Prints versions and devices, and compares what the embedded checkpoint gives here with what it gave when the package
    was made, in float32. The exit code is 1 if a check fails.
    """
    if coco_image and not checkpoint:
        raise typer.BadParameter("it needs --checkpoint, with the official base checkpoint", param_hint="--coco-image")
    from .. import diagnostics

    versions, devices = diagnostics.installed_versions(), diagnostics.available_devices()
    if not as_json:
        typer.echo("  ".join(f"{name} {version}" for name, version in versions.items()))
        for row in devices:
            typer.echo("  ".join(str(value) for value in row.values()))
    try:
        checks = [diagnostics.check_known_answers(common.load_embedder(None, device, "float32"))]
    except (ValueError, OSError) as error:  # a missing or broken checkpoint is a failed check: the others still run
        checks = [diagnostics.Check("embedded checkpoint", False, str(error))]
    if checkpoint:
        embedder = common.load_embedder(checkpoint, device, "float32")
        checks.append(diagnostics.check_checkpoint(embedder))
        if coco_image:
            checks.append(diagnostics.check_official_regions(embedder, coco_image))
    ok = all(check.ok for check in checks)
    if as_json:
        rows = [asdict(check) for check in checks]
        common.print_json({"ok": ok, "versions": versions, "devices": devices, "checks": rows})
    else:
        for check in checks:
            typer.echo(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.detail}")
    if not ok:
        raise typer.Exit(1)
