"""Flow and HiFT of CosyVoice-300M: their tensors, their files.

The released model carries them as ``voice_generator.pth``, CosyVoice as ``flow.pt`` and
``hift.pt`` without the prefixes ``flow.`` and ``hift.``. Names stay as they are.

Source: CosyVoice-300M (arXiv:2407.05407).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from espnet_taste.convert.errors import (
    CheckpointError,
    DamagedFile,
    TensorMismatch,
    UnsafePickle,
    some,
)
from espnet_taste.convert.tensors import check_finite, list_file
from espnet_taste.weights.convert_torch import load_pickle

Shape = tuple[int, ...]

RELEASED_FILE = Path("cosyvoice") / "voice_generator.pth"
PREFIXES = ("flow.", "hift.")

# Name to shape; {a,b} stands for each of the pieces, {0-3} for each of the numbers.
_ESTIMATOR = "flow.decoder.estimator."
_MID = ",".join(f"mid_blocks.{number}" for number in range(12))
_RESNETS = f"{{down_blocks.0,down_blocks.1,{_MID},up_blocks.0,up_blocks.1}}"
_FLOW: dict[str, Shape] = {
    "input_embedding.weight": (4096, 512),
    "spk_embed_affine_layer.weight": (80, 192),
    "{spk_embed_affine_layer,encoder_proj}.bias": (80,),
    "encoder_proj.weight": (80, 512),
    "encoder.embed.out.0.weight": (512, 512),
    "encoder.embed.out.{0.bias,1.weight,1.bias}": (512,),
    "encoder.after_norm.{weight,bias}": (512,),
    "encoder.encoders.{0-5}.self_attn.pos_bias_{u,v}": (8, 64),
    "encoder.encoders.{0-5}.self_attn.linear_{q,k,v,out,pos}.weight": (512, 512),
    "encoder.encoders.{0-5}.self_attn.linear_{q,k,v,out}.bias": (512,),
    "encoder.encoders.{0-5}.feed_forward.w_1.weight": (2048, 512),
    "encoder.encoders.{0-5}.feed_forward.w_1.bias": (2048,),
    "encoder.encoders.{0-5}.feed_forward.w_2.weight": (512, 2048),
    "encoder.encoders.{0-5}.feed_forward.w_2.bias": (512,),
    "encoder.encoders.{0-5}.norm_{ff,mha}.{weight,bias}": (512,),
    "length_regulator.model.{0,3,6,9}.weight": (80, 80, 3),
    "length_regulator.model.{0,3,6,9,12}.bias": (80,),
    "length_regulator.model.{1,4,7,10}.{weight,bias}": (80,),
    "length_regulator.model.12.weight": (80, 80, 1),
}
_VELOCITY: dict[str, Shape] = {
    "time_mlp.linear_1.weight": (1024, 320),
    "time_mlp.linear_2.weight": (1024, 1024),
    "time_mlp.linear_{1,2}.bias": (1024,),
    f"{_RESNETS}.0.mlp.1.weight": (256, 1024),
    f"{_RESNETS}.0.{{mlp.1,res_conv}}.bias": (256,),
    f"{_RESNETS}.0.block{{1,2}}.block.{{0.bias,1.weight,1.bias}}": (256,),
    f"{_RESNETS}.0.block2.block.0.weight": (256, 256, 3),
    "down_blocks.0.0.block1.block.0.weight": (256, 320, 3),
    f"{{down_blocks.1,{_MID}}}.0.block1.block.0.weight": (256, 256, 3),
    "up_blocks.{0-1}.0.block1.block.0.weight": (256, 512, 3),
    "down_blocks.0.0.res_conv.weight": (256, 320, 1),
    f"{{down_blocks.1,{_MID}}}.0.res_conv.weight": (256, 256, 1),
    "up_blocks.{0-1}.0.res_conv.weight": (256, 512, 1),
    f"{_RESNETS}.1.{{0-3}}.norm{{1,3}}.{{weight,bias}}": (256,),
    f"{_RESNETS}.1.{{0-3}}.attn1.to_{{q,k,v}}.weight": (512, 256),
    f"{_RESNETS}.1.{{0-3}}.attn1.to_out.0.weight": (256, 512),
    f"{_RESNETS}.1.{{0-3}}.{{attn1.to_out.0,ff.net.2}}.bias": (256,),
    f"{_RESNETS}.1.{{0-3}}.ff.net.0.proj.weight": (1024, 256),
    f"{_RESNETS}.1.{{0-3}}.ff.net.0.proj.bias": (1024,),
    f"{_RESNETS}.1.{{0-3}}.ff.net.2.weight": (256, 1024),
    "{down,up}_blocks.{0.2.conv,1.2}.bias": (256,),
    "{down_blocks.0.2.conv,down_blocks.1.2,up_blocks.1.2}.weight": (256, 256, 3),
    "up_blocks.0.2.conv.weight": (256, 256, 4),
    "final_block.block.0.weight": (256, 256, 3),
    "final_block.block.{0.bias,1.weight,1.bias}": (256,),
    "final_proj.weight": (80, 256, 1),
    "final_proj.bias": (80,),
}
# Convolutions with weight normalisation: name to (out, in, kernel).
_NORMALISED: dict[str, Shape] = {
    "conv_pre": (512, 80, 7),
    "conv_post": (18, 128, 7),
    "f0_predictor.condnet.0": (512, 80, 3),
    "f0_predictor.condnet.{2,4,6,8}": (512, 512, 3),
}
_HIFT: dict[str, Shape] = {
    "m_source.l_linear.weight": (1, 9),
    "m_source.l_linear.bias": (1,),
    "source_downs.0.weight": (256, 18, 16),
    "source_downs.0.bias": (256,),
    "source_downs.1.weight": (128, 18, 1),
    "source_downs.1.bias": (128,),
    # Transposed: (in, out, kernel), and the bias is as wide as the output.
    "ups.0.weight_v": (512, 256, 16),
    "ups.0.weight_g": (512, 1, 1),
    "ups.0.bias": (256,),
    "ups.1.weight_v": (256, 128, 16),
    "ups.1.weight_g": (256, 1, 1),
    "ups.1.bias": (128,),
    "f0_predictor.classifier.weight": (1, 512),
    "f0_predictor.classifier.bias": (1,),
}
# Residual blocks: name to (width, kernel).
_BLOCKS = {
    "source_resblocks.0": (256, 7),
    "source_resblocks.1": (128, 11),
    **{f"resblocks.{i}": (256, k) for i, k in zip((0, 1, 2), (3, 7, 11))},
    **{f"resblocks.{i}": (128, k) for i, k in zip((3, 4, 5), (3, 7, 11))},
}


def expected_shapes() -> dict[str, Shape]:
    """Return every tensor of flow and HiFT and its shape."""
    templates = {"flow." + name: shape for name, shape in _FLOW.items()}
    templates |= {_ESTIMATOR + name: shape for name, shape in _VELOCITY.items()}
    templates |= {"hift." + name: shape for name, shape in _HIFT.items()}
    normalised = {"hift." + name: shape for name, shape in _NORMALISED.items()}
    for block, (width, kernel) in _BLOCKS.items():
        normalised[f"hift.{block}.convs{{1,2}}.{{0-2}}"] = (width, width, kernel)
        templates[f"hift.{block}.activations{{1,2}}.{{0-2}}.alpha"] = (width,)
    for name, shape in normalised.items():
        templates[name + ".weight_v"] = shape
        templates[name + ".weight_g"] = (shape[0], 1, 1)
        templates[name + ".bias"] = (shape[0],)
    return {n: shape for name, shape in templates.items() for n in _expand(name)}


def _expand(template: str) -> Iterator[str]:
    """Yield the names that a template stands for."""
    found = re.search(r"\{(.*?)\}", template)
    if found is None:
        yield template
        return
    pieces = found.group(1).split(",")
    span = re.fullmatch(r"(\d+)-(\d+)", found.group(1))
    if span is not None:
        pieces = [str(number) for number in range(int(span[1]), int(span[2]) + 1)]
    before, after = template[: found.start()], template[found.end() :]
    for piece, rest in product(pieces, _expand(after)):
        yield before + piece + rest


def read_voice_generator(
    files: Sequence[Path], expected: Mapping[str, Shape] | None = None
) -> dict[str, Tensor]:
    """Read flow and HiFT and check that they are complete.

    Args:
        files: ``voice_generator.pth``, or ``flow.pt`` and ``hift.pt``, or a safetensors
            file of our layout.
        expected: Name to shape; None for those of CosyVoice-300M.

    Returns:
        Name, with its prefix, to tensor.

    Raises:
        FileNotFoundError: If a file is absent.
        DamagedFile: If one cannot be read.
        UnsafePickle: If one would run code.
        TensorMismatch: If tensors are missing, unknown or of another shape.
        NotFinite: If one holds NaN.
    """
    state: dict[str, Tensor] = {}
    for path in files:
        loaded = _load(path)
        for name, tensor in loaded.items():
            check_finite(name, tensor, path)
        state |= loaded
    _refuse_other_tensors(
        state, expected_shapes() if expected is None else expected, files
    )
    return state


def _refuse_other_tensors(
    state: Mapping[str, Tensor], expected: Mapping[str, Shape], files: Sequence[Path]
) -> None:
    faults = {
        "missing": [n for n in expected if n not in state],
        "unknown": [n for n in state if n not in expected],
        "of another shape": [
            f"{n} {tuple(state[n].shape)} instead of {shape}"
            for n, shape in expected.items()
            if n in state and tuple(state[n].shape) != shape
        ],
    }
    listed = [f"{kind}: {some(names)}" for kind, names in faults.items() if names]
    if listed:
        raise TensorMismatch(
            f"{', '.join(map(str, files))}: not the voice generator of CosyVoice-300M; "
            f"{'; '.join(listed)}. Give voice_generator.pth, or flow.pt and hift.pt"
        )


def _load(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        list_file(path)  # names what is wrong with the file
        return load_file(path)
    state = load_tensors_only(path)
    if all(name.startswith(PREFIXES) for name in state):
        return state
    prefix = f"{path.stem}."
    if prefix not in PREFIXES:
        raise CheckpointError(
            f"{path}: tensors have no prefix flow. or hift., so the file must be "
            "called flow.pt or hift.pt; rename it"
        )
    return {prefix + name: tensor for name, tensor in state.items()}


def load_tensors_only(path: Path) -> dict[str, Tensor]:
    """Load a pickle that holds a dictionary of tensors and nothing else.

    Raises:
        FileNotFoundError: If there is no such file.
        UnsafePickle: If it would run code; none of it is run.
        DamagedFile: If it is damaged or holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        state = load_pickle(path)
    except ValueError as error:
        code = re.search(
            r"GLOBAL (\S+)|Unsupported (?:class|operand)", str(error.__cause__)
        )
        if code:
            raise UnsafePickle(
                f"{path} holds more than tensors ({code.group(1) or code.group()}); "
                "loading it could run code, so it was not; get the file from its "
                "authors"
            ) from error
        raise DamagedFile(
            f"{path} is truncated or no PyTorch checkpoint; fetch it again"
        ) from error
    is_state = isinstance(state, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor)
        for name, value in state.items()
    )
    if not is_state:
        raise DamagedFile(f"{path} holds no dictionary of tensors; fetch it again")
    return state


def write_voice_generator(state: Mapping[str, Tensor], path: Path) -> None:
    """Write flow and HiFT.

    Args:
        state: Name, with its prefix, to tensor.
        path: A ``.pth`` file, as the released model has, or a ``.safetensors`` file,
            as we have; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".safetensors":
        torch.save(dict(state), path)
        return
    plain = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(plain, path, metadata={"format": "pt"})
