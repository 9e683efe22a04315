"""Meshes and the table of logical axes: what is divided, and what is refused with a reason."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from mirage_jax.distributed.axes import TABLE, left_whole, shardings_for, spec_for
from mirage_jax.distributed.constrain import constrain, on_own_part
from mirage_jax.distributed.mesh import AXES, MeshConfig, abstract_mesh, make_mesh, parse_mesh

EIGHT = abstract_mesh(MeshConfig(fsdp=2, context=2, tensor=2), 8)


def test_every_mesh_has_the_four_axes_with_their_types_stated():
    mesh = make_mesh(MeshConfig())
    assert mesh.axis_names == AXES
    assert dict(mesh.shape) == dict.fromkeys(AXES, 1)
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


def test_one_axis_takes_the_devices_that_are_left():
    assert MeshConfig(fsdp=-1, tensor=2).sizes(8) == dict(data=1, fsdp=4, context=1, tensor=2)
    with pytest.raises(ValueError, match="fsdp=4 context=1 tensor=4 with 8 devices"):
        MeshConfig(fsdp=4, tensor=4).sizes(8)
    with pytest.raises(ValueError, match="tensor=3 with 8 devices, expected a product that divid"):
        MeshConfig(fsdp=-1, tensor=3).sizes(8)
    with pytest.raises(ValueError, match="-1 for one axis at most"):
        MeshConfig(data=-1, fsdp=-1)
    with pytest.raises(ValueError, match=r"mesh.context: got 0, expected a number of devices"):
        MeshConfig(context=0)


def test_a_mesh_on_the_command_line_is_read_or_refused():
    assert parse_mesh("fsdp=8, context=-1") == {"fsdp": 8, "context": -1}
    for wrong in ("fdsp=8", "fsdp", "fsdp=x"):
        with pytest.raises(ValueError, match=f"--mesh: got '{wrong}', expected axis=size"):
            parse_mesh(wrong)


class Device:
    """A device of a cluster of slices, as JAX describes it."""

    platform, device_kind = "cpu", "cpu"

    def __init__(self, index, slices):
        self.id, self.slice_index, self.process_index = index, index * slices // 8, 0


def test_only_the_data_axis_crosses_from_slice_to_slice():
    devices = [Device(index, 2) for index in range(8)]
    shuffled = [devices[i] for i in (0, 4, 1, 5, 2, 6, 3, 7)]
    from mirage_jax.distributed.mesh import _ordered

    grid = _ordered(shuffled, (2, 2, 1, 2))
    assert [[d.slice_index for d in copy.flat] for copy in grid] == [[0] * 4, [1] * 4]
    with pytest.raises(ValueError, match=r"mesh.data: got 1 with devices in 2 slices"):
        _ordered(shuffled, (1, 4, 1, 2))


def test_specs_follow_the_table_and_leave_out_axes_of_one_device():
    assert spec_for(("layers", "embed", "mlp"), (3, 8, 8), EIGHT, "x") == P(
        None, ("fsdp", "context"), "tensor"
    )
    assert spec_for(("batch", "frames", "tokens", None), (4, 1, 2, 3), EIGHT, "x") == P(
        "fsdp", None, "context"
    )
    one = abstract_mesh(MeshConfig(), 1)
    assert all(spec_for((name,), (7,), one, "x") == P() for name in TABLE)
    assert spec_for(("embed",), (8,), EIGHT, "x", whole_below=9) == P()


@pytest.mark.parametrize(
    ("names", "shape", "message"),
    [
        (("embd",), (8,), "w: unknown logical axis 'embd'.*did you mean 'embed'"),
        (("mlp", "heads"), (8, 8), "w: .*put mesh axis 'tensor' on two dimensions"),
        (("embed", None), (6, 8), r"w: dimension 0 \(embed\) is 6, expected a multiple of 4"),
        (("embed",), (8, 8), r"w: got logical axes \('embed',\) for shape \(8, 8\)"),
    ],
)
def test_what_does_not_fit_is_explained(names, shape, message):
    with pytest.raises(ValueError, match=message):
        spec_for(names, shape, EIGHT, "w")


def test_large_arrays_that_stay_whole_are_listed_by_name_with_the_idle_axes():
    shapes = {
        "block": {
            "divided": jax.ShapeDtypeStruct((1024, 1024), jnp.float32),
            "forgotten": jax.ShapeDtypeStruct((1024, 1024), jnp.float32),
            "small": jax.ShapeDtypeStruct((4,), jnp.float32),
        }
    }
    axes = {"block": {"divided": ("embed", None), "forgotten": (None, None), "small": (None,)}}
    found = left_whole(shapes, shardings_for(axes, shapes, EIGHT), at_least=2**20)
    assert found == ["block/forgotten (1024, 1024) 4 MiB, idle: fsdp, context, tensor"]
    data = abstract_mesh(MeshConfig(data=8), 8)
    assert not left_whole(shapes, shardings_for(axes, shapes, data), at_least=1)
    with pytest.raises(ValueError, match=r"block: no logical axes for \['forgotten', 'small'\]"):
        shardings_for({"block": {"divided": ("embed", None)}}, shapes, EIGHT)


def test_on_one_device_nothing_is_constrained():
    x = jnp.ones((3, 5))
    assert constrain(x, "no such axis", None) is x
    assert on_own_part(len, "batch") is len
