"""What a part of a program costs, by count, against what it must cost."""

import jax
import jax.numpy as jnp

from mirage_jax.plan.shares import Turns, count

LAYERS, ROWS, WIDTH, TAKEN = 7, 64, 128, 16


def compiled_text(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, kind) for shape, kind in shapes]
    return jax.jit(function).lower(*arguments).compile().as_text()


def layers_and_a_part(x, weights, table, index):
    def layer(x, number):
        return jnp.tanh(x @ weights[number]), None

    x, _ = jax.lax.scan(layer, x, jnp.arange(LAYERS))
    with jax.named_scope("part"):
        taken = jnp.sin(table[index])
        return x.sum() + jnp.sum(taken @ taken.T)


ARGUMENTS = (
    ((ROWS, WIDTH), jnp.float32),
    ((LAYERS, WIDTH, WIDTH), jnp.float32),
    ((1000, WIDTH), jnp.float32),
    ((TAKEN,), jnp.int32),
)


def test_bytes_are_those_of_operands_and_results_and_loops_count_as_often_as_they_run():
    whole, part = count(compiled_text(layers_and_a_part, *ARGUMENTS), ("part",), Turns())
    # A product reads rows and one layer's weights, which were cut out before, and writes rows.
    product = 4 * (2 * ROWS * WIDTH + WIDTH * WIDTH)
    cut, activation = 4 * 2 * WIDTH * WIDTH, 4 * 2 * ROWS * WIDTH
    least = LAYERS * (product + activation)
    assert least < whole.bytes < 1.2 * (least + LAYERS * cut) + part.bytes
    # Of the table no more is read than is taken.
    taken = 4 * TAKEN * WIDTH
    assert 2 * taken < part.bytes < 8 * taken < 4 * 1000 * WIDTH


def test_operations_of_a_part_hold_its_products():
    _, part = count(compiled_text(layers_and_a_part, *ARGUMENTS), ("part",), Turns())
    product, sines = 2 * TAKEN * TAKEN * WIDTH, TAKEN * WIDTH
    assert product + sines <= part.operations < 1.3 * (product + sines)
    nothing = count(compiled_text(layers_and_a_part, *ARGUMENTS), ("other",), Turns())[1]
    assert nothing.operations == nothing.bytes == 0


def test_gradients_of_a_part_are_the_parts():
    gradient = jax.grad(layers_and_a_part, argnums=2)
    _, part = count(compiled_text(gradient, *ARGUMENTS), ("part",), Turns())
    # Two more products, and a gradient as large as the table.
    assert part.operations > 2 * 2 * TAKEN * TAKEN * WIDTH
    assert part.bytes > 4 * 1000 * WIDTH


def test_loops_that_end_by_data_count_as_often_as_is_said():
    def until_small(x):
        with jax.named_scope("part"):
            return jax.lax.while_loop(lambda x: x.max() > 1, lambda x: jnp.sin(x) / 2, x)

    text = compiled_text(until_small, ((ROWS, WIDTH), jnp.float32))
    once, often = (count(text, ("part",), Turns(loops=turns))[1] for turns in (1, 11))
    turn = 4 * 2 * ROWS * WIDTH
    assert often.bytes - once.bytes >= 10 * turn
    assert often.operations - once.operations >= 10 * 2 * ROWS * WIDTH


def test_what_lies_in_vector_memory_or_is_passed_on_costs_nothing():
    text = """HloModule jit_f
ENTRY %main (p: f32[8,128], q: f32[64,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  %q = f32[64,128]{1,0:T(8,128)} parameter(1)
  %near = f32[8,128]{1,0:T(8,128)S(1)} add(%p, %p), metadata={op_name="jit(f)/part/add"}
  %put = f32[64,128]{1,0} custom-call(%near, %q), output_to_operand_aliasing={{}: (1, {})}
  ROOT %out = f32[8,128]{1,0:T(8,128)} add(%near, %near), metadata={op_name="jit(f)/add"}
}
"""
    whole, part = count(text, ("part",), Turns())
    rows = 4 * 8 * 128
    assert part.bytes == 2 * rows  # p twice; the unnamed call only moves what is near
    assert whole.bytes == 3 * rows


def test_a_kernel_that_walks_through_rows_counts_every_row_with_every_cell():
    text = """HloModule jit_f
ENTRY %main (p: f32[3,4,256]) -> s32[2,8,128] {
  %p = f32[3,4,256]{2,1,0} parameter(0)
  ROOT %out = s32[2,8,128]{2,1,0} custom-call(%p), custom_call_target="tpu_custom_call", metadata={op_name="jit(f)/part/walk_pages/pallas_call"}
}
"""  # noqa: E501
    _, part = count(text, ("part",), Turns(views=2))
    rows, cells = 4 * 256, 8 * 128
    assert part.operations >= 8 * 2 * rows * cells
    assert part.bytes == 4 * (2 * cells + 2 * 3 * rows)  # both views read all rows
