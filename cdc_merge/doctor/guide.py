"""The generated documentation of checks and grants.

`python -m cdc_merge.doctor.guide` writes docs/dba-guide.md between its marks, and deploy/postgres/grants-*.sql.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cdc_merge.doctor.check_list import FAMILIES
from cdc_merge.doctor.grants import PLATFORMS, PROPOSED_ROLE, grants
from cdc_merge.doctor.source_facts import Subject

BEGIN: Final = "<!-- checks: made by python -m cdc_merge.doctor.guide -->"
END: Final = "<!-- end of checks -->"
GUIDE: Final = Path("docs") / "dba-guide.md"
SCRIPTS: Final = Path("deploy") / "postgres"
EXAMPLE: Final = Subject(
    "crm", "cdc_merge_crm", "cdc_merge", tables={"app.customer": ("customer_no",), "app.sales_order": ("order_no",)}
)


def checks() -> str:
    """One section per check, by family."""
    lines: list[str] = []
    for family, family_checks in FAMILIES.items():
        lines += [f"### {family}", ""]
        for check in family_checks:
            lines += [f"#### {check.code}", "", f"**{check.title}.** {check.why}", ""]
    return "\n".join(lines)


def guide(text: str) -> str:
    """The guide with its generated part renewed."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{checks()}\n{END}{after}"


def scripts() -> Mapping[str, str]:
    """File name → example script of one platform; `cdc-merge source grants` prints the same for a configuration."""
    head = "-- An example. `cdc-merge source grants --platform {platform}` prints this for your own configuration.\n"
    return {
        f"grants-{platform}.sql": head.format(platform=platform)
        + "\n".join(grants(EXAMPLE, PROPOSED_ROLE, "crm", platform))
        + "\n"
        for platform in PLATFORMS
    }


def main() -> None:
    GUIDE.write_text(guide(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
    for name, text in scripts().items():
        (SCRIPTS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
