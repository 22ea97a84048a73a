# The commands a newcomer can guess. Each is one line, so nobody needs to remember flags.
.PHONY: help install check test sim peers compare mutants gpu resources clean

help:       ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/'

install:    ## the package, editable, with the test and lint tools
	python -m pip install -e ".[dev]"

check:      ## lint and types
	ruff check . && pyright

test:       ## every test that can run here; at the end one line per backend says what ran
	python -m pytest -q -n auto

peers:      ## the same ops, optimisers and networks against PyTorch
	python -m pip install -q "torch==2.13.0" && python -m pytest -q -n auto tests/peers

compare:    ## the main job: prove, time and train on every device that runs here
	python -m gpunet compare

sim:        ## the Numba-CUDA kernels in Numba's simulator: every case, entry, rung and dtype
	NUMBA_ENABLE_CUDASIM=1 python -m pytest -q -n auto -m numba_cuda tests

mutants:    ## break the kernels on purpose and see the proof notice: one table for each language
	failed=0; for each in mutants mutants_cuda mutants_numba; do python tests/$$each.py || failed=1; done; exit $$failed

gpu:        ## on a machine with a GPU: its tests, compute-sanitizer, the ladder against PyTorch (9 minutes)
	.ci/gpu

resources:  ## compile every CUDA kernel for every architecture; record registers, shared memory and spills
	python -m gpunet.measure.resources

clean:      ## what builds and tests leave behind
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis gpunet-report
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
