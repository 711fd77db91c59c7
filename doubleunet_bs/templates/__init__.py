"""HTML pages in one file each, for the report of a run and the report of a scan.

A page loads nothing. Its content security policy allows pictures inside the file, its own style, and no script but the
one it is rendered with, which the policy names by its hash.
"""

import base64
import functools
import hashlib
from typing import Any

import jinja2


def render_page(package: str, template: str, script: str | None = None, **values: Any) -> str:
    """Fill a template; every value is escaped.

    Args:
        package: the package with a folder `templates`, for instance "doubleunet_bs.results".
        template: the file in it. It can extend `page.html`, which has the blocks `style` and `body` and needs `title`.
        script: a JavaScript file in the same folder, taken into the page as it is; None for none.
        values: what the template names. A name that is missing is an error.

    Example:
        >>> "<title>a &lt; b</title>" in render_page("doubleunet_bs", "page.html", title="a < b")
        True
    """
    environment = _environment(package)
    text = environment.loader.get_source(environment, script)[0] if script and environment.loader else None
    digest = base64.b64encode(hashlib.sha256((text or "").encode()).digest()).decode()
    return environment.get_template(template).render(script=text, script_sha256=digest, **values)


@functools.cache
def _environment(package: str) -> jinja2.Environment:
    """Kept, since compiling a template takes longer than filling it."""
    loaders = [jinja2.PackageLoader(name) for name in dict.fromkeys((package, "doubleunet_bs"))]
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
