"""The variant with CUDA: that it builds, and what it compiles."""

from __future__ import annotations

import pytest

from hpckit.image import apptainer, build

KERNEL = "__global__ void twice(double *x) { x[threadIdx.x] *= 2; }"
COMPILE = f"""
cd $(mktemp -d)
echo '{KERNEL}' > kernel.cu
for card in 75 80 86 89 90 100; do nvcc -cubin -arch=sm_$card -o $card.cubin kernel.cu; done
ls *.cubin | wc -l
ls "$HPCKIT_KERNELS_SHIPPED" | wc -l
ldd /opt/hpckit/lib/python3*/site-packages/pycuda/_driver.*.so
"""


@pytest.fixture
def for_minutes(request):
    """Makes a fixture of a test that is too long for every day."""
    if not request.config.getoption("--long"):
        pytest.skip("fetches CUDA, and builds PyCUDA for minutes: give --long")
    return request.getfixturevalue


@pytest.mark.timeout(1200)
def test_it_compiles_for_cards_and_asks_for_their_driver(for_minutes, tmp_path):
    compiling_image = for_minutes("compiling_image")
    image = tmp_path / "cuda.sif"
    recipe, lock = build.own_recipe("cuda"), build.own_lock("cuda")
    build.build_image(recipe, lock, image, str(compiling_image), print)
    said = apptainer.run_inside(str(image), ["sh", "-ec", COMPILE])
    assert said.returncode == 0, said.stderr
    compiled, shipped, *linked = said.stdout.splitlines()
    assert compiled == "6"
    # Three jobs and two sources of hpckit's own, for as many kinds of cards.
    assert shipped == str(5 * 6)
    assert any("libcuda.so.1" in line for line in linked)
    assert not [line for line in linked if "not found" in line and "libcuda.so.1" not in line]


def test_its_base_has_a_compiler(for_minutes, hpckit):
    bare_image = for_minutes("bare_image")
    ended = hpckit("image", "build", "--variant", "cuda", "--base", bare_image)
    assert ended.code == 1
    assert "its base has no g++" in ended.stderr
