"""What a trained model is opened by: something here, or a name elsewhere."""

from pathlib import Path

KINDS = (
    "an experiment folder of the recipe (with taste and vocoder), a packed .zip file, "
    "a folder with a released checkpoint, or a name of ESPnet's model zoo or the hub "
    "(owner/name)"
)


def is_name(source: str | Path) -> bool:
    """Tell the name of a model elsewhere from the path of one here.

    A name is owner/name, or the address of a file; where there is a folder called
    like the owner, a path is meant.
    """
    text = str(source)
    if "://" in text:
        return True
    owner, _, name = text.partition("/")
    if not owner or not name or "/" in name:
        return False
    return owner[0] not in ".~" and not Path(owner).exists()
