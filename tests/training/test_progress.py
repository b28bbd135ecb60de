"""Training logs a line per stage and epoch, and while it fills the teacher cache."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from training_helpers import recipe

from edgeseg.training import stages


def test_a_line_per_stage_and_epoch(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        teacher = stages.train_teacher(recipe(), root, tmp_path)
    assert {record.name.rpartition(".")[0] for record in caplog.records} == {"edgeseg.training"}
    expected = [
        r"teacher: 8 training and 2 validation frames, 2 epochs of 2 steps on (cpu|cuda:0|mps:0)",
        r"teacher: epoch 1 of 2, loss \d\.\d{3}, val mIoU \d\.\d{3}, pixel accuracy \d\.\d{3}, \d+ s",
        r"teacher: epoch 2 of 2, .*",
        r"teacher: finished after 2 epochs, val mIoU \d\.\d{3}",
    ]
    assert len(caplog.messages) == len(expected)
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(expected, caplog.messages)), caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        stages.distill_student(recipe(distill={"cache": True}), teacher, root, tmp_path)
    lines = [line for line in caplog.messages if "teacher cache" in line]
    assert lines == [f"distilled: teacher cache, frame {i} of 8" for i in range(1, 9)]


def test_a_finished_stage_says_so_alone(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stages.train_student(recipe(), root, tmp_path)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        stages.train_student(recipe(), root, tmp_path)
    assert caplog.messages[0] == "Resuming after epoch 2."
    assert [line for line in caplog.messages if re.search("epoch . of", line)] == []
