"""The program and its commands."""

from __future__ import annotations

import click

from ..version import VERSION
from .doctor import doctor
from .migrate import migrate
from .own import own
from .retire import retire
from .sweep import sweep
from .thumbnails import thumbnails
from .undo import undo
from .verify import verify

__all__ = ["app"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="aioimageattach", message="%(prog)s %(version)s")
def app() -> None:
    """Keep pictures and their rows in step.

    \b
    Exit codes:
      0    done, and nothing is wrong
      1    some files failed, or something is not as it should be
      2    wrong arguments; models, database or store cannot be loaded
      3    the database or a store does not respond, or refuses; or the command refuses
      4    nothing failed, but not everything may have been done: read the warnings
      130  stopped by Ctrl-C (143: by SIGTERM); run it again to go on
    """


for _command in (doctor, migrate, own, retire, sweep, thumbnails, undo, verify):
    app.add_command(_command)
