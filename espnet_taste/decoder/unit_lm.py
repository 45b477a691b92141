"""Language model of speech units, conditioned on text, TASTE and a speaker.

A row reads [start, speaker, fused text and TASTE a token, task, units]; from the
task position on, every position predicts the next unit, the last one the end.

Symbols: U utterances, Ta tokens, S units, D width, C = num_units + 1 classes, (P, L)
positions of a layout, (Pt, Lt) its text positions.

Source: TASTE (arXiv:2504.07053), speech decoder, which follows the LM of CosyVoice
(arXiv:2407.05407). Names in released checkpoints: ``convert/names.py``.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnet_taste.decoder.contracts import (
    AbsUnitDecoder,
    GeneratedUnits,
    UnitSampling,
)
from espnet_taste.decoder.generation import generate_units
from espnet_taste.decoder.layout import Kind, UnitLMLayout
from espnet_taste.decoder.text_embedding import FrozenTextEmbedding
from espnet_taste.layers.attention_guide import AttentionGuide
from espnet_taste.layers.causal_encoder import CausalEncoder
from espnet_taste.layers.fusion import WeightedFusion
from espnet_taste.sampling import RandomSource


class UnitLM(AbsUnitDecoder):
    """Predict the next speech unit; the default sizes are the released ones.

    Args:
        num_units: Number of units.
        text_vocab_size: Number of text tokens.
        taste_dim: Width of the TASTE embeddings.
        speaker_dim: Width of the speaker embeddings; they are L2-normalised here.
        text_dim: Width of a text embedding.
        taste_input_dim: Width to which TASTE embeddings are projected first.
        width: D.
        heads: Attention heads of the unit LM.
        text_heads: Those of the text encoder; None for ``heads``.
        taste_heads: Those of the TASTE encoder; None for ``heads``.
        feedforward: Hidden width of the unit LM's feed-forward blocks.
        text_feedforward: The same of the text encoder; None for ``feedforward``.
        taste_feedforward: The same of the TASTE encoder; None for ``feedforward``.
        text_layers: Layers of the text encoder.
        taste_layers: Layers of the TASTE encoder.
        lm_layers: Layers of the unit LM.
        dropout: Dropout of all encoders.
        text_embedding: None learns a table (released); the name of a Whisper
            checkpoint takes its table, frozen, and learns a projection: a table of
            its own over-fits a small corpus.
        fusion_init: Initial weights of the fusion, ``"balance"`` (released) or
            ``"zero_audio"``.
        fusion_normalize: Normalise text and TASTE before they are fused.
    """

    def __init__(
        self,
        num_units: int,
        text_vocab_size: int,
        taste_dim: int,
        *,
        speaker_dim: int,
        text_dim: int = 512,
        taste_input_dim: int = 512,
        width: int = 1024,
        heads: int = 8,
        text_heads: int | None = None,
        taste_heads: int | None = None,
        feedforward: int = 2048,
        text_feedforward: int | None = None,
        taste_feedforward: int | None = None,
        text_layers: int = 3,
        taste_layers: int = 2,
        lm_layers: int = 7,
        dropout: float = 0.1,
        text_embedding: str | None = None,
        fusion_init: Literal["balance", "zero_audio"] = "balance",
        fusion_normalize: bool = False,
    ):
        super().__init__()
        self.num_units = num_units
        self.text_vocab_size, self.taste_dim = text_vocab_size, taste_dim
        self.speaker_dim = speaker_dim
        if text_embedding is None:
            self.text_embedding = nn.Embedding(text_vocab_size, text_dim)
        else:
            self.text_embedding = FrozenTextEmbedding(
                text_embedding, text_vocab_size, text_dim
            )
        shared = {"width": width, "dropout": dropout}
        self.text_encoder = CausalEncoder(
            text_dim,
            heads=text_heads or heads,
            num_layers=text_layers,
            feedforward=text_feedforward or feedforward,
            **shared,
        )
        self.text_affine = nn.Linear(width, width)
        self.taste_projection = nn.Linear(taste_dim, taste_input_dim)
        self.taste_encoder = CausalEncoder(
            taste_input_dim,
            heads=taste_heads or heads,
            num_layers=taste_layers,
            feedforward=taste_feedforward or feedforward,
            **shared,
        )
        self.taste_affine = nn.Linear(width, width)
        self.fusion = WeightedFusion(fusion_init, normalize=fusion_normalize)
        self.speaker_projection = nn.Linear(speaker_dim, width)
        self.special_embedding = nn.Embedding(2, width)  # start, task
        self.mask_embedding = nn.Embedding(1, width)
        self.unit_embedding = nn.Embedding(num_units, width)
        self.unit_encoder = CausalEncoder(
            width,
            heads=heads,
            num_layers=lm_layers,
            feedforward=feedforward,
            activation="relu",
            input_relu=True,
            **shared,
        )
        self.output = nn.Linear(width, num_units + 1)

    def forward(
        self,
        tokens: Tensor,
        taste: Tensor | None,
        speaker: Tensor,
        layout: UnitLMLayout,
        guide: AttentionGuide | None = None,
    ) -> Tensor:
        """Predict units, teacher-forced; see ``AbsUnitDecoder.forward``.

        A ``guide`` watches the attention of the unit LM, see ``guide``.
        """
        condition = self.encode_condition(tokens, taste, layout)
        inputs = self.gather_inputs(condition, speaker, layout)
        return self.output(self.encode_units(inputs, layout, guide))

    @torch.no_grad()
    def start_units(self, vectors: Tensor) -> None:
        """Start embeddings and classes of the units from vectors.

        Both tables keep the spread that they were drawn with; only which rows lie
        close together is new. See ``AbsUnitDecoder.start_units``.
        """
        if len(vectors) != self.num_units:
            raise ValueError(
                f"{len(vectors)} unit vectors do not fit {self.num_units} units"
            )
        for table in (self.unit_embedding.weight, self.output.weight[:-1]):
            table.copy_(spread_like(table, vectors))

    def guide(self, layout: UnitLMLayout) -> AttentionGuide | None:
        """Return a guide of the middle layers to the words of a layout, if known.

        The layers before the guided ones find out how far the speech has come, those
        after them use what the right word says.
        """
        if layout.token_words is None or layout.unit_words is None:
            return None
        middle = len(self.unit_encoder.layers) // 2
        return AttentionGuide(
            layout.unit_words.flatten(),
            layout.token_words.flatten(),
            layout.lm_blocks,
            tuple(sorted({max(middle - 1, 0), middle})),
        )

    def generate(
        self,
        tokens: Tensor,
        token_lengths: Tensor,
        taste: Tensor | None,
        speaker: Tensor,
        *,
        sampling: UnitSampling | None = None,
        source: RandomSource = None,
    ) -> GeneratedUnits:
        """Draw units; see ``AbsUnitDecoder.generate``."""
        return generate_units(
            self,
            tokens,
            token_lengths,
            taste,
            speaker,
            sampling=sampling,
            source=source,
        )

    def encode_text(self, tokens: Tensor, layout: UnitLMLayout) -> Tensor:
        """Encode the text of every row.

        Args:
            tokens: (U, Ta), int64; any padding.
            layout: What stands where.

        Returns:
            (Pt, Lt, D); meaningless on padding.
        """
        flat = tokens.flatten().index_select(0, layout.text_index.flatten().clamp(0))
        embedded = self.text_embedding(flat.clamp(min=0))
        rows = layout.text_rows.flatten()
        encoded = self.text_encoder(embedded, rows, layout.text_blocks)
        return self.text_affine(encoded).unflatten(0, layout.text_index.shape)

    def encode_taste(self, taste: Tensor, layout: UnitLMLayout) -> Tensor:
        """Encode the TASTE embeddings of every row.

        Args:
            taste: (U, Ta, taste_dim), float; anything finite on padding.
            layout: What stands where.

        Returns:
            (Pt, Lt, D); meaningless on padding.
        """
        projected = self.taste_projection(taste.flatten(0, 1))
        flat = projected.index_select(0, layout.text_index.flatten().clamp(0))
        rows = layout.text_rows.flatten()
        encoded = self.taste_encoder(flat, rows, layout.text_blocks)
        return self.taste_affine(encoded).unflatten(0, layout.text_index.shape)

    def encode_condition(
        self, tokens: Tensor, taste: Tensor | None, layout: UnitLMLayout
    ) -> Tensor:
        """Fuse the encoded text and TASTE; text alone without TASTE, (Pt, Lt, D)."""
        text = self.encode_text(tokens, layout)
        if taste is None:
            return text
        return self.fusion(self.encode_taste(taste, layout), text)

    def gather_inputs(
        self, condition: Tensor, speaker: Tensor, layout: UnitLMLayout
    ) -> Tensor:
        """Put the inputs of the unit LM in their places, by one look-up.

        Args:
            condition: From ``encode_condition``, (Pt, Lt, D).
            speaker: (U, speaker_dim), float.
            layout: What stands where.

        Returns:
            (P, L, D); padding reads the start vector, which nothing looks at.
        """
        voices = self.speaker_projection(F.normalize(speaker, dim=-1))
        table = torch.cat(
            [
                self.special_embedding.weight,
                self.unit_embedding.weight,
                self.mask_embedding.weight,  # follows the units: index num_units
                voices,
                condition.flatten(0, 1),
            ]
        )
        first_voice = 2 + self.num_units + 1
        first_by_kind = {
            Kind.TASK: 1,
            Kind.UNIT: 2,
            Kind.SPEAKER: first_voice,
            Kind.FUSED: first_voice + len(voices),
        }
        index = layout.lm_source
        for kind, first in first_by_kind.items():
            index = index + first * (layout.lm_kind == kind)
        return F.embedding(index, table)

    def encode_units(
        self, inputs: Tensor, layout: UnitLMLayout, guide: AttentionGuide | None = None
    ) -> Tensor:
        """Run the unit LM's encoder over its inputs, (P, L, D) to (P, L, D)."""
        rows = layout.lm_rows.flatten()
        hidden = self.unit_encoder(
            inputs.flatten(0, 1), rows, layout.lm_blocks, guide=guide
        )
        return hidden.unflatten(0, layout.lm_rows.shape)


def spread_like(table: Tensor, vectors: Tensor) -> Tensor:
    """Turn vectors at random into the width and the spread of a table.

    Args:
        table: (N, D), float.
        vectors: (N, V), float, not all the same.

    Returns:
        (N, D), float32: centred, of the same root mean square as ``table``. Where V is
        at most D, angles and relative distances are those of ``vectors``.

    Raises:
        ValueError: If the vectors are all the same, or not finite.
    """
    centred = vectors.float() - vectors.float().mean(0)
    size = centred.square().mean().sqrt()
    if not (torch.isfinite(size) and size > 0):
        raise ValueError("unit vectors must be finite and differ from each other")
    width, dim = table.size(1), vectors.size(1)
    drawn = torch.randn(max(width, dim), min(width, dim), device=vectors.device)
    turn = torch.linalg.qr(drawn).Q
    turned = centred @ (turn.T if dim <= width else turn)
    return turned * (table.square().mean().sqrt() / turned.square().mean().sqrt())
