"""Cutting a family's blocks into stages, and finding out what has to cross each cut.

Everything before the block "denoise" is the encoder, "denoise" is the DiT, what follows is the
decoder. Which blocks run follows from what a request carries; what crosses a cut is what a later
block reads and an earlier one wrote.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from diffusers.modular_pipelines import LoopSequentialPipelineBlocks, SequentialPipelineBlocks

from disagfusion.pipeline.stages import Stage

_DENOISE = "denoise"
_MAX_PLANS = 64


@dataclass(frozen=True, slots=True)
class Input:
    """An input of the whole pipeline: name, default, and the group that it belongs to."""

    name: str
    default: Any
    group: str | None


@dataclass(frozen=True, slots=True)
class Reads:
    """What is read: single names, and groups of names that blocks put together as they run."""

    names: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """What runs for one kind of request.

    Attributes:
        blocks: The blocks of each stage, in order, all conditions resolved.
        reads: What each stage or a later one reads and the stage before must hand over.
        groups: For each stage, the group that a name was put in by the stages before it.
        outputs: What the last stage makes that is not an input of it.
    """

    blocks: Mapping[Stage, tuple[Any, ...]]
    reads: Mapping[Stage, Reads]
    groups: Mapping[Stage, Mapping[str, tuple[str, ...]]]
    outputs: tuple[str, ...]


class StagedBlocks:
    """A family's blocks, cut in three.

    Args:
        blocks: The family's top-level blocks. They are copied: several families keep block
            instances in class attributes, so a change to one would reach everybody.

    Raises:
        ValueError: There is no block called "denoise" at the top.
    """

    def __init__(self, blocks: Any) -> None:
        self.blocks = copy.deepcopy(blocks)
        names = list(self.blocks.sub_blocks)
        if _DENOISE not in names:
            raise ValueError(f"no block {_DENOISE!r} among {', '.join(names)}")
        cut = names.index(_DENOISE)
        self._stage_of = {
            name: Stage.ENCODER if i < cut else Stage.DIT if i == cut else Stage.DECODER
            for i, name in enumerate(names)
        }
        self.inputs = tuple(
            Input(p.name, p.default, p.kwargs_type)
            for p in self.blocks.inputs
            if p.name is not None
        )
        self._defaults = {p.name: p.default for p in self.inputs if p.default is not None}
        self._triggers = frozenset(_triggers(self.blocks))
        self._plans: OrderedDict[tuple[tuple[str, Any], ...], Plan] = OrderedDict()
        for loop in _loops(self.blocks):
            loop.set_progress_bar_config(disable=True)

    def part(self, stage: Stage) -> Any:
        """Return the blocks of a stage with all their branches, as one block."""
        return SequentialPipelineBlocks.from_blocks_dict(
            {n: b for n, b in self.blocks.sub_blocks.items() if self._stage_of[n] is stage}
        )

    def plan(self, request: Mapping[str, Any]) -> Plan:
        """Return what runs for a request. Cached by what decides it.

        Args:
            request: Parameters by name; those that are None count as not given.
        """
        given = {**self._defaults, **{k: v for k, v in request.items() if v is not None}}
        key = tuple(
            (name, given[name] if isinstance(given[name], (bool, int, str)) else True)
            for name in sorted(self._triggers & given.keys())
        )
        if key in self._plans:
            self._plans.move_to_end(key)
        else:
            self._plans[key] = self._make_plan(given)
            if len(self._plans) > _MAX_PLANS:
                self._plans.popitem(last=False)
        return self._plans[key]

    def _make_plan(self, given: Mapping[str, Any]) -> Plan:
        flat = self.blocks.get_execution_blocks(**given)
        blocks: dict[Stage, list[Any]] = {stage: [] for stage in Stage}
        for path, block in flat.sub_blocks.items():
            blocks[self._stage_of[path.split(".")[0]]].append(block)

        reads: dict[Stage, Reads] = {}
        live = Reads()
        for stage in reversed(Stage):
            for block in reversed(blocks[stage]):
                live = _read_before(block, live)
            reads[stage] = live

        return Plan(
            blocks={stage: tuple(found) for stage, found in blocks.items()},
            reads=reads,
            groups=self._groups(blocks),
            outputs=_outputs(blocks[Stage.DECODER]),
        )

    def _groups(
        self, blocks: Mapping[Stage, list[Any]]
    ) -> dict[Stage, Mapping[str, tuple[str, ...]]]:
        """Return for each stage the groups that names belong to when it starts."""
        known = {p.name: (p.group,) for p in self.inputs if p.group is not None}
        groups: dict[Stage, Mapping[str, tuple[str, ...]]] = {}
        for stage in Stage:
            groups[stage] = dict(known)
            for block in blocks[stage]:
                for output in block.intermediate_outputs:
                    if output.kwargs_type and output.name:
                        known[output.name] = (*known.get(output.name, ()), output.kwargs_type)
        return groups


def _outputs(blocks: Iterable[Any]) -> tuple[str, ...]:
    """Return what the last stage makes and does not use up itself."""
    blocks = list(blocks)
    made = [o.name for block in blocks for o in block.intermediate_outputs if o.name]
    used = {p.name for block in blocks for p in block.inputs}
    left = [name for name in made if name not in used]
    # Postprocessing may give its result the name of what it reads.
    left = left or [o.name for block in blocks[-1:] for o in block.intermediate_outputs]
    return tuple(dict.fromkeys(left))


def _read_before(block: Any, live: Reads) -> Reads:
    """Return what must be there before a block, given what is read after it."""
    writes = {output.name for output in block.intermediate_outputs}
    names = {p.name for p in block.inputs if p.name is not None}
    groups = {p.kwargs_type for p in block.inputs if p.name is None and p.kwargs_type}
    return Reads(live.names - writes | names, live.groups | groups)


def _triggers(block: Any) -> Iterator[str]:
    yield from (name for name in getattr(block, "block_trigger_inputs", None) or () if name)
    for child in (block.sub_blocks or {}).values():
        yield from _triggers(child)


def _loops(block: Any) -> Iterator[Any]:
    if isinstance(block, LoopSequentialPipelineBlocks):
        yield block
    for child in (block.sub_blocks or {}).values():
        yield from _loops(child)
