"""Pickled weights: rewritten with equal tensors; code in them does not run."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_users import User, are_equal, stored
from outlier_features.models.checkpoints import read_source

pytestmark = pytest.mark.slow
UNREAD = "name a revision with safetensors."


def test_bin_files_are_rewritten_with_equal_tensors(user: User, opt: Path) -> None:
    user.publish(opt)
    assert user.fetch().status == 0
    read_source(user.output)
    assert are_equal(stored(*user.output.glob("*.safetensors")), stored(*opt.glob("*.bin")))
    assert not list(user.output.glob("*.bin*"))
    file = "model-00002-of-00003.safetensors"
    named = json.loads((user.output / "model.safetensors.index.json").read_text())["weight_map"]
    assert {name for name in named if named[name] == file} == stored(user.output / file).keys()


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "older-format"])
def test_a_single_bin_file_is_rewritten_tied_tensors_too(user: User, odd: Path, is_zip: bool) -> None:
    weight = torch.arange(12.0).view(3, 4)
    tied = {"embedding": weight, "head": weight, "turned": weight.T}
    torch.save(tied, odd / "pytorch_model.bin", _use_new_zipfile_serialization=is_zip)
    (odd / "training_args.bin").write_bytes(b"no weights")
    user.publish(odd)
    assert user.fetch().status == 0
    assert are_equal(stored(user.output / "model.safetensors"), tied)
    assert "training_args.bin" not in user.asked()


class Command:
    """A pickle of this makes a file when it is read without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "plain"])
def test_a_pickle_that_holds_code_is_refused_and_the_code_does_not_run(user: User, odd: Path, is_zip: bool) -> None:
    made = user.directory / "made"
    content = {"weight": torch.ones(2), "more": Command(made)}
    if is_zip:
        torch.save(content, odd / "pytorch_model.bin")
    else:
        (odd / "pytorch_model.bin").write_bytes(pickle.dumps({"more": Command(made)}, protocol=2))
    user.publish(odd)
    assert user.fetch().error == f"org/model: pytorch_model.bin asks for posix.mkdir, and code is never run; {UNREAD}"
    assert not made.exists()
    assert not user.output.exists()


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "older-format"])
@pytest.mark.parametrize("share", [0, 0.02, 0.6, 0.99])
def test_a_bin_file_that_was_published_cut_is_refused(user: User, odd: Path, is_zip: bool, share: float) -> None:
    path = odd / "pytorch_model.bin"
    torch.save({f"weight_{n}": torch.ones(8, 8) for n in range(4)}, path, _use_new_zipfile_serialization=is_zip)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    user.publish(odd)
    assert user.fetch().error == f"org/model: pytorch_model.bin is cut or damaged, or no pickle of tensors; {UNREAD}"
    assert not user.output.exists()
