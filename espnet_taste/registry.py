"""Put classes into ESPnet's registries without importing ESPnet.

ESPnet has no plugin mechanism: a registry is a module-level ``ClassChoices``
object, and importing the module that holds it costs several seconds. A
registration is therefore kept as a hook that runs when, and only when, that
module is imported; if it already is, the hook runs at once.
"""

import importlib
from typing import Any

import wrapt

# Short names of the registries; anything else is spelled "module:attribute".
SLOTS = {
    "encoder": "espnet_taste.tasks.choices:encoder_choices",
    "aggregator": "espnet_taste.tasks.choices:aggregator_choices",
    "quantizer": "espnet_taste.tasks.choices:quantizer_choices",
    "decoder": "espnet_taste.tasks.choices:decoder_choices",
    "asr_encoder": "espnet2.tasks.asr:encoder_choices",
}
# Stock ESPnet tasks that may choose TASTE's frozen Whisper encoder.
STOCK_ENCODER = "espnet_taste.tasks.stock:TasteWhisperEncoder"
STOCK_TASKS = ("asr", "st", "s2t")


def register(slot: str, name: str, target: type | str) -> None:
    """Make a class selectable in YAML under ``name``.

    One line is enough for a third party::

        espnet_taste.register("quantizer", "fsq", "my_package.fsq:Fsq")

    Args:
        slot: A key of ``SLOTS`` or ``"module:attribute"`` of any ESPnet
            ``ClassChoices``.
        name: Name in YAML; stored in lower case, as ESPnet compares it.
        target: The class, or ``"module:Class"``, which is imported only when the
            registry is.

    Raises:
        ValueError: If the slot is unknown or the name is taken by another class.
        TypeError: If the class is not derived from the registry's base class.
            Both name checks happen when the registry's module is imported.
    """
    path = SLOTS.get(slot, slot)
    module_name, _, attribute = path.partition(":")
    if not attribute:
        raise ValueError(
            f"unknown registry '{slot}'; use one of {sorted(SLOTS)} "
            "or 'module:attribute' of a ClassChoices object"
        )

    def add(module: Any) -> None:
        _add_class(getattr(module, attribute), name.lower(), _load(target))

    wrapt.register_post_import_hook(add, module_name)


def register_builtin_classes() -> None:
    """Register what this package offers to stock ESPnet (idempotent)."""
    for task in STOCK_TASKS:
        register(
            f"espnet2.tasks.{task}:encoder_choices", "taste_whisper", STOCK_ENCODER
        )
    wrapt.register_post_import_hook(_add_inference_task, "espnet")


def _load(target: type | str) -> type:
    if isinstance(target, type):
        return target
    module_name, _, name = target.partition(":")
    return getattr(importlib.import_module(module_name), name)


def _add_class(choices: Any, name: str, cls: type) -> None:
    """Add one class; ``ClassChoices`` checks types only at construction."""
    base = choices.base_type
    if base is not None and not issubclass(cls, base):
        raise TypeError(
            f"{cls.__qualname__} cannot be registered as --{choices.name} {name}: "
            f"it must inherit {base.__module__}.{base.__qualname__}"
        )
    present = choices.classes.get(name)
    if present is not None and present is not cls:
        raise ValueError(
            f"--{choices.name} {name} is already {present.__qualname__}; "
            "register the class under another name"
        )
    choices.classes[name] = cls


def _add_inference_task(module: Any) -> None:
    """Let ``espnet.load(tag, task="taste")`` find our inference class."""
    tasks = getattr(module, "TASKS", None)
    if isinstance(tasks, dict):
        tasks.setdefault(
            "taste", ("espnet_taste.pipeline.speech", "SpeechReconstructor")
        )
