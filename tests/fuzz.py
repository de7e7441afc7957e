"""Run a test of test_fuzz.py with coverage-guided inputs. This needs `pip install atheris`.

python tests/fuzz.py test_mutated_images_are_read_or_refused [-max_total_time=120, or any other flag of libFuzzer]
"""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["dualmcmc_jax", "PIL", "zipfile", "numpy.lib", "json"]):
    import test_fuzz

target = getattr(test_fuzz, sys.argv.pop(1))
atheris.Setup(sys.argv, target.hypothesis.fuzz_one_input)
atheris.Fuzz()
