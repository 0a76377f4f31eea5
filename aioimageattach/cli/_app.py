"""The program and its commands."""

from __future__ import annotations

import click

from ..version import VERSION
from ._doctor import doctor
from ._migrate import migrate
from ._own import own
from ._retire import retire
from ._sweep import sweep
from ._thumbnails import thumbnails
from ._undo import undo
from ._verify import verify

__all__ = ["app"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="aioimageattach", message="%(prog)s %(version)s")
def app() -> None:
    """Keep image files consistent with their rows.

    \b
    Exit codes:
      0    success, no problems found
      1    some files failed, or problems were found
      2    wrong arguments, or the models, the database or the store cannot be loaded
      3    the database or a store failed or did not respond, or the command refused to run
      4    nothing failed, but the run may be incomplete: read the warnings
      130  stopped by Ctrl-C (143: by SIGTERM); run the command again to continue
    """


for _command in (doctor, migrate, own, retire, sweep, thumbnails, undo, verify):
    app.add_command(_command)
