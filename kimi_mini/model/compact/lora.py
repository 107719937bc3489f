"""LoRA: a small change of a large model, kept apart from it.

    W' = W + alpha / r * B A          A (r, in) random, B (out, r) zero at the start: then nothing is changed

W stays as it is, without a gradient; A and B learn. Here of the projections of attention and of the routed experts,
where the matrices are stacked, (E, out, in), and each expert has an A and a B of its own. The shared expert, the dense
layers, router, norms, embedding and head are never adapted.

    adapter = Adapter.new(model, rank=8, alpha=16)
    with attached(model, adapter):                 # the model computes with W', in training, decoding and folding
        train(model, optimizer_of(adapter), ..., bias_rate=0)        # the router's bias is the base's: leave it alone
    adapter.save(folder);  adapter = load_adapter(model, folder)     # a folder of the library peft, see `compact.peft`
    adapter.merge(model);  unmerge(model)                            # W' in the place of W, and back to the last bit

While it is attached the adapter is a part of the model, `model.adapter`: its parameters are, and the keys of the base
do not change. The modules that are adapted read their weights as W', computed at each reading, so that what takes a
matrix itself (absorbed attention, folded decoding) takes the right one. At this size B A costs nothing; a large model
would multiply x by A and then by B, as `inference.adapters` does.

QK-Clip shrinks rows of W, and W is frozen: it leaves an adapted model alone, and what it would have shrunk is only
recorded (`History.max_logit`). Scaling rows of B A would not help, for the logits are made by W + B A. A model into
which an adapter was merged is clipped like any other.

Source: Hu et al., LoRA (arXiv 2106.09685), sections 4.1 and 4.2.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from kimi_mini.base.errors import BadFile, KimiError
from kimi_mini.model.attention import LatentAttention
from kimi_mini.model.compact import peft
from kimi_mini.model.layers import Linear
from kimi_mini.model.moe import Experts

TARGETS = (*peft.PROJECTIONS, "experts")


class Pair(nn.Module):
    """A (..., r, in) and B (..., out, r) of one parameter (..., out, in)."""

    def __init__(self, a: Tensor, b: Tensor):
        super().__init__()
        self.a, self.b = nn.Parameter(a), nn.Parameter(b)

    @classmethod
    def new(cls, weight: Tensor, rank: int, generator: torch.Generator) -> Pair:
        """A uniform within 1 / sqrt(in), as peft has it, and B zero."""
        *stack, out, into = weight.shape
        a = torch.rand(*stack, rank, into, generator=generator).mul_(2).sub_(1).div_(into**0.5)
        return cls(a.to(weight), weight.new_zeros(*stack, out, rank))

    def shape(self) -> tuple[int, ...]:
        """Of the parameter that it changes."""
        return (*self.b.shape[:-1], self.a.shape[-1])


def key(name: str) -> str:
    """A parameter's name as the name of a module, which has no dots."""
    return name.replace(".", "/")


class Adapter(nn.Module):
    """Pairs of matrices by the names of the parameters that they change, all of one rank.

    base: a mark of the weights that it was made for, by which another base is refused; None: unknown.
    """

    def __init__(self, pairs: Mapping[str, Pair], alpha: float, base: str | None = None):
        super().__init__()
        self.names, self.alpha, self.base = tuple(pairs), alpha, base
        self.pairs = nn.ModuleDict({key(name): pair for name, pair in pairs.items()})

    @classmethod
    def new(
        cls,
        model: nn.Module,
        rank: int = 8,
        alpha: float = 16.0,
        targets: Sequence[str] = TARGETS,
        seed: int = 0,
    ) -> Adapter:
        """One that changes nothing yet. KimiError for a rank below 1, and for targets that the model has none of."""
        if rank < 1:
            raise KimiError(f"the rank of an adapter is a whole number from 1, not {rank}")
        if unknown := set(targets) - set(TARGETS):
            raise KimiError(f"nothing to adapt is called {min(unknown)}: there are {', '.join(TARGETS)}")
        generator = torch.Generator().manual_seed(seed)
        found = places(model, targets)
        if not found:
            raise KimiError(f"the model has none of {', '.join(targets)}")
        pairs = {name: Pair.new(stored(*place), rank, generator) for name, place in found.items()}
        return cls(pairs, alpha, fingerprint(model))

    @property
    def rank(self) -> int:
        """r"""
        return self[self.names[0]].a.shape[-2]

    @property
    def scale(self) -> float:
        """alpha / r"""
        return self.alpha / self.rank

    def __getitem__(self, name: str) -> Pair:
        return self.pairs[key(name)]

    def change(self, name: str) -> Tensor:
        """What is added to a parameter, (..., out, in)."""
        pair = self[name]
        return pair.b @ pair.a * self.scale

    # ---- on a model ------------------------------------------------------------------------------------

    def attach(self, model: nn.Module) -> None:
        """From now on the model computes with W', and only A and B have a gradient. KimiError for another model, and
        for one that an adapter is attached to or merged into."""
        found = self.fitting(model)
        model.frozen = [param for param in model.parameters() if param.requires_grad]
        for param in model.frozen:
            param.requires_grad_(False)
        for name, (module, attribute) in found.items():
            module.__class__ = ADAPTED[_plain(module)]
            module.__dict__.setdefault("changed", {})[attribute] = _Reader(self, name)
        model.adapter = self

    @torch.no_grad()
    def merge(self, model: nn.Module) -> None:
        """Put W' in the place of W. The W that were are kept beside it, for `unmerge`."""
        found = self.fitting(model)
        model.unmerged = {name: stored(*place).clone() for name, place in found.items()}
        for name, place in found.items():
            stored(*place).add_(self.change(name).to(stored(*place)))

    def merged(self, model: nn.Module) -> nn.Module:
        """A copy of the model with the adapter in it."""
        whole = copy.deepcopy(model)
        self.merge(whole)
        del whole.unmerged
        return whole

    def fitting(self, model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
        """Where each of its parameters stands in the model. KimiError for another model, and for one that has an
        adapter."""
        if hasattr(model, "adapter") or hasattr(model, "unmerged"):
            how = "attached to" if hasattr(model, "adapter") else "merged into"
            raise KimiError(f"an adapter is {how} this model already: take it off first")
        found = places(model)
        for name in self.names:
            held, asked = tuple(stored(*found[name]).shape) if name in found else None, self[name].shape()
            if held != asked:
                held = "no such matrix" if held is None else f"one of {held}"
                raise KimiError(f"the adapter is of another model: it has {name} of {asked}, this has {held}")
        return {name: found[name] for name in self.names}

    # ---- on disk ---------------------------------------------------------------------------------------

    def save(self, folder: str | Path, base_name: str = "") -> None:
        """Write a folder of the library peft; base_name: what its config calls the base model."""
        matrices = {name: (self[name].a, self[name].b) for name in self.names}
        peft.write(folder, peft.Folder(matrices, self.alpha, self.base), base_name)


def load_adapter(model: nn.Module, folder: str | Path, any_base: bool = False) -> Adapter:
    """The adapter of a folder that `Adapter.save` or peft wrote, not attached yet.

    MissingFile and BadFile in one line: no such file, a pickle, damage, other shapes, another base. any_base: take it
    for weights that it was not trained on, too (such as the same, rounded).
    """
    found = peft.read(folder, model.config)
    adapter = Adapter({name: Pair(*pair) for name, pair in found.matrices.items()}, found.alpha, found.base)
    try:
        adapter.fitting(model)
    except KimiError as error:
        raise BadFile(f"the adapter in {folder} cannot be used: {error}") from None
    if not any_base and adapter.base is not None and adapter.base != fingerprint(model):
        raise BadFile(
            f"the adapter in {folder} was trained on another base ({adapter.base}, this is {fingerprint(model)}); "
            "any_base=True takes it all the same"
        )
    adapter.to(model.lm_head.weight)
    return adapter


def detach(model: nn.Module) -> Adapter:
    """The model as it was before `attach`; returns the adapter."""
    if not hasattr(model, "adapter"):
        raise KimiError("no adapter is attached to this model")
    adapter = model.adapter
    for module in {module for module, _ in places(model).values()}:
        module.__class__ = _plain(module)
        module.__dict__.pop("changed", None)
    for param in model.frozen:
        param.requires_grad_(True)
    del model.adapter, model.frozen
    return adapter


@contextmanager
def attached(model: nn.Module, adapter: Adapter) -> Iterator[None]:
    """Context: the model with an adapter."""
    adapter.attach(model)
    try:
        yield
    finally:
        detach(model)


@torch.no_grad()
def unmerge(model: nn.Module) -> None:
    """The weights as they were before `merge`, to the last bit."""
    if not hasattr(model, "unmerged"):
        raise KimiError("no adapter is merged into this model")
    found = places(model)
    for name, weight in model.unmerged.items():
        stored(*found[name]).copy_(weight)
    del model.unmerged


# ---- where ---------------------------------------------------------------------------------------------------


def places(model: nn.Module, targets: Sequence[str] = TARGETS) -> dict[str, tuple[nn.Module, str]]:
    """Name of each parameter that may be adapted -> its module, and its name there."""
    found: dict[str, tuple[nn.Module, str]] = {}
    for path, module in model.named_modules():
        if isinstance(module, LatentAttention):
            children = module.named_children()
            found |= {f"{path}.{name}.weight": (one, "weight") for name, one in children if name in targets}
        elif isinstance(module, Experts) and "experts" in targets:
            found |= {f"{path}.{name}": (module, name) for name in peft.EXPERTS}
    return found


def stored(module: nn.Module, attribute: str) -> nn.Parameter:
    """The parameter itself, W, whatever is attached."""
    return module._parameters[attribute]


def fingerprint(model: nn.Module) -> str:
    """Twelve hexadecimal digits that tell one base from another: of all weights that may be adapted."""
    digest = hashlib.sha256()
    for name, place in places(model).items():
        digest.update(name.encode())
        digest.update(
            stored(*place).detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()[:12]


class _Reader:
    """W -> W + alpha / r * B A. No module, or the adapter would be a part of each module that it changes."""

    def __init__(self, adapter: Adapter, name: str):
        self.adapter, self.name = adapter, name

    def __call__(self, weight: Tensor) -> Tensor:
        return weight + self.adapter.change(self.name)


def _changed(attribute: str) -> property:
    """A parameter that is read as W'."""

    def read(module: nn.Module) -> Tensor:
        reader, weight = module.__dict__["changed"].get(attribute), module._parameters[attribute]
        return weight if reader is None else reader(weight)

    return property(read)


class AdaptedLinear(Linear):
    """A Linear whose weight is read as W'."""

    weight = _changed("weight")


class AdaptedExperts(Experts):
    """Experts whose matrices are read as W'."""

    gate_proj, up_proj, down_proj = (_changed(name) for name in peft.EXPERTS)


ADAPTED: dict[type, type] = {Linear: AdaptedLinear, Experts: AdaptedExperts}


def _plain(module: nn.Module) -> type:
    """Its class without an adapter."""
    return next((plain for plain, adapted in ADAPTED.items() if type(module) is adapted), type(module))
