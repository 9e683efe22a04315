"""Released weights into a world and back: bit for bit, in both layouts, one tensor at a time."""

import json
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from mirage_jax.cli.convert import command
from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.convert.exports import ExportOptions
from mirage_jax.models.convert.sources import open_source
from mirage_jax.models.denoiser import DenoiserConfig
from mirage_jax.models.files import load_params
from mirage_jax.rollout.released import Released, plan_import, write_import
from mirage_jax.rollout.released_export import export_folder, exportable_models
from mirage_jax.rollout.world import load_world

GOLDEN = Path(__file__).parents[1] / "golden"
SHAPES = json.loads((GOLDEN / "diffusers_shapes.json").read_text())  # of Diffusers' own modules
RANK = 3


def random(shapes, dtype=np.float32):
    draw = np.random.default_rng(0)
    return {n: draw.standard_normal(shape).astype(dtype) for n, shape in shapes.items()}


def lora(denoiser):
    modules = [n.removesuffix(".weight") for n in denoiser if n.startswith("blocks.")]
    modules = [m for m in modules if m.endswith((".to_q", ".net.0.proj"))]
    shapes = {}
    for module in modules:
        rows, columns = denoiser[f"{module}.weight"].shape
        shapes[f"transformer.{module}.lora_A.weight"] = (RANK, columns)
        shapes[f"transformer.{module}.lora_B.weight"] = (rows, RANK)
    return random(shapes)


def released(folder, vae="wan21", dtype=np.float32):
    """Write weights with the names and shapes of Diffusers' own modules; return where they are."""
    folder.mkdir(exist_ok=True)
    models = {"backbone": random(SHAPES["denoiser"], dtype), "vae": random(SHAPES[vae], dtype)}
    models["text"] = random(SHAPES["text_encoder"], dtype)
    models["text"].pop("encoder.embed_tokens.weight")  # the same table once more
    models["lora"] = lora(models["backbone"])
    for name, tensors in models.items():
        save_file(tensors, folder / f"{name}.safetensors")
    paths = {name: folder / f"{name}.safetensors" for name in models}
    return Released(**paths, heads=2), models


def convert(given, folder, **options):
    checked = plan_import(given, folder, (64, 64))
    return write_import(checked, folder, progress=lambda _: None, **options)


def export(folder, out, layout, shard_bytes=10**9):
    models, _ = exportable_models(folder)
    options = ExportOptions(layout, shard_bytes)
    return export_folder(models, out, options, lambda _: None)


def same(path, tensors):
    got = open_source(path).tensors
    assert got.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(got[name].read(), value, strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("vae", ["wan21", "wan22"])
def test_every_model_survives_both_layouts_bit_for_bit(tmp_path, vae, dtype):
    given, models = released(tmp_path / "given", vae, dtype)
    convert(given, tmp_path / "ours")
    export(tmp_path / "ours", tmp_path / "theirs", "diffusers", shard_bytes=3_000)
    for part, name in (("transformer", "backbone"), ("vae", "vae"), ("text_encoder", "text")):
        assert len(list((tmp_path / "theirs" / part).glob("*-of-*"))) > 1
        same(tmp_path / "theirs" / part, models[name])
    same(tmp_path / "theirs" / "pytorch_lora_weights.safetensors", models["lora"])

    export(tmp_path / "ours", tmp_path / "release", "release", shard_bytes=3_000)
    parts = {"backbone": "backbone", "branch": "branch", "lora": "lora", "vae": "vae"}
    parts["text"] = "text_encoder"
    again = Released(**{name: tmp_path / "release" / part for name, part in parts.items()})
    convert(again, tmp_path / "again")
    for file in (tmp_path / "ours").glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


def test_a_world_of_released_weights_loads_with_sizes_read_off_the_tensors(tmp_path):
    given, models = released(tmp_path / "given", "wan22")
    tensors = models["backbone"]
    convert(Released(given.backbone, vae=given.vae, heads=2), tmp_path / "ours")
    world = load_world(tmp_path / "ours")
    assert world.spec.denoiser == DenoiserConfig(
        latent_channels=4,
        out_channels=4,
        width=24,
        heads=2,
        layers=2,
        mlp_width=40,
        text_width=16,
        time_frequencies=32,
        branch_layers=(0,),
        condition_channels=8,
    )
    assert world.spec.codec == AutoencoderConfig(4, 4, 8, (1, 2, 2), 1, (False, True), 2, True)
    ours = world.params["denoiser"]["blocks"]["self_attn"]["q"]["kernel"]
    np.testing.assert_array_equal(ours[1], tensors["blocks.1.attn1.to_q.weight"].T)


def test_backbone_and_branch_may_come_in_different_layouts_and_dtypes(tmp_path):
    given, _ = released(tmp_path / "given")
    convert(given, tmp_path / "ours")
    export(tmp_path / "ours", tmp_path / "release", "release")
    whole = load_file(given.backbone)
    backbone = {n: v for n, v in whole.items() if not n.startswith("vace_")}
    for name in ("blocks.1.ffn.net.2.weight", "blocks.0.norm2.weight"):  # one layer of two
        backbone[name] = backbone[name].astype(ml_dtypes.bfloat16)
    save_file(backbone, tmp_path / "backbone.safetensors")
    branch = tmp_path / "release" / "branch" / "model.safetensors"
    mixed = Released(tmp_path / "backbone.safetensors", branch, heads=2)
    convert(mixed, tmp_path / "mixed")
    export(tmp_path / "mixed", tmp_path / "back", "diffusers")
    same(tmp_path / "back" / "transformer", whole | backbone)
    stored = load_file(tmp_path / "mixed" / "denoiser.safetensors")
    assert stored["blocks/ffn/down/kernel"].dtype == np.float32  # holds both exactly


@pytest.mark.parametrize("wrap", ["model.{}", "module.pipe.dit.{}", "generator.model.{}"])
def test_wrapped_names_make_the_same_files(tmp_path, wrap):
    given, models = released(tmp_path / "given")
    convert(Released(given.backbone, heads=2), tmp_path / "plain")
    path = tmp_path / "wrapped.safetensors"
    save_file({wrap.format(name): v for name, v in models["backbone"].items()}, path)
    convert(Released(path, heads=2), tmp_path / "wrapped")
    name = "denoiser.safetensors"
    assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "wrapped" / name).read_bytes()


def test_all_tensors_that_do_not_fit_are_named_and_nothing_is_written(tmp_path):
    given, models = released(tmp_path / "given")
    tensors = dict(models["backbone"])
    del tensors["blocks.0.attn2.to_v.bias"], tensors["blocks.1.attn2.to_v.bias"]
    tensors["blocks.0.attn2.add_k_proj.weight"] = np.zeros(3, np.float32)
    tensors["proj_out.bias"] = np.zeros(3, np.float32)
    save_file(tensors, given.backbone)
    message = (
        r"missing \(2\): blocks\.\{0-1\}\.attn2\.to_v\.bias; "
        r"unexpected \(1\): blocks\.0\.attn2\.add_k_proj\.weight; "
        r"misshapen \(1\): proj_out\.bias: got \(3,\), expected \(16,\)"
    )
    with pytest.raises(ValueError, match=message):
        convert(given, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_an_interrupted_conversion_leaves_no_half_file(tmp_path):
    given, _ = released(tmp_path / "given")
    read = []

    def interrupted(size):
        read.append(size)
        if len(read) == 20:
            raise KeyboardInterrupt

    checked = plan_import(given, tmp_path / "ours", (64, 64))
    with pytest.raises(KeyboardInterrupt):
        write_import(checked, tmp_path / "ours", progress=interrupted)
    assert list((tmp_path / "ours").iterdir()) == []


def test_memory_follows_the_largest_tensor_and_not_the_model(tmp_path):
    shapes = {n: s for n, s in SHAPES["text_encoder"].items() if n != "encoder.embed_tokens.weight"}
    wide = {name: [size * 16 for size in shape] for name, shape in shapes.items()}
    for block in (0, 1):
        table = f"encoder.block.{block}.layer.0.SelfAttention.relative_attention_bias.weight"
        wide[table] = [32, 2]
    save_file(random(wide), tmp_path / "text.safetensors")
    size = (tmp_path / "text.safetensors").stat().st_size
    checked = plan_import(Released(text=tmp_path / "text.safetensors"), tmp_path / "ours")
    tracemalloc.start()
    write_import(checked, tmp_path / "ours", progress=lambda _: None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    largest = max(4 * int(np.prod(shape)) for shape in wide.values())
    assert peak < 2.5 * largest < 0.6 * size


def test_a_lora_can_be_added_to_a_world_and_its_stated_scale_is_kept(tmp_path):
    given, models = released(tmp_path / "given")
    convert(Released(given.backbone, heads=2), tmp_path / "ours")
    settings = json.dumps({"transformer.lora_alpha": 6, "transformer.r": RANK})
    save_file(models["lora"], given.lora, metadata={"lora_adapter_metadata": settings})
    (note,) = plan_import(Released(lora=given.lora), tmp_path / "ours").plans[0].notes
    assert "scale 2" in note
    convert(Released(lora=given.lora), tmp_path / "ours")
    got = load_file(tmp_path / "ours" / "lora.safetensors")["blocks/self_attn/q/b"]
    name = "transformer.blocks.1.attn1.to_q.lora_B.weight"
    np.testing.assert_array_equal(got[1], 2 * models["lora"][name].T)


def test_a_trained_lora_is_exported_with_its_scale_in_its_weights(tmp_path):
    given, models = released(tmp_path / "given")
    convert(given, tmp_path / "ours")
    file = tmp_path / "ours" / "lora.safetensors"
    (model,) = (m for m in exportable_models(file.parent)[0] if m.kind == "lora")
    save_file(load_file(file), file, metadata={"lora": json.dumps({"rank": RANK, "alpha": 12.0})})
    options = ExportOptions("release")
    export_folder([model], tmp_path / "theirs", options, lambda _: None)
    got = load_file(tmp_path / "theirs" / "lora" / "model.safetensors")
    for half, scale in (("A", 1), ("B", 4)):
        expected = models["lora"][f"transformer.blocks.0.attn2.to_q.lora_{half}.weight"] * scale
        name = f"pipe.dit.blocks.0.cross_attn.q.lora_{half}.weight"
        np.testing.assert_array_equal(got[name], expected)


def test_shards_that_disagree_with_their_index_are_refused(tmp_path):
    given, _ = released(tmp_path / "given")
    convert(given, tmp_path / "ours")
    export(tmp_path / "ours", tmp_path / "theirs", "diffusers", shard_bytes=20_000)
    folder = tmp_path / "theirs" / "transformer"
    index = next(folder.glob("*.index.json"))
    listed = json.loads(index.read_text())
    name = listed["weight_map"].popitem()[0]
    index.write_text(json.dumps(listed))
    with pytest.raises(ValueError, match=f"not in the index: .*{name}"):
        open_source(folder)
    listed["weight_map"][name] = "../elsewhere.safetensors"
    index.write_text(json.dumps(listed))
    with pytest.raises(ValueError, match="without directories"):
        open_source(folder)
    listed["weight_map"][name] = "lost.safetensors"
    index.write_text(json.dumps(listed))
    with pytest.raises(FileNotFoundError, match=r"lost\.safetensors"):
        open_source(folder)


def test_the_command_converts_both_ways_and_refuses_to_replace(tmp_path):
    given, models = released(tmp_path / "given", "wan22")
    flags = ["--backbone", str(given.backbone), "--vae", str(given.vae), "--heads", "2"]
    flags += ["--size", "64x64", "--out", str(tmp_path / "ours")]
    run = CliRunner().invoke
    done = run(command, flags, catch_exceptions=False)
    assert done.exit_code == 0
    assert "world.json" in done.output
    with pytest.raises(FileExistsError, match="--overwrite"):
        run(command, flags, catch_exceptions=False)
    assert run(command, [*flags, "--overwrite"], catch_exceptions=False).exit_code == 0
    back = ["--from", str(tmp_path / "ours"), "--to", "diffusers", "--out", str(tmp_path / "back")]
    assert run(command, back, catch_exceptions=False).exit_code == 0
    same(tmp_path / "back" / "vae", models["vae"])
    assert run(command, ["--from", "x", "--out", "y"]).exit_code == 2
    assert "--heads: not with --from" in run(command, [*back, "--heads", "2"]).output


def test_stored_dtypes_load_as_they_are_when_asked(tmp_path):
    given, _ = released(tmp_path / "given", dtype=ml_dtypes.bfloat16)
    convert(given, tmp_path / "ours")
    (denoiser,) = (m for m in exportable_models(tmp_path / "ours")[0] if m.kind == "denoiser")
    params = load_params(denoiser.file, denoiser.config, dtype="stored")
    assert params["head"]["linear"]["kernel"].dtype == ml_dtypes.bfloat16
