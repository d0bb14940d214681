"""Start training from a checkpoint: its input adapter and encoder, under the head that the recipe's task needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from perceiver_deploy.bundle.preprocessing import TextPreprocessing
from perceiver_deploy.errors import CheckpointError
from perceiver_deploy.model.config import DecoderConfig, MeanDecoderConfig, PerceiverConfig
from perceiver_deploy.model.tasks.catalogue import PerceiverModel, build_model
from perceiver_deploy.progress import log

_BODY = ("input_adapter.", "encoder.")


def start_from(
    source: PerceiverModel, wanted: PerceiverConfig, where: str, *, keep_head: bool = False
) -> PerceiverModel:
    """A model of the wanted task and labels, with the architecture and the weights of `source`.

    The head, which is all but input adapter and encoder, is kept where task and labels are the same. Else it is
    initialised anew: of the source's shape for the same task, of the recipe's for another one.

    Args:
        source: the model to start from.
        wanted: the recipe's configuration.
        where: the checkpoint, for messages.
        keep_head: refuse a checkpoint whose head cannot be kept.

    Raises:
        CheckpointError: the checkpoint takes other inputs than the recipe's data, or has not the labels of it.
    """
    theirs = source.config
    _check_inputs(theirs, wanted, where)
    kept = _answers(theirs) == _answers(wanted)
    if keep_head and not kept:
        raise CheckpointError(_other_head(theirs, wanted, where))
    model = build_model(
        replace(
            theirs,
            task=wanted.task,
            labels=wanted.labels,
            task_labels=wanted.task_labels,
            preprocessing=wanted.preprocessing,
            decoder=theirs.decoder if kept else _new_decoder(theirs, wanted),
        )
    )
    weights = {name: tensor for name, tensor in source.state_dict().items() if kept or name.startswith(_BODY)}
    fresh, _ = model.load_state_dict(weights, strict=False)
    log.info("Starting from %s: %s", where, f"{len(fresh)} tensors of the head are new" if fresh else "head kept")
    return model


def _answers(config: PerceiverConfig) -> tuple[Any, ...]:
    """What a head is for."""
    return config.task, config.labels, list((config.task_labels or {}).items())


def _new_decoder(theirs: PerceiverConfig, wanted: PerceiverConfig) -> DecoderConfig | MeanDecoderConfig:
    if theirs.task != wanted.task or wanted.decoder.output_channels is None:
        return wanted.decoder
    return replace(theirs.decoder, output_channels=wanted.decoder.output_channels)


def _check_inputs(theirs: PerceiverConfig, wanted: PerceiverConfig, where: str) -> None:
    if theirs.input.kind != wanted.input.kind:
        raise CheckpointError(
            f"{where} takes {theirs.input.kind} input; the recipe trains on {wanted.input.kind}. Give a checkpoint of "
            "the same modality."
        )
    tokens = theirs.preprocessing
    if isinstance(tokens, TextPreprocessing) and tokens != wanted.preprocessing:
        raise CheckpointError(
            f"{where} numbers its tokens otherwise than the recipe's data ({tokens}; expected {wanted.preprocessing}). "
            "Give a checkpoint with the same token ids."
        )


def _other_head(theirs: PerceiverConfig, wanted: PerceiverConfig, where: str) -> str:
    if theirs.task != wanted.task:
        reason = f"it is for {theirs.task}, the recipe for {wanted.task}"
    elif missing := [label for label in wanted.labels or () if label not in (theirs.labels or ())]:
        reason = f"it does not have the labels {', '.join(missing[:5])}"
    else:
        reason = "its labels are in another order, or more than those of the recipe's data"
    return f"The head of {where} cannot be kept: {reason}. Leave --keep-head out to train a new one."
