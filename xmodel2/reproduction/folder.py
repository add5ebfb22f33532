"""The folder of a reproduction: what it was begun as, so that it goes on as that and nothing else.

OUT/reproduction.json   {"scale": "nano", "out": "reproduction"}
"""

from xmodel2.errors import XmodelError
from xmodel2.files import LOCK_FILE, read_json, write_json_atomic
from xmodel2.reproduction.road import Road

BEGUN_FILE = "reproduction.json"


def check_out(road: Road) -> None:
    """Raise `XmodelError` if --out holds something else than a reproduction, or one that was begun otherwise."""
    out = road.out
    if out.exists() and not out.is_dir():
        raise XmodelError(f"{out}: is a file; give --out another name")
    if not out.is_dir():
        return
    if {path.name for path in out.iterdir()} - {LOCK_FILE, BEGUN_FILE} and not (out / "stages").is_dir():
        raise XmodelError(f"{out}: holds something that `xmodel2 reproduce` did not make; choose another --out")
    begun = read_json(out / BEGUN_FILE) or {}
    if begun.get("scale", road.scale.name) != road.scale.name:
        raise XmodelError(f"{out}: was begun with --scale {begun['scale']}; give that, or choose another --out")
    if begun.get("out", str(out)) != str(out):
        raise XmodelError(
            f"{out}: was begun as --out {begun['out']}, which its recipes and commands name; give it so, from the same folder"
        )


def note_out(road: Road) -> None:
    """Make the folder, and note what it is begun as."""
    (road.out / "stages").mkdir(parents=True, exist_ok=True)
    write_json_atomic(road.out / BEGUN_FILE, {"scale": road.scale.name, "out": str(road.out)})
