import shutil

import pytest
import torch

from clvr_bench import ClvrBenchError, DataFacts, Images, SampleRandom
from clvr_bench.ops.compiling import compilable, compiled_operations, compiling
from clvr_plugins.augmentations.simclr import SimCLRAugmentation

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler: apt install g++"
)


@needs_compiler
def test_compiled_views_are_those_of_the_plain_operations():
    pixels = torch.randint(0, 256, (12, 3, 24, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    augmentation = SimCLRAugmentation(DataFacts("image", 12, 16))
    random = SampleRandom.keyed(0, 0, torch.arange(12))
    plain = augmentation(Images.whole(pixels), 2, random)
    with compiled_operations():
        compiled = augmentation(Images.whole(pixels), 2, random)
    torch.testing.assert_close(compiled, plain, rtol=0, atol=1e-5)  # float32 rounding; 1/400 of a uint8 step


@needs_compiler
def test_only_what_runs_within_the_context_is_compiled(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function: asked.append(function) or function)

    @compilable
    def double(x):
        return 2 * x

    assert double(3) == 6
    assert not compiling()
    with compiled_operations():
        assert compiling()
        assert double(3) == double(torch.tensor(3)) == 6
    assert [function.__name__ for function in asked] == ["<lambda>", "double"]
    assert not compiling()


def test_where_torch_cannot_compile_it_says_so(monkeypatch):
    def broken(function):
        raise RuntimeError("no C++\ncompiler")

    monkeypatch.setattr(torch, "compile", broken)
    with (
        pytest.raises(ClvrBenchError, match=r"torch.compile does not work here \(no C\+\+ compiler\).* such as g\+\+"),
        compiled_operations(),
    ):
        pass
    assert not compiling()
