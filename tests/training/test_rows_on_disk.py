"""Rows in a temporary file."""

import torch

from fgclip2.training.rows_on_disk import RowsOnDisk


def test_rows_come_back_in_any_order():
    values = torch.randn(5, 3, 2)
    with RowsOnDisk(3, 2) as rows:
        rows.append(values[:2])
        assert torch.equal(rows[torch.tensor([1, 0])], values[[1, 0]])
        rows.append(values[2:2])
        rows.append(values[2:].transpose(1, 2).contiguous().transpose(1, 2))  # not contiguous
        assert len(rows) == 5
        wanted = torch.tensor([4, 0, 4, 2])
        found = rows[wanted]
        assert torch.equal(found, values[wanted])
        rows.append(values.half())
        assert torch.equal(rows[torch.tensor([9])], values[4:].half().float())
    assert torch.equal(found, values[wanted])  # read, not mapped
