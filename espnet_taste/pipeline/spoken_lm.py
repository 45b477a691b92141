"""The spoken LM as users want it: speech or text in, more of it out.

    lm = TasteSpokenLM.from_pretrained("exp/mini_an4")
    prompt = lm.tokenizer.encode("speech.wav")
    answer = lm.complete(prompt)
    print(answer.text, lm.log_likelihood(prompt))
    lm.tokenizer.decode(prompt + answer).save("on.wav")

Lists go in and come out as lists, worked on in padded batches; a row of a batch gets
what it would get alone.

Symbols: W words, Q codebooks.

Source: TASTE (arXiv:2504.07053), text-aligned spoken language model.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from espnet_taste.pipeline.chat import Content, read_chat
from espnet_taste.pipeline.packed import find_files
from espnet_taste.pipeline.released import find_released
from espnet_taste.pipeline.released_lm import ReleasedSpokenLM
from espnet_taste.pipeline.scoring import OF_A_PART, ScoredItem
from espnet_taste.pipeline.slm import SpokenLMInference
from espnet_taste.pipeline.taste import TasteTokenizer
from espnet_taste.pipeline.tokens import TasteTokens, require_same_tokenizer
from espnet_taste.sampling import RowStreams
from espnet_taste.slm.continuation import SpokenContinuer
from espnet_taste.slm.conventions import CONVENTIONS, ItemLikelihood
from espnet_taste.slm.generation import CompletionSettings
from espnet_taste.slm.prompt import Prompt
from espnet_taste.words import encode_words, space_signs, split_words

SpokenPrompt = TasteTokens | str | None
"""Speech, text, or nothing to go on from."""


class TasteSpokenLM:
    """A spoken LM with the speech tokenizer whose codes it reads and writes.

    Args:
        inference: A trained spoken LM.
        tokenizer: The tokenizer of its codes.
    """

    def __init__(self, inference: SpokenLMInference, tokenizer: TasteTokenizer):
        self.inference = inference
        self.tokenizer = tokenizer
        self.slm = inference.slm
        self.device = inference.device

    @staticmethod
    def from_pretrained(
        source: str | Path,
        *,
        device: str = "cpu",
        llm: str | None = None,
        **options: Any,
    ) -> "TasteSpokenLM":
        """Open a trained spoken LM and its tokenizer.

        Args:
            source: As of ``TasteTokenizer.from_pretrained``; it must hold a spoken LM.
            device: Torch device.
            llm: Name or folder of the LLM whose text tokenizer a released checkpoint
                needs, since it holds none; not for others, which name theirs.
            **options: Further options of ``TasteTokenizer.from_pretrained``.

        Raises:
            FileNotFoundError: If a part of the model is absent.
            ValueError: If a part does not fit.
        """
        tokenizer = TasteTokenizer.from_pretrained(source, device=device, **options)
        return TasteSpokenLM(open_inference(source, device, llm), tokenizer)

    # --- generation -----------------------------------------------------------

    def complete(
        self,
        prompt: SpokenPrompt | Sequence[SpokenPrompt] = None,
        settings: CompletionSettings = CompletionSettings(),
        *,
        speaker: np.ndarray | None = None,
        seed: int | Sequence[int] = 1986,
        batch_size: int = 8,
    ) -> TasteTokens | list[TasteTokens]:
        """Go on from speech, from text, or from nothing.

        Args:
            prompt: One prompt or a list: tokens of the tokenizer, a text, or None.
            settings: How to complete, and when to stop.
            speaker: Voice of what has none of its own, (speaker_dim,) float32; None
                for that of the prompt.
            seed: Seed of the drawing, one for all or a list: what a prompt gets does
                not depend on the others.
            batch_size: Prompts at once.

        Returns:
            The words that follow, with their codes, without the prompt; one value for
            one prompt, a list for a list. Without a voice the speaker is all zeros,
            and ``decode`` wants one.

        Raises:
            ValueError: If a prompt is of another tokenizer, has no codes, or is too
                long for the LLM.
        """
        many = isinstance(prompt, Sequence) and not isinstance(
            prompt, str | TasteTokens
        )
        prompts = list(prompt) if many else [prompt]
        read = [self._prompt(item) for item in prompts]
        voices = [self._voice(item, speaker) for item in prompts]
        seeds = [seed] * len(read) if isinstance(seed, int) else list(seed)
        if len(seeds) != len(read):
            raise ValueError(f"{len(read)} prompts, but {len(seeds)} seeds")
        results = self._complete(read, voices, settings, seeds, batch_size)
        return results if many else results[0]

    def chat(
        self,
        messages: Sequence[Mapping[str, Content]],
        settings: CompletionSettings = CompletionSettings(),
        *,
        speaker: np.ndarray | None = None,
        seed: int = 1986,
    ) -> TasteTokens:
        """Answer messages, one of which may hold speech, by the LLM's chat template.

        Args:
            messages: ``{"role": ..., "content": ...}`` each; a content is a text,
                tokens of the tokenizer, or a list of both.
            settings: How to complete, and when to stop.
            speaker: Voice of the answer; None for that of the speech.
            seed: Seed of the drawing.

        Returns:
            The answer.

        Raises:
            ValueError: If the LLM has no chat template, there is no message, speech
                in more than one place, or a text that looks like a special token.
        """
        before, speech, after = read_chat(messages, self.inference.text)
        inside = Prompt() if speech is None else self._prompt(speech)
        prompt = Prompt(inside.tokens, inside.words, inside.codes, before, after)
        voices = [self._voice(speech, speaker)]
        return self._complete([prompt], voices, settings, [seed], 1)[0]

    def stream(
        self,
        prompt: SpokenPrompt = None,
        settings: CompletionSettings = CompletionSettings(),
        *,
        speaker: np.ndarray | None = None,
        seed: int = 1986,
    ) -> Iterator[TasteTokens]:
        """Go on word by word; leave the loop to stop.

        ``tokenizer.stream(lm.stream(prompt))`` speaks while words still arrive.

        Args:
            prompt: As of ``complete``, one.
            settings: How to complete, and when to stop.
            speaker: Voice of what has none of its own.
            seed: Seed of the drawing.

        Yields:
            One word with its codes; together they are what ``complete`` returns.
        """
        voice = self._voice(prompt, speaker)
        read = self._prompt(prompt)
        source = RowStreams([seed], self.device)
        for word, codes in self._continuer(settings).continue_words(
            read, source=source
        ):
            yield self._tokens([word], codes[None], voice)

    def _complete(
        self,
        prompts: list[Prompt],
        voices: list[np.ndarray],
        settings: CompletionSettings,
        seeds: list[int],
        batch_size: int,
    ) -> list[TasteTokens]:
        continuer = self._continuer(settings)
        results = []
        for start in range(0, len(prompts), batch_size):
            rows = slice(start, start + batch_size)
            source = RowStreams(seeds[rows], self.device)
            results += continuer.continue_prompts(prompts[rows], source=source)
        return [
            self._tokens(result.words, result.codes, voice)
            for result, voice in zip(results, voices, strict=True)
        ]

    def _continuer(self, settings: CompletionSettings) -> SpokenContinuer:
        text = self.inference.text
        return SpokenContinuer(
            self.slm,
            text.encode,
            text.decode,
            vocabulary=self.inference.vocabulary,
            settings=settings,
        )

    def _prompt(self, prompt: SpokenPrompt) -> Prompt:
        if prompt is None:
            return Prompt()
        if isinstance(prompt, str):
            encoded = encode_words(
                split_words(space_signs(prompt)), self.inference.text.encode
            )
            if not encoded.tokens:
                raise ValueError("the prompt has no word; give None for no prompt")
            return Prompt(encoded.tokens, encoded.words)
        self._check(prompt, "continue")
        encoded = encode_words(prompt.words, self.inference.text.encode)
        return Prompt(encoded.tokens, encoded.words, prompt.codes)

    def _check(
        self, tokens: TasteTokens, purpose: str, may_be_empty: bool = False
    ) -> None:
        require_same_tokenizer(tokens, self.tokenizer.models, purpose)
        if tokens.codes is None:
            raise ValueError(f"'{tokens.text[:40]}' has no codes, only embeddings")
        if len(tokens) == 0 and not may_be_empty:
            raise ValueError(f"cannot {purpose} speech without a word")
        self.tokenizer.check_codes(tokens.codes, f"'{tokens.text[:40]}'")

    def _voice(self, prompt: SpokenPrompt, speaker: np.ndarray | None) -> np.ndarray:
        if speaker is not None:
            return np.asarray(speaker, dtype=np.float32)
        if isinstance(prompt, TasteTokens):
            return prompt.speaker
        width = self.tokenizer.model.decoder.speaker_dim or 1
        return np.zeros(width, dtype=np.float32)

    def _tokens(
        self, words: Sequence[str], codes: np.ndarray, voice: np.ndarray
    ) -> TasteTokens:
        encoded = encode_words(words, self.tokenizer.inference.preprocess.encode)
        return TasteTokens(
            words=tuple(words),
            speaker=voice,
            asr_tokens=np.asarray(encoded.tokens, dtype=np.int64),
            asr_words=np.asarray(encoded.words, dtype=np.int64),
            codes=codes,
            models=self.tokenizer.models,
        )

    # --- likelihood -----------------------------------------------------------

    def likelihoods(
        self,
        tokens: TasteTokens | Sequence[TasteTokens],
        *,
        before: Sequence[str] | None = None,
        after: Sequence[str] | None = None,
        batch_size: int = 8,
    ) -> ItemLikelihood | list[ItemLikelihood]:
        """Return how likely every token and every word's codes are, in nats.

        Args:
            tokens: One utterance or a list.
            before: Text in front of each of a list, read and not scored.
            after: Text behind each of a list; then only this text is scored.
            batch_size: Utterances at once.

        Raises:
            ValueError: If an utterance is of another tokenizer, has no codes, or is
                too long for the LLM; if there is not one text for each.
        """
        many = not isinstance(tokens, TasteTokens)
        rows = list(tokens) if many else [tokens]
        for number, row in enumerate(rows):
            self._check(row, "score", may_be_empty=bool(after and after[number]))
        found = []
        for start in range(0, len(rows), batch_size):
            part = slice(start, start + batch_size)
            batch = self.inference.log_likelihoods(
                rows[part], before and before[part], after and after[part]
            )
            found += [ItemLikelihood(**arrays) for arrays in batch]
        return found if many else found[0]

    def log_likelihood(
        self,
        tokens: TasteTokens | Sequence[TasteTokens],
        convention: str = "taste",
        *,
        from_s: float | Sequence[float] | None = None,
        window_s: float = float("inf"),
        batch_size: int = 8,
    ) -> float | list[float]:
        """Return one number an utterance: how likely it is, higher is likelier.

        Args:
            tokens: One utterance or a list.
            convention: How token and code likelihoods are added up, a name in
                ``slm.conventions.CONVENTIONS``, ``"localised"`` or ``"normalised"``;
                scores of two cannot be compared.
            from_s: For the last two: score what is said from this moment on, in s on
                the clock of the recording; one for all, or a list.
            window_s: Seconds after it that count.
            batch_size: Utterances at once.

        Raises:
            ValueError: As ``likelihoods``; if the convention is unknown, or no word is
                known to begin in a window, or nothing stands before it.
        """
        if convention not in (*CONVENTIONS, *OF_A_PART):
            known = sorted([*CONVENTIONS, *OF_A_PART])
            raise ValueError(f"convention must be one of {known}, got '{convention}'")
        many = not isinstance(tokens, TasteTokens)
        rows = list(tokens) if many else [tokens]
        moments = [from_s] * len(rows) if np.ndim(from_s) == 0 else list(from_s)
        items = [
            ScoredItem(row, from_s=moment, window_s=window_s)
            for row, moment in zip(rows, moments, strict=True)
        ]
        found = self.scores(items, convention == "normalised", batch_size=batch_size)
        for item, scores in zip(items, found):
            if convention not in scores:
                why = item.why_not_localised() or "no word stands before the moment"
                raise ValueError(
                    f"'{item.tokens.text[:40]}' has no '{convention}' score: {why}"
                )
        numbers = [scores[convention] for scores in found]
        return numbers if many else numbers[0]

    def scores(
        self,
        items: Sequence[ScoredItem],
        normalise: bool = False,
        *,
        batch_size: int = 8,
    ) -> list[dict[str, float]]:
        """Return the scores of items by all conventions that fit.

        Args:
            items: Utterances, and which part of each counts.
            normalise: Read what counts a second time, without what stands before it.
            batch_size: Utterances at once.

        Raises:
            ValueError: As ``likelihoods``.
        """
        found = self.item_likelihoods(items, normalise, batch_size=batch_size)
        return [item.scores(*pair) for item, pair in zip(items, found, strict=True)]

    def item_likelihoods(
        self,
        items: Sequence[ScoredItem],
        normalise: bool = False,
        *,
        batch_size: int = 8,
    ) -> list[tuple[ItemLikelihood, ItemLikelihood | None]]:
        """Return how likely items are, and what counts of them by itself; see above."""
        others = [item.alone() if normalise else None for item in items]
        every = [*items, *(other for other in others if other is not None)]
        found = self.likelihoods(
            [item.tokens for item in every],
            before=[item.before for item in every],
            after=[item.after for item in every],
            batch_size=batch_size,
        )
        alone = iter(found[len(items) :])
        return [
            (one, None if other is None else next(alone))
            for one, other in zip(found, others)
        ]


def open_inference(
    source: str | Path, device: str = "cpu", llm: str | None = None
) -> SpokenLMInference:
    """Open a spoken LM without its tokenizer; see ``TasteSpokenLM.from_pretrained``."""
    folder = find_released(source)
    if folder is not None:
        names = {} if llm is None else {"llm": llm}
        return ReleasedSpokenLM(folder, device=device, **names)
    if llm is not None:
        raise ValueError(f"llm: {source} names its own LLM; leave it out")
    return find_files(source).spoken_lm(device)
