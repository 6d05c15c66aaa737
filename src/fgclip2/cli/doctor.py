"""`fgclip2 doctor`: does this installation give the right numbers?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import common

if TYPE_CHECKING:
    from ..diagnostics import Check

EXAMPLES = """
fgclip2 doctor
fgclip2 doctor --checkpoint fg-clip2-base --coco-image 000000039769.jpg
fgclip2 doctor --checkpoint 我的模型 --json
"""


def doctor(
    checkpoint: Annotated[str | None, typer.Option(help="Also check this checkpoint: folder or hub id.")] = None,
    coco_image: Annotated[
        Path | None,
        typer.Option(help="COCO val2017 000000039769.jpg: --checkpoint is the official base, check its regions."),
    ] = None,
    device: common.Device = None,
    as_json: common.AsJson = False,
) -> None:
    """Check the installation against known answers.

    Prints versions and devices, and what the embedded checkpoint gives here compared with what it gave when the package
    was made, in float32. Exit code 1 if a check fails.
    """
    if coco_image and not checkpoint:
        raise typer.BadParameter("needs --checkpoint, the official base checkpoint", param_hint="--coco-image")
    from .. import diagnostics

    versions, devices = diagnostics.installed_versions(), diagnostics.available_devices()
    if not as_json:
        typer.echo("  ".join(f"{name} {version}" for name, version in versions.items()))
        for each in devices:
            typer.echo("  ".join(str(value) for value in each.values()))
    checks = _run_checks(checkpoint, coco_image, device)
    ok = all(check.ok for check in checks)
    if as_json:
        rows = [asdict(check) for check in checks]
        common.print_json({"ok": ok, "versions": versions, "devices": devices, "checks": rows})
    else:
        for check in checks:
            typer.echo(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.detail}")
    if not ok:
        raise typer.Exit(1)


def _run_checks(checkpoint: str | None, coco_image: Path | None, device: str | None) -> list[Check]:
    from .. import diagnostics

    checks = [_check_embedded(device)]
    if checkpoint:
        embedder = common.load_embedder(checkpoint, device, "float32")
        checks.append(diagnostics.check_checkpoint(embedder))
        if coco_image:
            checks.append(diagnostics.check_official_regions(embedder, coco_image))
    return checks


def _check_embedded(device: str | None) -> Check:
    """A missing or broken embedded checkpoint is a failed check, so that the others still run."""
    from .. import diagnostics

    try:
        return diagnostics.check_known_answers(common.load_embedder(None, device, "float32"))
    except (ValueError, OSError) as error:
        return diagnostics.Check("embedded checkpoint", False, str(error))
