# SPDX-License-Identifier: Apache-2.0
"""MDS shards as mosaicml-streaming 0.13 writes them, which cannot be installed beside this package."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

_PACKED = {"domain": "str", "indices": "ndarray:uint32", "input_ids": "ndarray:uint32", "length": "int"}
SHARDS: dict[str, tuple[dict[str, str], str]] = {
    "proc0-2": (
        _PACKED,
        (
            "AQAAABMBAABUAQAAeyJjb2x1bW5fZW5jb2RpbmdzIjogWyJzdHIiLCAibmRhcnJheTp1aW50MzIiLCAibmRhcnJheTp1aW50MzIiLCAiaW50"
            "Il0sICJjb2x1bW5fbmFtZXMiOiBbImRvbWFpbiIsICJpbmRpY2VzIiwgImlucHV0X2lkcyIsICJsZW5ndGgiXSwgImNvbHVtbl9zaXplcyI6"
            "IFtudWxsLCBudWxsLCBudWxsLCA4XSwgImNvbXByZXNzaW9uIjogbnVsbCwgImZvcm1hdCI6ICJtZHMiLCAiaGFzaGVzIjogW10sICJzaXpl"
            "X2xpbWl0IjogNjcxMDg4NjQsICJ2ZXJzaW9uIjogMn0EAAAAEwAAABYAAABib29rCAICAAAAAAIAAAACAAAABQAAAAQFBQAAAAYAAAAHAAAA"
            "CAAAAAkAAAAFAAAAAAAAAA=="
        ),
    ),
    "proc1-2": (
        _PACKED,
        (
            "AQAAABMBAABEAQAAeyJjb2x1bW5fZW5jb2RpbmdzIjogWyJzdHIiLCAibmRhcnJheTp1aW50MzIiLCAibmRhcnJheTp1aW50MzIiLCAiaW50"
            "Il0sICJjb2x1bW5fbmFtZXMiOiBbImRvbWFpbiIsICJpbmRpY2VzIiwgImlucHV0X2lkcyIsICJsZW5ndGgiXSwgImNvbHVtbl9zaXplcyI6"
            "IFtudWxsLCBudWxsLCBudWxsLCA4XSwgImNvbXByZXNzaW9uIjogbnVsbCwgImZvcm1hdCI6ICJtZHMiLCAiaGFzaGVzIjogW10sICJzaXpl"
            "X2xpbWl0IjogNjcxMDg4NjQsICJ2ZXJzaW9uIjogMn0EAAAACwAAAA4AAABib29rCAECAAAAAAMAAAAEAwkAAAAIAAAABwAAAAMAAAAAAAAA"
        ),
    ),
    "pkl": (
        {"indices": "pkl", "input_ids": "ndarray", "mask": "ndarray:uint8"},
        (
            "AQAAAPUAAAA9AQAAeyJjb2x1bW5fZW5jb2RpbmdzIjogWyJwa2wiLCAibmRhcnJheSIsICJuZGFycmF5OnVpbnQ4Il0sICJjb2x1bW5fbmFt"
            "ZXMiOiBbImluZGljZXMiLCAiaW5wdXRfaWRzIiwgIm1hc2siXSwgImNvbHVtbl9zaXplcyI6IFtudWxsLCBudWxsLCBudWxsXSwgImNvbXBy"
            "ZXNzaW9uIjogbnVsbCwgImZvcm1hdCI6ICJtZHMiLCAiaGFzaGVzIjogW10sICJzaXplX2xpbWl0IjogNjcxMDg4NjQsICJ2ZXJzaW9uIjog"
            "Mn0cAAAAGwAAAAUAAACABJURAAAAAAAAAF2UKEsASwGGlEsBSwOGlGUuQQQDBQAAAAAAAAAGAAAAAAAAAAcAAAAAAAAABAMBAQE="
        ),
    ),
}
"""Of folders: columns with their encodings, and the bytes of the shard."""


def write_shards(folder: Path, name: str) -> dict[str, Any]:
    """Write `folder/name` with its shard and its index, and return the description of the shard."""
    columns, encoded = SHARDS[name]
    data = b64decode(encoded)
    shard = {
        "column_encodings": [*columns.values()],
        "column_names": [*columns],
        "column_sizes": [8 if encoding == "int" else None for encoding in columns.values()],
        "compression": None,
        "format": "mds",
        "hashes": [],
        "raw_data": {"basename": "shard.00000.mds", "bytes": len(data), "hashes": {}},
        "samples": 1,
        "size_limit": 1 << 26,
        "version": 2,
        "zip_data": None,
    }
    (folder / name).mkdir(parents=True)
    (folder / name / "shard.00000.mds").write_bytes(data)
    write_index(folder / name, shard)
    return shard


def write_index(folder: Path, *shards: dict[str, Any]) -> None:
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": shards}))
