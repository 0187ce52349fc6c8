"""
Write the CRDs of ``deploy/crds``: what users, the controller and agents write.

What it is: the three definitions as data, with what they share said once, and limits
taken from the parser.  A test runs it and compares; after a change run
``python scripts/crds``.

What it is not: a part of the product; clusters get the YAML files.

CEL rules use plain functions only, for servers from 1.25 on, and look into bounded
lists only, so that their estimated cost stays in a server's budget.
"""

import sys
from pathlib import Path

import yaml
from egressnodes import egress_node
from parts import Json
from policies import gateway_policy, nat_policy

FOLDER = Path(__file__).parents[2] / "deploy" / "crds"

HEAD = "# Written by scripts/crds; change it there.\n"
BEYOND_SCHEMA = """\
#
# What no schema can say, and src/outgate/policy refuses beside what stands here (a test
# compares the two): host bits in a network (10.0.0.1/8), IPv4 addresses written as IPv6
# (::ffff:192.0.2.1), keys of matchLabels that are no label keys, and unknown fields,
# which an API server prunes, or refuses when asked to validate strictly.
# The other way round, null for an optional field is no field to src/outgate/policy.
"""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        """Write what occurs twice twice, as API servers want it."""
        return True


def write(folder: Path) -> None:
    """Write one file per definition into *folder*."""
    for crd, comment in (
        (nat_policy(), HEAD + BEYOND_SCHEMA),
        (gateway_policy(), HEAD + BEYOND_SCHEMA),
        (egress_node(), HEAD),
    ):
        plural = crd["spec"]["names"]["plural"]
        (folder / f"{plural}.yaml").write_text(comment + _to_yaml(crd))


def _to_yaml(crd: Json) -> str:
    return yaml.dump(crd, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=88)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
