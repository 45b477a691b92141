"""Packed models of ESPnet's model zoo and the hub, by name."""

from typing import Any

from espnet_taste.weights.hub import first_line


def download_packed(name: str, what_else: str) -> dict[str, Any]:
    """Return the files of a packed model, by their role.

    Args:
        name: Name of the model.
        what_else: What the caller takes besides, for the message.

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
            f"{what_else}"
        ) from error
