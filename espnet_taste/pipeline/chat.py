"""Messages with speech in them, by the chat template of the LLM."""

from collections.abc import Mapping, Sequence
from typing import Any

from espnet_taste.pipeline.tokens import TasteTokens
from espnet_taste.slm.text import LlmText

Content = str | TasteTokens | Sequence[str | TasteTokens]
"""What a message says: a text, speech, or a list of both."""

# Stands for the speech while the template is filled; no text may contain it.
PLACE = "\ufdd0speech\ufdd0"


def read_chat(
    messages: Sequence[Mapping[str, Content]], text: LlmText
) -> tuple[list[int], TasteTokens | None, list[int]]:
    """Turn messages into token ids around the speech.

    Args:
        messages: ``{"role": ..., "content": ...}`` each.
        text: The LLM's tokenizer, with its chat template.

    Returns:
        Token ids in front of the speech, the speech, and token ids behind it; without
        speech everything is in front.

    Raises:
        TypeError: If these are no list of messages, or a content is neither text nor
            speech nor a list of them.
        ValueError: If there is no template or no message, a message has anything else
            than role and content, there is speech in more than one place, or a text
            looks like a special token.
    """
    if not isinstance(messages, Sequence):
        raise TypeError(
            f"a message is a {type(messages).__name__}; give role and content of each"
        )
    if not messages:
        raise ValueError("there is no message to answer")
    tokenizer = text.tokenizer
    if tokenizer.chat_template is None:
        raise ValueError(
            "this LLM has no chat template; take an instruction-tuned one, or complete"
        )
    speech: list[TasteTokens] = []
    # Some tokenizers (Llama 3) list few of them by name.
    added = tokenizer.added_tokens_decoder.values()
    commands = [token.content for token in added if token.special]
    specials = (PLACE, *tokenizer.all_special_tokens, *commands)
    plain = [_as_text(message, speech, specials) for message in messages]
    if len(speech) > 1:
        raise ValueError(f"speech in {len(speech)} places; one is possible")
    filled = tokenizer.apply_chat_template(
        plain, tokenize=False, add_generation_prompt=True
    )
    parts = [
        tokenizer.encode(part, add_special_tokens=False) for part in filled.split(PLACE)
    ]
    if len(parts) != 1 + len(speech):
        raise ValueError("the chat template leaves the message with the speech out")
    if not speech:
        return parts[0], None, []
    return parts[0], speech[0], parts[1]


def _as_text(
    message: Mapping[str, Content],
    speech: list[TasteTokens],
    specials: Sequence[str],
) -> dict[str, Any]:
    """Return a message as the template takes it; its speech is appended to a list."""
    if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
        found = sorted(message) if isinstance(message, Mapping) else repr(message)[:40]
        raise ValueError(f"a message has a role and a content, got {found}")
    content = message["content"]
    is_list = isinstance(content, Sequence) and not isinstance(content, str)
    pieces = []
    for part in content if is_list else [content]:
        if isinstance(part, TasteTokens):
            speech.append(part)
            pieces.append(PLACE)
            continue
        if not isinstance(part, str):
            raise TypeError(
                f"a message holds a {type(part).__name__}; give text, tokens of the "
                "tokenizer's encode, or a list of both"
            )
        for special in specials:
            if special in part:
                raise ValueError(
                    f"the text {part[:40]!r} contains {special!r}, which would be read "
                    "as a command to the LLM; take it out"
                )
        pieces.append(part)
    return {"role": message["role"], "content": "".join(pieces)}
