# The commands a newcomer can guess. Each is one line, so nobody needs to remember flags.
CPU_OPS = conv2d matmul max_pool2d avg_pool2d relu dropout batch_norm softmax cross_entropy layer_norm
.PHONY: help install check test sim peers compare mutants cpu gpu resources clean

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

cpu:        ## on an idle machine: the processor's kernels, training steps and cost of an op beside PyTorch; recorded
	python -m gpunet bench $(CPU_OPS) --backend numba_cpu --against torch --tier quick standard --threads 1 2 --json bench/results/cpu/kernels.json
	python -m gpunet bench --steps --against torch --threads 1 2 --json bench/results/cpu/steps.json
	python -m gpunet bench --host --against torch > bench/results/cpu/host.txt

gpu:        ## on a machine with a GPU: its tests, compute-sanitizer, the ladder against PyTorch (9 minutes)
	.ci/gpu

resources:  ## compile every CUDA kernel for every architecture; record registers, shared memory and spills
	python -m gpunet.measure.resources

clean:      ## what builds and tests leave behind
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis gpunet-report
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
