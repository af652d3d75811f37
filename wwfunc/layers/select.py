"""Which of the layers found a user asked for, and which of those are fit to be measured."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from wwfunc.checks import Selector
from wwfunc.errors import SelectionError
from wwfunc.layers.layer import Layer
from wwfunc.options import Options

NOT_SELECTED = "not selected by layers="


def chosen(layers: Sequence[Layer], selectors: Sequence[Selector]) -> set[str]:
    """Names of the tensors whose layers the selectors take.

    A positive id, a name, a type, a kind or a pattern takes layers; a negative id leaves one out.

    Raises
    ------
    SelectionError
        If a selector fits no layer.
    """
    excluded = {-s for s in selectors if isinstance(s, int) and s < 0}
    wanted = [s for s in selectors if not (isinstance(s, int) and s < 0)]
    for selector in (*wanted, *sorted(excluded)):
        if not any(_fits(layer, selector) for layer in layers):
            raise SelectionError(_nothing_fits(selector, layers))
    found = {
        layer.tensor
        for layer in layers
        if layer.layer_id not in excluded
        and (not wanted or any(_fits(layer, selector) for selector in wanted))
    }
    if layers and not found:
        raise SelectionError(f"layers={list(selectors)} leaves out every layer that it takes")
    return found


def unfit(layer: Layer, options: Options) -> str | None:
    """Why the options keep a layer from being measured, or None."""
    if layer.num_evals == 0:
        return "skipped: an empty tensor"
    if layer.num_evals < options.min_evals:
        return f"skipped: {layer.num_evals} eigenvalues, min_evals is {options.min_evals}"
    if options.max_evals is not None and layer.num_evals > options.max_evals:
        return f"skipped: {layer.num_evals} eigenvalues, max_evals is {options.max_evals}"
    if options.max_N is not None and options.max_N < layer.N:
        return f"skipped: N is {layer.N}, max_N is {options.max_N}"
    return None


def _fits(layer: Layer, selector: Selector) -> bool:
    if isinstance(selector, int):
        return layer.layer_id == selector
    words = (layer.longname, layer.tensor, layer.layer_type, layer.kind)
    return selector in words or any(fnmatchcase(word, selector) for word in words[:2])


def _nothing_fits(selector: Selector, layers: Sequence[Layer]) -> str:
    if isinstance(selector, int):
        ids = [layer.layer_id for layer in layers]
        span = f"; there are {min(ids)} to {max(ids)}" if ids else ""
        return f"no layer has the id {selector}{span} (norms and biases have no row)"
    known = [layer.longname for layer in layers]
    close = difflib.get_close_matches(selector, known, 1)
    nearest = f"; the nearest name is {close[0]!r}" if close else ""
    return f"no layer fits {selector!r}{nearest}"
