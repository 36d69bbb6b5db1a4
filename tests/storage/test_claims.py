from pathlib import Path

import pytest

from harness.errors import UserError
from harness.storage.claims import check_unclaimed, claim, disclaim

RECIPE = {"seed": 0, "train": {"ctx": 512, "lengths": (1, 2)}}


def check(folder: Path, recipe: dict) -> bool:
    return check_unclaimed(folder, recipe, "run", "output_dir")


def test_a_directory_is_its_recipes_until_it_is_given_back(tmp_path: Path) -> None:
    assert not check(tmp_path / "new", RECIPE)
    claim(tmp_path / "new", RECIPE)
    assert check(tmp_path / "new", RECIPE)
    disclaim(tmp_path / "new")
    assert not check(tmp_path / "new", {"seed": 1})


def test_another_run_is_refused_and_what_differs_is_named(tmp_path: Path) -> None:
    claim(tmp_path, RECIPE)
    with pytest.raises(UserError) as refused:
        check(tmp_path, {"seed": 0, "train": {"ctx": 1024, "lengths": (1, 2)}, "method": "yarn"})
    message = str(refused.value)
    assert "another run" in message
    assert "method (None there, yarn now)" in message
    assert "train.ctx (512 there, 1024 now)" in message
    assert "seed" not in message


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_damaged_recipe_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "recipe.json").write_bytes(content)
    with pytest.raises(UserError, match=r"recipe\.json is damaged"):
        check(tmp_path, RECIPE)
