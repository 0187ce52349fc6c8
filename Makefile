# Two commands do all set-up: `make egress-setup` and `make test`.  README.md tells more.
PYTHON := .venv/bin/python

.PHONY: setup egress-setup egress-down test test-apiserver test-kernel check bench bpf \
  fuzz stories clean help

help:
	@sed -n 's/^## //p' Makefile

## make egress-setup   install what is missing, start the lab, show what echo saw
##                     (IP_FAMILY=ipv4, dual or ipv6)
egress-setup:
	@scripts/setup.sh lab
	@scripts/egress-setup.sh

## make egress-down    remove every trace of the lab
egress-down:
	@scripts/egress-down.sh

## make test           install what the tests need, check the code, run all tests
test:
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory check
	@scripts/test.sh

## make check          format, lint, types, import contracts (after one `make test`)
check:
	.venv/bin/ruff format --check --quiet .
	.venv/bin/ruff check --quiet --output-format concise .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

## make bench          measure on this machine: a table, numbers, charts (root; CASES="paths tcp",
##                     of hooks, paths, tcp, collector, program, scale; all in 15 minutes)
bench: bpf
	$(PYTHON) -m bench.run $(CASES)

## make bpf            compile the datapath (what changed)
bpf:
	$(PYTHON) bpf/compile.py

## make fuzz           a million frames against the model (PACKETS=, SEED=; root)
PACKETS ?= 1000000
SEED ?= 1
fuzz: bpf
	$(PYTHON) tests/bpf/fuzz/run.py --packets $(PACKETS) --seed $(SEED)

## make stories        made-up stories of a node against the model (STORIES=; root)
STORIES ?= 100
stories: bpf
	OUTGATE_STORIES=$(STORIES) $(PYTHON) -m pytest -q tests/bpf/stories

## make test-apiserver ask a real kube-apiserver, with etcd, built once (needs Go)
test-apiserver:
	@scripts/setup.sh test
	@scripts/test-apiserver.sh build $(TESTS)

## make test-kernel    programs and attachments on Linux 6.1, in a virtual machine
test-kernel: bpf
	$(PYTHON) tests/kernels/run.py $(TESTS)

## make clean          remove what was built; the lab must be down
clean:
	rm -rf .venv dist build src/outgate/kernel/objects
