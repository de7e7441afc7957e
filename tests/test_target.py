"""Tests for `benchmark/target.py` and `benchmark/cycles.py`, the compiler's estimates for TPUs."""

import importlib.util
import re

import pytest
import tiny

from dualmcmc_jax.benchmark import cycles, program, target

# A program in the form of the compiler for TPUs: a loop of seven steps in revise_x, one of three in revise_z, and an
# instruction outside of both. The parent of a frame is given as its number plus 1.
TEXT = """HloModule jit_update, is_scheduled=true

FileNames
1 "/home/someone/dualmcmc_jax/core/sampling.py"
2 "/home/someone/dualmcmc_jax/models/layers.py"
3 "/usr/lib/python3/site-packages/flax/linen/linear.py"

FunctionNames
1 "revise_x"
2 "conv"
3 "Conv.__call__"
4 "revise_z.<locals>.step"
5 "train_step"

FileLocations
1 {file_name_id=1 function_name_id=1 line=60 end_line=60 column=1 end_column=2}
2 {file_name_id=2 function_name_id=2 line=83 end_line=83 column=1 end_column=2}
3 {file_name_id=3 function_name_id=3 line=640 end_line=640 column=1 end_column=2}
4 {file_name_id=1 function_name_id=4 line=90 end_line=90 column=1 end_column=2}
5 {file_name_id=1 function_name_id=5 line=9 end_line=9 column=1 end_column=2}

StackFrames
1 {file_location_id=5 parent_frame_id=1}
2 {file_location_id=1 parent_frame_id=2}
3 {file_location_id=2 parent_frame_id=3}
4 {file_location_id=3 parent_frame_id=4}
5 {file_location_id=4 parent_frame_id=2}

%fused (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %inner = f32[8]{0} negate(%p), backend_config={"window_config":{"estimated_cycles":"999"}}
}

%body.x (a: (s32[], f32[8])) -> (s32[], f32[8]) {
  %a = (s32[], f32[8]{0}) parameter(0)
  %gte = f32[8]{0} get-tuple-element(%a), index=1
  %f.x = f32[8]{0} fusion(%gte), kind=kLoop, calls=%fused, metadata={op_name="conv" stack_frame_id=4}, backend_config={"window_config":{"estimated_cycles":"100"}}
  %copy.x = f32[8]{0} copy(%f.x), backend_config={"window_config":{"estimated_cycles":"10"}}
  ROOT %t = (s32[], f32[8]{0}) tuple(%a, %copy.x)
}

%condition.x (c: (s32[], f32[8])) -> pred[] {
  %limit.x = s32[]{:T(128)} constant(7)
  %c = (s32[], f32[8]{0}) parameter(0)
  %i.x = s32[]{:T(128)} get-tuple-element(%c), index=0
  ROOT %lt.x = pred[]{:T(512)} compare(%i.x, %limit.x), direction=LT
}

%body.z (b: (s32[], f32[8])) -> (s32[], f32[8]) {
  %b = (s32[], f32[8]{0}) parameter(0)
  %f.z = f32[8]{0} fusion(%b), kind=kLoop, calls=%fused, metadata={op_name="x" stack_frame_id=5}, backend_config={"window_config":{"estimated_cycles":"1000"}}
  ROOT %u = (s32[], f32[8]{0}) tuple(%b, %f.z)
}

%condition.z (d: (s32[], f32[8])) -> pred[] {
  %limit.z = s32[]{:T(128)} constant(3)
  %d = (s32[], f32[8]{0}) parameter(0)
  %i.z = s32[]{:T(128)} get-tuple-element(%d), index=0
  ROOT %lt.z = pred[]{:T(512)} compare(%i.z, %limit.z), direction=LT
}

ENTRY %main (x: (s32[], f32[8])) -> (s32[], f32[8]) {
  %x = (s32[], f32[8]{0}) parameter(0)
  %while.x = (s32[], f32[8]{0}) while(%x), condition=%condition.x, body=%body.x, metadata={op_name="while" stack_frame_id=2}
  %while.z = (s32[], f32[8]{0}) while(%while.x), condition=%condition.z, body=%body.z, metadata={op_name="while" stack_frame_id=5}
  ROOT %last = (s32[], f32[8]{0}) copy(%while.z), backend_config={"window_config":{"estimated_cycles":"5"}}
}
"""  # noqa: E501


def test_cycles_are_added_over_the_steps_of_each_part():
    """The body of a loop counts once per step, and the inside of a fusion does not count."""
    estimate = cycles.estimate(TEXT)
    assert estimate.parts == {"x_chain": 7 * 110, "z_chain": 3 * 1000, "learning": 5}
    assert estimate.total == 3775
    first, second, *_ = estimate.expensive
    assert first[:3] == (3000, 3, "f.z")
    assert second == (700, 7, "f.x", "dualmcmc_jax/models/layers.py:83 conv")
    assert program.cost(TEXT).unknown_loops == 0


def test_collective_that_runs_during_several_fusions_counts_once():
    """Fusions of the loops of 7 and 3 steps repeat channel 5. Channel 6 is outside of fusions, and is not repeated."""
    gather = "all-gather(%{}), channel_id={}, dimensions={{0}}"
    text = TEXT.replace("negate(%p)", gather.format("p", 5)).replace("copy(%f.x)", gather.format("f.x", 6))
    assert program.cost(text).collectives == {("all-gather", 32): 3 + 7}


@pytest.mark.parametrize(
    ("line", "num_bytes"),
    [
        ("(f32[4]{0}, f32[16]{0}) all-reduce-start(%x, %x)", 80),
        ("(f32[8]{0}, f32[32]{0}) all-gather-start(%x)", 128),
        ("((f32[8]{0}, f32[2]{0}), (f32[32]{0}, f32[8]{0})) all-gather-start(%x, %x)", 160),
        ("(f32[8]{0}, f32[8]{0}, u32[], u32[]) collective-permute-start(%x)", 32),
        ("(f32[4]{0}, f32[16]{0}) all-reduce(%x, %x)", 80),
    ],
)
def test_bytes_of_collectives_of_several_arrays(line, num_bytes):
    text = f"ENTRY %main (x: f32[8]) -> f32[8] {{\n  %x = f32[8]{{0}} parameter(0)\n  %y = {line}, channel_id=1\n}}\n"
    assert sum(size for _, size in program.cost(text).collectives) == num_bytes


def test_programs_for_cpus_have_no_cycles():
    with pytest.raises(ValueError, match="found a program without estimated cycles"):
        cycles.estimate("ENTRY %main (x: f32[8]) -> f32[8] {\n  ROOT %x = f32[8]{0} parameter(0)\n}\n")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e:2x2", "--target: found 'v5e:2x2', expected tpu:TOPOLOGY, such as tpu:v5e:2x2"),
        ("tpu:v5e", "--target: found 'tpu:v5e', expected tpu:TOPOLOGY"),
        ("tpu:v5e:0x2", "--target: found 'tpu:v5e:0x2', expected tpu:TOPOLOGY"),
        ("tpu:v5f:2x2", "--target: found the chip 'v5f', expected one of"),
    ],
)
def test_bad_targets_are_refused(name, message):
    with pytest.raises(ValueError, match=r"^--target") as error:
        target.check([name])
    assert str(error.value).startswith(message)


def test_missing_compiler_and_old_python_are_one_line(monkeypatch):
    monkeypatch.setattr(target, "LEAST_PYTHON", (3, 11))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"found no libtpu, the compiler for TPUs, .*-m pip install \"jax\[tpu\]=="):
        target.check(["tpu:v5e:2x2"])
    monkeypatch.setattr(target, "LEAST_PYTHON", (99, 0))
    with pytest.raises(ValueError, match=r"--target: found Python 3.*, expected 99.0 or newer"):
        target.check(["tpu:v5e:2x2"])


def test_flags_that_contradict_each_other_are_refused(programs):
    run = lambda *flags: programs.run("--config=digits", *flags, module="dualmcmc_jax.benchmark").stderr
    assert run("--batch_per_chip=4").startswith("error: --batch_per_chip: found 4 without --target")
    assert run("--target=tpu:v5e:2x2", "--versus=digits").startswith("error: --versus: found it with --target")


def test_number_of_chips():
    assert target.num_chips("tpu:v5e:2x2") == 4
    assert target.num_chips("tpu:v5p:2x2x1") == 4
    assert target.num_chips("tpu:v6e:1") == 1


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason='needs pip install "jax[tpu]"')
def test_small_config_compiles_for_chips_that_are_not_here(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = tiny.config(data__shape=(8, 8, 1), train__batch_size=8)
    numbers = target.measure(config, "tpu:v5e:2x2")
    assert numbers["num_chips"] == 4
    assert numbers["unknown_loops"] == 0
    assert all(numbers["cycles"][part] > 0 for part in ("x_chain", "z_chain", "learning"))
    assert numbers["collectives"][0][0] == "all-reduce"
    assert re.search("all-reduce +1 per update", target.text(numbers))
    assert target.measure(config, "tpu:v5e:2x2") == numbers  # from the cache, with the same compile time
    config.train.batch_size = 6
    with pytest.raises(ValueError, match=r"train.batch_size: found 6, expected a multiple of 4"):
        target.measure(config, "tpu:v5e:2x2")
