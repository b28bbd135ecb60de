from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra edgeseg[train]")

from training_helpers import recipe, write_scenes  # noqa: E402

from edgeseg.recipe import Recipe  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), {"train": 8, "val": 2, "test": 2})


@pytest.fixture
def tiny_recipe() -> Recipe:
    return recipe()
