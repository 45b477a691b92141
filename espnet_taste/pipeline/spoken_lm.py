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
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from espnet_taste.pipeline.chat import Content, read_chat
from espnet_taste.pipeline.inputs import slices
from espnet_taste.pipeline.packed import find_files
from espnet_taste.pipeline.released import find_released
from espnet_taste.pipeline.released_lm import ReleasedSpokenLM
from espnet_taste.pipeline.slm import SpokenLMInference
from espnet_taste.pipeline.spoken_likelihood import SpokenLikelihood
from espnet_taste.pipeline.taste import TasteTokenizer
from espnet_taste.pipeline.tokens import TasteTokens
from espnet_taste.sampling import RowStreams
from espnet_taste.slm.continuation import SpokenContinuer
from espnet_taste.slm.generation import CompletionSettings
from espnet_taste.slm.prompt import Prompt
from espnet_taste.words import encode_words, space_signs, split_words

SpokenPrompt = TasteTokens | str | None
"""Speech, text, or nothing to go on from."""
Messages = Sequence[Mapping[str, Content]]
Speaker = np.ndarray | Sequence[np.ndarray] | None


class TasteSpokenLM(SpokenLikelihood):
    """A spoken LM with the speech tokenizer whose codes it reads and writes.

    Args:
        inference: A trained spoken LM.
        tokenizer: The tokenizer of its codes.
    """

    def __init__(self, inference: SpokenLMInference, tokenizer: TasteTokenizer):
        super().__init__(inference, tokenizer)
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

    def complete(
        self,
        prompt: SpokenPrompt | Sequence[SpokenPrompt] = None,
        settings: CompletionSettings = CompletionSettings(),
        *,
        speaker: Speaker = None,
        seed: int | Sequence[int] = 1986,
        batch_size: int = 8,
    ) -> TasteTokens | list[TasteTokens]:
        """Go on from speech, from text, or from nothing.

        Args:
            prompt: One prompt or a list: tokens of the tokenizer, a text, or None.
            settings: How to complete, and when to stop.
            speaker: Voice of what follows, (speaker_dim,) float32, one for all or a
                list; None for that of the prompt.
            seed: Seed of the drawing, one for all or a list: what a prompt gets does
                not depend on the others.
            batch_size: Prompts at once.

        Returns:
            The words that follow, with their codes, without the prompt; one value for
            one prompt, a list for a list. Without a voice the speaker is all zeros,
            and ``decode`` wants one.

        Raises:
            TypeError: If a prompt is none of these.
            ValueError: If a prompt is of another tokenizer, has no codes, or is too
                long for the LLM; if there is not one seed or voice for each, or a
                voice is none of the tokenizer's.
        """
        many = isinstance(prompt, Sequence) and not isinstance(
            prompt, str | TasteTokens
        )
        prompts = list(prompt) if many else [prompt]
        read = [self._prompt(item) for item in prompts]
        voices = self._voices(prompts, speaker)
        results = self._complete(read, voices, settings, seed, batch_size)
        return results if many else results[0]

    def chat(
        self,
        messages: Messages | Sequence[Messages],
        settings: CompletionSettings = CompletionSettings(),
        *,
        speaker: Speaker = None,
        seed: int | Sequence[int] = 1986,
        batch_size: int = 8,
    ) -> TasteTokens | list[TasteTokens]:
        """Answer messages, one of which may hold speech, by the LLM's chat template.

        Args:
            messages: ``{"role": ..., "content": ...}`` each; a content is a text,
                tokens of the tokenizer, or a list of both. Or a list of such lists.
            settings: How to complete, and when to stop.
            speaker: Voice of the answer, one or a list; None for that of the speech.
            seed: Seed of the drawing, one for all or a list.
            batch_size: Chats at once.

        Returns:
            The answer; a list for a list. It ends with the LLM's turn, too (with
            ``compat`` unless that is Llama's end of text, which its rules ban).

        Raises:
            TypeError: If these are no messages.
            ValueError: If the LLM has no chat template, there is no message, speech
                in more than one place, or a text that looks like a special token; as
                ``complete``.
        """
        if not isinstance(messages, Sequence) or isinstance(messages, str):
            raise TypeError(
                f"the messages are a {type(messages).__name__}; give a list of them"
            )
        many = len(messages) > 0 and not isinstance(messages[0], Mapping)
        read = [
            read_chat(chat, self.inference.text)
            for chat in (messages if many else [messages])
        ]
        prompts = []
        for before, speech, after in read:
            inside = Prompt() if speech is None else self._prompt(speech)
            prompts.append(
                Prompt(inside.tokens, inside.words, inside.codes, before, after)
            )
        voices = self._voices([speech for _, speech, _ in read], speaker)
        results = self._complete(
            prompts, voices, settings, seed, batch_size, is_turn=True
        )
        return results if many else results[0]

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
        (voice,) = self._voices([prompt], speaker)
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
        seed: int | Sequence[int],
        batch_size: int,
        is_turn: bool = False,
    ) -> list[TasteTokens]:
        seeds = [seed] * len(prompts) if np.ndim(seed) == 0 else list(seed)
        if len(seeds) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts, but {len(seeds)} seeds")
        prompts = [replace(p, name=f"prompt {n}") for n, p in enumerate(prompts)]
        continuer = self._continuer(settings, is_turn)
        results = []
        for rows in slices(len(prompts), batch_size):
            source = RowStreams(seeds[rows], self.device)
            results += continuer.continue_prompts(prompts[rows], source=source)
        return [
            self._tokens(result.words, result.codes, voice)
            for result, voice in zip(results, voices, strict=True)
        ]

    def _continuer(
        self, settings: CompletionSettings, is_turn: bool = False
    ) -> SpokenContinuer:
        text = self.inference.text
        return SpokenContinuer(
            self.slm,
            text.encode,
            text.decode,
            vocabulary=self.inference.vocabulary_for(settings, is_turn),
            settings=self.inference.settings_for(settings),
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
        if not isinstance(prompt, TasteTokens):
            raise TypeError(
                f"a prompt is a {type(prompt).__name__}; give tokens of the "
                "tokenizer's encode, a text or None"
            )
        self.check(prompt, "continue")
        encoded = encode_words(prompt.words, self.inference.text.encode)
        return Prompt(encoded.tokens, encoded.words, prompt.codes)

    def _voices(
        self, prompts: Sequence[SpokenPrompt], speaker: Speaker
    ) -> list[np.ndarray]:
        """Return the voice of every continuation, (speaker_dim,) float32 each."""
        if speaker is not None:
            if isinstance(speaker, TasteTokens):
                raise TypeError("speaker is a TasteTokens; give its .speaker")
            given = np.asarray(speaker, dtype=np.float32)
            rows = [given] * len(prompts) if given.ndim == 1 else list(given)
            if len(rows) != len(prompts):
                raise ValueError(f"{len(prompts)} prompts, but {len(rows)} voices")
            for row in rows:
                self.tokenizer.check_speaker(row, "speaker")
            return rows
        nobody = np.zeros(self.tokenizer.model.decoder.speaker_dim or 1, np.float32)
        return [p.speaker if isinstance(p, TasteTokens) else nobody for p in prompts]

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
