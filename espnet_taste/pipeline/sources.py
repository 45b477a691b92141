"""What a trained model is opened by: something here, or a name elsewhere."""

from pathlib import Path

from espnet_taste.weights.hub import first_line

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


def download_packed(name: str) -> dict[str, str]:
    """Return the files of a packed model of the zoo or the hub, by their role.

    Raises:
        FileNotFoundError: If there is no such model, or it cannot be reached.
    """
    from espnet2.utils.pretrained import download_pretrained
    from huggingface_hub.errors import HTTPError

    try:
        return download_pretrained(name)
    # The zoo says RuntimeError, its table ValueError, networks the others.
    except (OSError, RuntimeError, ValueError, HTTPError) as error:
        raise FileNotFoundError(
            f"nothing here is called '{name}', and no packed model of that name could "
            f"be had from ESPnet's model zoo or the hub ({first_line(error)}); give "
            f"{KINDS}"
        ) from error
