"""Columns that say which layer a row is about."""

from __future__ import annotations

from wwfunc.columns.column import column

COLUMNS = (
    column(
        "layer_id",
        "int",
        "layer.layer_id",
        "Rank of the tensor's name, in natural order, among all weight tensors",
        "from 1",
    ),
    column("name", "text", "layer.longname", "The same as longname"),
    column("longname", "text", "layer.longname", "Name of the layer in the checkpoint"),
    column("part", "text", "layer.part", "Part of the tensor that the row is about; empty for all"),
    column(
        "layer_type",
        "text",
        "layer.layer_type",
        "WeightWatcher's word for the layer (dense for an embedding)",
    ),
    column("kind", "text", "layer.kind", "dense, embedding, conv1d, conv2d or conv3d"),
    column("block", "int", "layer.block", "Number of the repeated block, where the name tells"),
    column("role", "text", "layer.role", "q, k, v, o, up, gate, down, embed, head ..."),
)
