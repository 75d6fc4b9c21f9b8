"""Postgres's built-in types by OID and by name; every name of a type is reduced to one short name.

Identity of a type is its OID, schema and kind, never its bare name: an enum may be called `_status`, `"boolean"` or `uuid`.
- A built-in type is known by its OID; a domain over one has its bare name in pg_type, an array `_` before it. hstore too.
- Every other type is text, an array of it an array of texts: its name is `schema.name`, quoted like an identifier, and `[]`.
- Without an OID (a source that is no Postgres) a bare name may be the SQL standard's, with modifiers and `[]`.
"""

from __future__ import annotations

import re
from typing import Final

# name OID array-OID, from pg_type of PostgreSQL 18; OIDs of built-in types never change.
_BUILT_IN: Final = """
bool 16 1000, bytea 17 1001, char 18 1002, name 19 1003, int8 20 1016, int2 21 1005, int4 23 1007, regproc 24 1008,
text 25 1009, oid 26 1028, tid 27 1010, xid 28 1011, cid 29 1012, json 114 199, xml 142 143, xid8 5069 271, int2vector
22 1006, oidvector 30 1013, point 600 1017, lseg 601 1018, path 602 1019, box 603 1020, polygon 604 1027, line 628
629, cidr 650 651, float4 700 1021, float8 701 1022, circle 718 719, macaddr8 774 775, money 790 791, macaddr 829
1040, inet 869 1041, aclitem 1033 1034, bpchar 1042 1014, varchar 1043 1015, date 1082 1182, time 1083 1183, timestamp
1114 1115, timestamptz 1184 1185, interval 1186 1187, timetz 1266 1270, bit 1560 1561, varbit 1562 1563, numeric 1700
1231, refcursor 1790 2201, regprocedure 2202 2207, regoper 2203 2208, regoperator 2204 2209, regclass 2205 2210,
regtype 2206 2211, uuid 2950 2951, txid_snapshot 2970 2949, pg_lsn 3220 3221, tsvector 3614 3643, tsquery 3615 3645,
regconfig 3734 3735, regdictionary 3769 3770, jsonb 3802 3807, jsonpath 4072 4073, regnamespace 4089 4090, regrole
4096 4097, regcollation 4191 4192, pg_snapshot 5038 5039, int4range 3904 3905, numrange 3906 3907, tsrange 3908 3909,
tstzrange 3910 3911, daterange 3912 3913, int8range 3926 3927, int4multirange 4451 6150, nummultirange 4532 6151,
tsmultirange 4533 6152, tstzmultirange 4534 6153, datemultirange 4535 6155, int8multirange 4536 6157
"""

_ALIASES: Final = {
    "boolean": "bool",
    "smallint": "int2",
    "int": "int4",
    "integer": "int4",
    "bigint": "int8",
    "smallserial": "int2",
    "serial": "int4",
    "bigserial": "int8",
    "decimal": "numeric",
    "real": "float4",
    "double precision": "float8",
    "character": "bpchar",
    "character varying": "varchar",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "time without time zone": "time",
    "time with time zone": "timetz",
    "bit varying": "varbit",
}

_MODIFIER: Final = re.compile(r"\([^)]*\)")
_SPACES: Final = re.compile(r"\s+")


def _by_oid() -> dict[int, tuple[str, bool]]:
    names: dict[int, tuple[str, bool]] = {}
    for line in _BUILT_IN.split(","):
        name, oid, array_oid = line.split()
        names[int(oid)] = (name, False)
        names[int(array_oid)] = (name, True)
    return names


BY_OID: Final = _by_oid()


def catalog_name(type_oid: int) -> str:
    """The name in pg_type of a built-in type, which the stream does not send; "" for any other."""
    name, is_array = BY_OID.get(type_oid, ("", False))
    return f"_{name}" if is_array else name


def qualified_name(namespace: str, name: str) -> str:
    """The name of a type whose kind is not known: quoted, so that it is neither a built-in nor an array."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in (namespace, name))


def short_name(type_oid: int, type_name: str) -> tuple[str, bool]:
    """The short name of a type, or of an array's elements, and whether it is an array. ("", False): unknown."""
    if type_oid in BY_OID:
        return BY_OID[type_oid]
    if "." in type_name:
        return type_name.removesuffix("[]"), type_name.endswith("[]")
    name = _SPACES.sub(" ", _MODIFIER.sub("", type_name)).strip().lower()
    is_array = name.endswith("[]")
    name = name.replace("[]", "").strip('"')
    if name.startswith("_"):
        is_array, name = True, name.lstrip("_")
    return _ALIASES.get(name, name), is_array
