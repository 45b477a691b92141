"""Small ONNX files, written by hand: the tests need no package that makes them.

Only what the tests use of the format: float tensors, nodes with integer attributes,
one model. Field numbers are those of ``onnx.proto`` (ONNX IR 8, opset 17).
"""

import numpy as np

FLOAT = 1


def varint(number):
    out = bytearray()
    while True:
        number, low = number >> 7, number & 127
        out.append(low | (128 if number else 0))
        if not number:
            return bytes(out)


def field(number, value):
    """Encode one field: an integer, or text, bytes and messages with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name, values):
    values = np.ascontiguousarray(values, "<f4")
    dims = b"".join(field(1, size) for size in values.shape)
    return dims + field(2, FLOAT) + field(8, name) + field(9, values.tobytes())


def value_info(name, shape):
    """Describe an input or output; a size that is text is left open."""
    dims = b"".join(
        field(1, field(2 if isinstance(size, str) else 1, size)) for size in shape
    )
    tensor_type = field(1, FLOAT) + field(2, dims)
    return field(1, name) + field(2, field(1, tensor_type))


def node(kind, inputs, outputs, name="", **attributes):
    """Encode a node; its attributes are integers or lists of them."""
    parts = [field(1, one) for one in inputs] + [field(2, one) for one in outputs]
    parts += [field(3, name), field(4, kind)]
    for key, value in attributes.items():
        if isinstance(value, int):
            content = field(20, 2) + field(3, value)
        else:
            content = field(20, 7) + b"".join(field(8, one) for one in value)
        parts.append(field(5, field(1, key) + content))
    return b"".join(parts)


def model(nodes, tensors, inputs, outputs):
    """Encode a model.

    Args:
        nodes: Results of ``node``.
        tensors: Weights by name.
        inputs: Shapes by name.
        outputs: Shapes by name.
    """
    graph = b"".join(field(1, one) for one in nodes) + field(2, "tiny")
    graph += b"".join(field(5, tensor(*item)) for item in tensors.items())
    graph += b"".join(field(11, value_info(*item)) for item in inputs.items())
    graph += b"".join(field(12, value_info(*item)) for item in outputs.items())
    opset = field(1, "") + field(2, 17)
    return field(1, 8) + field(7, graph) + field(8, opset)
