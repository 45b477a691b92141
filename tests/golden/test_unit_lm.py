"""The unit LM must equal the released one: logits, loss, gradients, generation.

The fixture holds what the official code computes with small random weights; every
size is read from it.
"""

import json
import re

import pytest
import torch
import torch.nn.functional as F
from reference_names import UNIT_LM_ALONE, load_unit_lm, unit_lm_name
from released_unit_lm import build_unit_lm

from espnet_taste.decoder.contracts import UnitSampling
from espnet_taste.decoder.generation import UnitStepper, prompt_layout, unit_bounds
from espnet_taste.decoder.layout import NUM_SPECIAL, Row, pack_rows, whole_rows
from espnet_taste.decoder.unit_lm import UnitLM
from espnet_taste.types import IGNORE

GREEDY = UnitSampling(top_k=1)
GRADIENTS = {
    "fusion_weights": "fusion.weights",
    "llm_embedding": "special_embedding.weight",
    "text_encoder_input_weight": "text_encoder.input_layer.0.weight",
    "speech_embedding": "unit_embedding.weight",
}
POSITION_BIAS = re.compile(r"llm_layer(\d+)_(pos_bias_[uv])")


@pytest.fixture
def case(golden):
    return golden("speech_decoder")


@pytest.fixture
def unit_lm(case):
    state = case.state("speech_decoder.")
    model = build_unit_lm(case.config, len(state["audio_embed_affine_layer.bias"]))
    load_unit_lm(model, state)
    return model.eval()


@pytest.fixture
def layout(case, unit_lm):
    return whole_rows(
        case.input("asr_token_lengths"),
        case.input("speech_token_ids"),
        case.input("speech_token_lengths"),
        num_tokens=case.input("asr_token_ids").size(1),
        num_units=unit_lm.num_units,
    )


@pytest.fixture
def condition(case):
    """Tokens, TASTE and speaker of the batch."""
    return [
        case.input(name) for name in ("asr_token_ids", "taste_embeds", "speaker_embeds")
    ]


def packed_layout(case, unit_lm):
    tokens, lengths = case.input("asr_token_ids"), case.input("asr_token_lengths")
    units, unit_lengths = (
        case.input("speech_token_ids"),
        case.input("speech_token_lengths"),
    )
    rows = [
        Row(i, 0, int(lengths[i]), units[i, : unit_lengths[i]].numpy(), ends=True)
        for i in range(len(tokens))
    ]
    return pack_rows(
        rows,
        num_tokens=tokens.size(1),
        num_units=unit_lm.num_units,
        max_positions=10**6,
    )


@torch.no_grad()
def test_every_station_of_the_forward_pass(case, unit_lm, layout, condition):
    tokens, taste, speaker = condition
    is_text, is_lm = layout.text_rows != IGNORE, layout.lm_rows != IGNORE

    text = unit_lm.encode_text(tokens, layout)
    taste = unit_lm.encode_taste(taste, layout)
    fused = unit_lm.fusion(taste, text)
    inputs = unit_lm.gather_inputs(fused, speaker, layout)
    hidden = unit_lm.encode_units(inputs, layout)

    case.check("text_encoded", text, is_text)
    case.check("taste_encoded", taste, is_text)
    case.check("fused", fused, is_text)
    case.check("lm_input", inputs, is_lm)
    case.check("lm_hidden", hidden, is_lm)
    case.check("lm_lengths", is_lm.sum(1))


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "text_only."])
def test_logits_and_labels(case, unit_lm, layout, condition, prefix):
    tokens, taste, speaker = condition

    logits = unit_lm(tokens, None if prefix else taste, speaker, layout)

    case.check(f"{prefix}logits", logits, layout.lm_rows != IGNORE)
    case.check(f"{prefix}labels", layout.labels)


@torch.no_grad()
def test_packed_rows_give_the_same_logits(case, unit_lm, condition):
    layout = packed_layout(case, unit_lm)
    expected, lengths = case.output("logits"), case.output("lm_lengths")

    logits = unit_lm(*condition, layout)

    entry = case.info["outputs"]["logits"]
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(
            logits[layout.lm_rows == row],
            expected[row, :length],
            atol=entry["atol"],
            rtol=entry["rtol"],
        )


@pytest.mark.parametrize("packed", [False, True])
def test_loss_and_gradients(case, unit_lm, layout, condition, packed):
    tokens, taste, speaker = condition
    taste.requires_grad_()
    if packed:
        layout = packed_layout(case, unit_lm)

    logits = unit_lm.train()(tokens, taste, speaker, layout)
    loss = F.cross_entropy(
        logits.flatten(0, 1), layout.labels.flatten(), ignore_index=IGNORE
    )
    loss.backward()

    case.check("loss", loss)
    names = case.output_names("grad.")
    assert names
    for name in names:
        parameter = name.removeprefix("grad.")
        value = taste if parameter == "taste_embeds" else weight(unit_lm, parameter)
        case.check(name, value.grad)


def weight(unit_lm, name):
    """Look up the parameter that a gradient of the case is of."""
    if layer := POSITION_BIAS.fullmatch(name):
        number, bias = layer.groups()
        return unit_lm.get_parameter(f"unit_encoder.layers.{number}.self_attn.{bias}")
    return unit_lm.get_parameter(GRADIENTS[name])


def test_text_only_loss(case, unit_lm, layout, condition):
    tokens, _, speaker = condition

    logits = unit_lm.train()(tokens, None, speaker, layout)
    loss = F.cross_entropy(
        logits.flatten(0, 1), layout.labels.flatten(), ignore_index=IGNORE
    )

    case.check("text_only.loss", loss)


@torch.no_grad()
def test_incremental_decoding(case, unit_lm, condition):
    tokens, taste, speaker = (value[:1] for value in condition)
    lengths = case.input("asr_token_lengths")[:1].long()
    units = case.input("speech_token_ids")[0, : case.input("speech_token_lengths")[0]]
    prompts = prompt_layout(lengths, tokens.size(1), unit_lm.num_units)
    prompt = unit_lm.gather_inputs(
        unit_lm.encode_condition(tokens, taste, prompts), speaker, prompts
    )[:, : NUM_SPECIAL + lengths[0]]
    stepper = UnitStepper(unit_lm, 1, prompt.size(1) + len(units))

    hidden = [stepper.read_prompt(prompt, NUM_SPECIAL + lengths)]
    hidden += [stepper.read_units(unit[None]) for unit in units]
    hidden = torch.cat(hidden)

    case.check("incremental.prompt", prompt[0])
    case.check("incremental.hidden_last", hidden)
    case.check("incremental.log_probs", unit_lm.output(hidden).log_softmax(-1))


@torch.no_grad()
def test_whole_pass_of_the_incremental_sample(case, unit_lm, condition):
    """What decoding unit by unit must agree with."""
    lengths, unit_lengths = (
        case.input(name)[:1] for name in ("asr_token_lengths", "speech_token_lengths")
    )
    tokens, taste = (value[:1, : lengths[0]] for value in condition[:2])
    layout = whole_rows(
        lengths,
        case.input("speech_token_ids")[:1, : unit_lengths[0]],
        unit_lengths,
        num_tokens=tokens.size(1),
        num_units=unit_lm.num_units,
    )

    fused = unit_lm.encode_condition(tokens, taste, layout)
    inputs = unit_lm.gather_inputs(fused, condition[2][:1], layout)
    hidden = unit_lm.encode_units(inputs, layout)[0]

    case.check("incremental.full_hidden", hidden)
    last = case.output("incremental.full_hidden")[-len(hidden) + prompt_size(case) :]
    case.check("incremental.hidden_last", last)


def prompt_size(case):
    """Positions before the last one of the prompt."""
    return len(case.output("incremental.prompt")) - 1


@pytest.mark.parametrize("name", ["greedy", "greedy_text_only"])
def test_greedy_generation(case, unit_lm, name):
    taste = None if name.endswith("text_only") else case.input("greedy.taste_embeds")
    lengths = case.input("greedy.asr_token_lengths")

    generated = unit_lm.generate(
        case.input("greedy.asr_token_ids"),
        lengths,
        taste,
        case.input("greedy.speaker_embeds"),
        sampling=GREEDY,
    )

    case.check(f"{name}.units", generated.units[0])
    assert generated.has_ended.all()
    least, most = unit_bounds(lengths, GREEDY)
    case.check(f"{name}.min_len", least[0])
    case.check(f"{name}.max_len", most[0])


def test_released_length_bounds(golden):
    """Reference defect C15, kept by name: the prompt is counted, not the text."""
    rule = torch.tensor(golden("logic_schedules").info["s3_bounds"])

    least, most = unit_bounds(rule[:, 0], UnitSampling(bounds="prompt"))

    assert torch.stack([rule[:, 0], least, most], dim=1).equal(rule)


def test_released_size_has_the_released_parameters(golden_dir):
    """The default sizes are the released ones, name for name and shape for shape."""
    path = golden_dir / "full_keys.json"
    if not path.exists():
        pytest.skip(f"the golden fixtures in {golden_dir} have no full_keys.json")
    keys = json.loads(path.read_text(encoding="utf-8"))
    prefix = "speech_decoder."
    expected = {
        unit_lm_name(name): tuple(shape)
        for name, (shape, _) in keys.items()
        if name.startswith(prefix)
    }
    vocabulary, units, taste, speaker = (
        expected[f"{name}.weight"]
        for name in (
            "text_embedding",
            "unit_embedding",
            "taste_projection",
            "speaker_projection",
        )
    )

    with torch.device("meta"):
        model = UnitLM(units[0], vocabulary[0], taste[1], speaker_dim=speaker[1])

    ours = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    del ours[UNIT_LM_ALONE]
    assert ours == expected
