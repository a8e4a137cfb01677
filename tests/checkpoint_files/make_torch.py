"""Writes `small.pth` and `old.pth` beside this file: what torch.save makes of a few tensors.

Element `i` of each tensor is `i / 2 - 3`. There are tensors of every element type that graphc reads and of two that it
does not, one that is a transposed view, one that is a part of another's storage, a parameter, and a number beside them.
`old.pth` is of the format before torch 1.6. Made with torch 1.13.0 (Debian 12: python3-torch); the versions since write
further entries into the archive and the same pickle.
"""

import collections
import pathlib

import torch


def values(dtype, *shape):
    count = torch.Size(shape).numel()
    return (torch.arange(count, dtype=torch.float32) / 2 - 3).to(dtype).reshape(shape)


folder = pathlib.Path(__file__).parent
shared = values(torch.float32, 4, 3)
tensors = collections.OrderedDict(
    single=values(torch.float32, 2, 3),
    half=values(torch.float16, 3),
    bfloat=values(torch.bfloat16, 2, 1, 2),
    scalar=values(torch.float32, 1)[0],
    empty=values(torch.float16, 0, 4),
    turned=values(torch.bfloat16, 3, 2).t(),
    shared=shared,
    rows=shared[1:3],
    column=shared[:, 1],
    parameter=torch.nn.Parameter(values(torch.float16, 2)),
    double=values(torch.float64, 2),
    long=values(torch.int64, 2),
    step=7,
)
tensors._metadata = collections.OrderedDict({"": {"version": 1}})
torch.save(tensors, folder / "small.pth")
torch.save({"state_dict": {"half": tensors["half"]}, "epoch": 3, "loss": 0.5}, folder / "nested.pth")
torch.save({"half": tensors["half"]}, folder / "old.pth", _use_new_zipfile_serialization=False)
torch.save({"half": tensors["half"], "shape": torch.Size([3])}, folder / "refused.pth")
