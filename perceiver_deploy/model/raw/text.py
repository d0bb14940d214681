"""Text tasks on raw bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from perceiver_deploy.bundle.manifest import Axis, Signature, TensorSpec
from perceiver_deploy.bundle.preprocessing import MASKED_BYTE, TextPreprocessing
from perceiver_deploy.model.raw.wrapping import RawModel
from perceiver_deploy.model.tasks.catalogue import PerceiverModel

_SPECIALS = 2
"""CLS and SEP."""


class RawTextModel(RawModel):
    """`utf8` [batch, length] with its `attention_mask` to tokens: CLS, the bytes, SEP right after a row's last byte.

    A byte that the mask hides becomes PAD. The byte 255, which UTF-8 never has, is a masked one.
    """

    def __init__(self, model: PerceiverModel, preprocessing: TextPreprocessing) -> None:
        super().__init__(model)
        self.preprocessing = preprocessing

    @property
    def signature(self) -> Signature:
        """Two tokens of the model's length are CLS and SEP. Logits over the vocabulary are those of the bytes."""
        length = self.wrapped.signature.axes["length"]
        most = None if length.max is None else length.max - _SPECIALS
        axis = Axis(opt=max(1, length.opt - _SPECIALS), max=most)
        utf8 = TensorSpec(name="utf8", dtype="uint8", shape=("batch", "length"), minimum=0, maximum=255)
        return self._raw_signature({"input_ids": utf8}, {"length": axis})

    def forward(self, utf8: Tensor, attention_mask: Tensor, task_ids: Tensor | None = None) -> dict[str, Tensor]:
        """The outputs of the model."""
        tokens = self._tokens(utf8, attention_mask)
        outputs: dict[str, Tensor] = self.wrapped(*tokens) if task_ids is None else self.wrapped(*tokens, task_ids)
        if self.config.task == "masked_lm":
            return {"logits": outputs["logits"][:, 1:-1]}
        return outputs

    def _tokens(self, utf8: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """`input_ids` and `attention_mask` [batch, length + 2]."""
        text = self.preprocessing
        present, values = attention_mask != 0, utf8.to(torch.int64)
        ids = torch.where(values == MASKED_BYTE, text.mask_id, values + text.byte_offset)
        ids = torch.where(present, ids, text.pad_id)
        place = torch.arange(1, values.shape[1] + 1, device=values.device)
        last = (place * present.to(torch.int64)).amax(1, keepdim=True)
        column = torch.zeros_like(last)
        ids = torch.cat([column + text.cls_id, ids, column + text.pad_id], dim=1)
        mask = torch.cat([column + 1, present.to(torch.int64), column], dim=1)
        is_sep = torch.arange(values.shape[1] + _SPECIALS, device=values.device) == last + 1
        return torch.where(is_sep, text.sep_id, ids), torch.where(is_sep, 1, mask)
