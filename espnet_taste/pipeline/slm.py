"""A trained spoken LM at work: scores of utterances and continuations of prompts.

Symbols: B batch, W words, Q codebooks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from espnet_taste.data.kaldi import read_scp_arrays, read_table
from espnet_taste.data.utterances import in_batches
from espnet_taste.layers.exchange import repeat_to_width
from espnet_taste.layers.precision import in_float64
from espnet_taste.pipeline.tokens import TasteTokens
from espnet_taste.sampling import RowStreams
from espnet_taste.slm.continuation import Continuation, SpokenContinuer
from espnet_taste.slm.delay import PAD, DelayBatch
from espnet_taste.slm.generation import CompletionSettings
from espnet_taste.slm.likelihood import SpokenLMScores, log_likelihoods, score
from espnet_taste.slm.prompt import Prompt, TextPrompt
from espnet_taste.slm.text import LlmText, load_llm
from espnet_taste.slm.vocabulary import RELEASED_END, Vocabulary, read_vocabulary
from espnet_taste.tasks.slm_builder import SpokenLMBuilder
from espnet_taste.types import IGNORE
from espnet_taste.words import space_signs, split_words

Item = tuple[str, Mapping[str, np.ndarray]]


class SpokenLMInference:
    """A trained spoken LM.

    Args:
        model_file: Checkpoint of a spoken LM training; None for fresh adapters and
            head, around the quantizer at the path that the config names.
        config_file: Its ``config.yaml``; None for the one beside the checkpoint.
        device: Torch device.
    """

    # How a prompt of text is read: as texts are in training, see ``read_prompt``.
    text_prompt: TextPrompt = "fused"

    def __init__(
        self,
        model_file: str | Path | None,
        config_file: str | Path | None = None,
        device: str = "cpu",
    ):
        self.device = torch.device(device)
        self.model, self.args = SpokenLMBuilder.build_model_from_file(
            config_file, model_file, device
        )
        self.slm = self.model.slm
        self.preprocess = SpokenLMBuilder.build_preprocess_fn(self.args, train=False)
        self.collate = SpokenLMBuilder.build_collate_fn(self.args, train=False)
        self.text = LlmText(self.args.llm)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What generation knows of the LLM's tokens."""
        return read_vocabulary(
            self.text.tokenizer,
            self.slm.output_layer.weight.size(0),
            end_id=self.slm.end_id,
        )

    def settings_for(self, settings: CompletionSettings) -> CompletionSettings:
        """Return settings that say how text is read."""
        if settings.text_prompt is not None:
            return settings
        kind = "plain" if settings.compat else self.text_prompt
        return replace(settings, text_prompt=kind)

    @cached_property
    def turn_vocabulary(self) -> Vocabulary:
        """The same where an answer is given, which ends with the LLM's end symbol."""
        end_id = getattr(self.text.tokenizer, "eos_token_id", None)
        if self.slm.end_id is not None or end_id is None:
            return self.vocabulary
        return read_vocabulary(
            self.text.tokenizer, self.slm.output_layer.weight.size(0), end_id=end_id
        )

    def vocabulary_for(
        self, settings: CompletionSettings, is_turn: bool = False
    ) -> Vocabulary:
        """Return what generation knows of the LLM's tokens.

        Args:
            settings: How to complete.
            is_turn: A chat is answered.
        """
        if not settings.compat:
            return self.turn_vocabulary if is_turn else self.vocabulary
        tokenizer = self.text.tokenizer
        turn = {}
        if is_turn and getattr(tokenizer, "eos_token", None) not in (
            None,
            RELEASED_END,
        ):
            turn["end_id"] = tokenizer.eos_token_id  # the released stop_id
        return read_vocabulary(
            tokenizer,
            self.slm.output_layer.weight.size(0),
            ban="released",
            sentence_end=".",
            **turn,
        )

    @cached_property
    def text_llm(self) -> nn.Module | None:
        """The LLM before its training; None where adapters leave it as it was."""
        if not self.slm.trains_llm:
            return None
        return load_llm(self.args.llm, self.slm.causal_lm.dtype).to(self.device)

    def open(self, data_dir: Path, codes_dir: Path) -> "CodedUtterances":
        """Open a set whose codes were extracted."""
        return CodedUtterances(data_dir, codes_dir, self.preprocess)

    @torch.no_grad()
    def mean_latent(self, codes: Mapping[str, np.ndarray]) -> Tensor:
        """Return the mean summed code of words: the best constant prediction.

        Args:
            codes: Codes of utterances, each (W, Q); those of the training set, which
                are read in turn and not held.

        Returns:
            (d,), float32, on the device of the spoken LM.
        """
        total, words = 0.0, 0
        for batch in in_batches(list(codes), 1024):
            rows = np.concatenate([codes[key] for key in batch]).astype(np.int64)
            latents = self.slm.codebooks.sum_codes(
                torch.from_numpy(rows).to(self.device)
            )
            total = total + in_float64(latents).sum(0)
            words += len(rows)
        return (total / words).float().to(self.device)

    @torch.no_grad()
    def scores(
        self,
        items: Sequence[Item],
        others: Sequence[Item],
        mean_latent: Tensor | None = None,
    ) -> list[dict]:
        """Score utterances under all conditions, teacher forced.

        Args:
            items: Utterances.
            others: As many, whose codes are exchanged in (repeated to the number of
                words).
            mean_latent: What ``mean_latent`` returns, to compare a latent with; None
                leaves out the errors of both.

        Returns:
            Rows as ``eval.slm_scores`` describes them, without the keys' order.
        """
        both = self._batch([*items, *others])
        batch = _rows_of(both, slice(0, len(items)))
        with self.model.autocast(self.device):
            own = score(self.slm, batch, None, self.text_llm)
            exchanged = _exchanged(both, len(items))
            other = score(self.slm, batch, exchanged, self.text_llm)
        text = {
            "matched": own.text_ce,
            "text_llm": own.text_llm_ce,
            "text_alone": own.text_alone_ce,
            "exchanged_codes": other.text_ce,
        }
        coded = {"matched": own, "exchanged_codes": other}
        keys = [key for key, _ in items]
        rows = []
        for condition, sums in text.items():
            columns = {"text_loss_sum": sums, "text_count": own.num_tokens}
            if condition in coded:
                columns |= self._code_sums(coded[condition])
                error = coded[condition].taste_terms.get("latent_error")
                if mean_latent is not None and error is not None:
                    columns["latent_error_sum"] = error
                    columns["latent_spread_sum"] = self._spread(batch, mean_latent)
            rows += _as_rows(keys, condition, columns)
        return rows

    @torch.no_grad()
    def log_likelihoods(
        self,
        rows: Sequence[TasteTokens],
        before: Sequence[str] | None = None,
        after: Sequence[str] | None = None,
    ) -> list[dict[str, np.ndarray]]:
        """Return how likely the tokens and codes of utterances are, in nats.

        Args:
            rows: Utterances with codes, of the tokenizer this LM was trained with.
            before: Text that stands before each, read and not scored.
            after: Text that stands behind each; then it alone is scored.

        Returns:
            ``tokens`` (T,) and ``token_words`` (T,) of the LLM's own tokens, and
            ``codes`` (W, S), S streams, 0 of a text; float64 and int64. Of spoken
            words predicted as a latent, ``latent_losses`` (W,). One forward pass for
            all.

        Raises:
            ValueError: If an utterance has no codes, or more words than fit.
        """
        nothing = [""] * len(rows)
        prepared = [
            self._item_of(*parts)
            for parts in zip(rows, before or nothing, after or nothing, strict=True)
        ]
        items = [item for item, _ in prepared]
        with self.model.autocast(self.device):
            found = log_likelihoods(self.slm, self._batch(items))
        text, codes = (t.cpu().double().numpy() for t in (found.text, found.codes))
        losses = found.latent_losses
        losses = None if losses is None else losses.cpu().double().numpy()
        results = []
        for index, ((_, data), (start, stop, is_text)) in enumerate(prepared):
            owner = data["llm_words"]
            kept = (owner >= start) & (owner < stop)
            streams = 0 if is_text else codes.shape[-1]
            results.append(
                {
                    "tokens": text[index, : len(owner)][kept],
                    "token_words": owner[kept] - start,
                    "codes": codes[index, start:stop, :streams],
                }
            )
            if losses is not None and not is_text:
                results[-1]["latent_losses"] = losses[index, start:stop]
        return results

    def _item_of(
        self, tokens: TasteTokens, before: str, after: str
    ) -> tuple[Item, tuple[int, int, bool]]:
        """Join spoken and written words; return which ones are scored, and as what."""
        name = tokens.text[:40]
        before, after = space_signs(before), space_signs(after)
        if tokens.codes is None:
            raise ValueError(f"'{name}' has no codes, only embeddings")
        written = [len(split_words(text)) for text in (before, after)]
        silent = [np.full((n, tokens.codes.shape[1]), PAD) for n in written]
        codes = np.concatenate([silent[0], tokens.codes, silent[1]])
        text = " ".join(part for part in (before, tokens.text, after) if part)
        arrays = self.preprocess(name, {"text": text, "codes": codes})
        limit = self.slm.max_positions
        length = len(arrays["llm_tokens"]) + self.slm.delay + 1
        if limit is not None and length > limit:
            raise ValueError(
                f"'{name}' takes {length} positions, the LLM has {limit}; cut it into "
                "shorter ones"
            )
        if written[1]:
            return (name, arrays), (len(codes) - written[1], len(codes), True)
        return (name, arrays), (written[0], len(codes), False)

    def _code_sums(self, scores: SpokenLMScores) -> dict[str, Tensor]:
        sums = {"code_hits": scores.code_hits, "code_count": scores.num_words}
        terms, share = scores.taste_terms, self.slm.weights.latent_kl
        if "latent_mse" in terms:
            latent = (1 - share) * terms["latent_mse"] + share * terms["latent_kl"]
            sums["latent_loss_sum"] = latent
        if "code_ce" in terms:
            sums["code_loss_sums"] = terms["code_ce"]
        return sums

    def _spread(self, batch: DelayBatch, mean_latent: Tensor) -> Tensor:
        """Return the squared errors of a constant prediction, summed by row, (B,)."""
        error = self.slm.codebooks.sum_codes(batch.word_codes) - mean_latent
        is_word = batch.word_codes[..., 0] != IGNORE
        return error.square().mean(-1).masked_fill(~is_word, 0.0).sum(1)

    def prompt(self, key: str, words: Sequence[str], codes: np.ndarray) -> Item:
        """Prepare words with their codes, (W, Q) int64, to be continued."""
        return key, self.preprocess(key, {"text": " ".join(words), "codes": codes})

    def continue_speech(
        self,
        prompts: Sequence[Item],
        settings: CompletionSettings,
        seeds: Sequence[int],
    ) -> list[Continuation]:
        """Continue spoken prompts in words and codes.

        Args:
            prompts: Prepared utterances, cut to the prompt's words.
            settings: How to complete.
            seeds: Seed of the sampling, one a prompt.
        """
        continuer = SpokenContinuer(
            self.slm,
            self.text.encode,
            self.text.decode,
            vocabulary=self.vocabulary_for(settings),
            settings=self.settings_for(settings),
        )
        return continuer.continue_prompts(
            [
                Prompt(data["llm_tokens"], data["llm_words"], data["codes"])
                for _, data in prompts
            ],
            source=RowStreams(seeds, self.device),
        )

    def _batch(self, items: Sequence[Item]) -> DelayBatch:
        _, batch = self.collate(list(items))
        return batch["layout"].to(self.device)


class CodedUtterances:
    """Text and codes of the utterances of one set.

    Args:
        data_dir: Folder of the alignment stage.
        codes_dir: Folder of the stage extract_codes.
        preprocess: The spoken LM's preprocessor, from key and ``text`` and ``codes``
            (W, Q) to the arrays of an utterance.
    """

    def __init__(
        self,
        data_dir: Path,
        codes_dir: Path,
        preprocess: Callable[[str, dict[str, Any]], dict[str, np.ndarray]],
    ):
        self.text = read_table(Path(data_dir) / "text")
        self.codes = read_scp_arrays(Path(codes_dir) / "codes.scp")
        self.preprocess = preprocess

    def __getitem__(self, key: str) -> dict[str, np.ndarray]:
        """Return the arrays of an utterance.

        Raises:
            ValueError: If its codes are missing.
        """
        if key not in self.codes:
            raise ValueError(f"{self.codes.scp}: no codes of '{key}'")
        return self.preprocess(key, {"text": self.text[key], "codes": self.codes[key]})


def _rows_of(batch: DelayBatch, rows: slice) -> DelayBatch:
    return DelayBatch(**{name: value[rows] for name, value in vars(batch).items()})


def _exchanged(both: DelayBatch, count: int) -> Tensor:
    """Give the first ``count`` rows the codes of the others, padding kept."""
    own, other = both.word_codes[:count], both.word_codes[count:]
    lengths = (other[..., 0] != IGNORE).sum(1)
    return torch.where(own == IGNORE, IGNORE, repeat_to_width(other, lengths))


def _as_rows(keys: Sequence[str], condition: str, sums: dict) -> list[dict]:
    lists = {name: value.tolist() for name, value in sums.items()}
    return [
        {
            "key": key,
            "condition": condition,
            **{name: values[index] for name, values in lists.items()},
        }
        for index, key in enumerate(keys)
    ]
