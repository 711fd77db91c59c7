"""HTML pages in one file each, for the report of a run and the report of a scan.

A page loads nothing and runs nothing: its content security policy allows pictures inside the file and its own style.
"""

import functools
from typing import Any

import jinja2


def render_page(package: str, template: str, **values: Any) -> str:
    """Fill a template; every value is escaped.

    Args:
        package: the package with a folder `templates`, for instance "doubleunet_bs.results".
        template: the file in it. It can extend `page.html`, which has the blocks `style` and `body` and needs `title`.
        values: what the template names. A name that is missing is an error.

    Example:
        >>> "<title>a &lt; b</title>" in render_page("doubleunet_bs", "page.html", title="a < b")
        True
    """
    return _environment(package).get_template(template).render(**values)


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
