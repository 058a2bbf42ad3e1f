# Every command a newcomer needs. `make` alone lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
TOOLING := test look deploy check
# Tests whose libraries are as large as an application: the agent's tests, which search the heap, do
# not share a process with them.
APART := tests/deploy/aws tests/deploy/helm
# Hundreds of runs of each behaviour in each pool, with and without the agent: minutes, and its own command.
DIFFERENTIAL := tests/differential

.PHONY: help demo test check golden grafana zoo differential bench clean

help:  ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.package: pyproject.toml
	@tests/prepare.sh venv $(PYTHON) $(VENV)
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/.tests: $(VENV)/.package
	$(BIN)/pip install --quiet --editable . $(TOOLING:%=--group %)
	@touch $@

demo: $(VENV)/.package  ## see a leaking task found: make demo ARGS="--for 60"
	@$(BIN)/celery-memory-exporter demo $(ARGS)

test: check  ## run the linters and every test; installs the servers it needs where it may
	@tests/prepare.sh servers
	@tests/prepare.sh models $(VENV)
	$(BIN)/pytest --numprocesses 3 --dist worksteal $(or $(ARGS),$(foreach each,$(APART) $(DIFFERENTIAL),--ignore=$(each)))
	$(if $(ARGS),,$(BIN)/pytest --numprocesses 3 --dist worksteal $(APART))
	@tests/matrix.sh $(VENV)

check: $(VENV)/.tests  ## ruff, ruff format, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

golden: $(VENV)/.tests  ## rewrite the golden exposition after a wanted change
	GOLDEN=write $(BIN)/pytest tests/metrics/test_collector.py tests/test_docs.py tests/grafana/test_rules.py -k golden

grafana: $(VENV)/.tests  ## rewrite dashboards and rules, and what deploy/ has of them, after a change of grafana/generate
	$(BIN)/python -m grafana.generate $(ARGS)
	$(BIN)/python -m deploy.kubernetes.generate

zoo: $(VENV)/.tests  ## every known leak and innocent in real workers: make zoo ARGS="--jobs 2", ARGS="--crowd 14" or ARGS="drip_beside_churn"
	@tests/prepare.sh servers
	$(BIN)/python -m tests.zoo.run $(ARGS)

$(VENV)/.tools: $(VENV)/.tests
	$(BIN)/pip install --quiet --group tools
	@touch $@

differential: $(VENV)/.tools  ## what tasks can observe, in workers with and without the agent: make differential ARGS="-k threads"
	@tests/prepare.sh servers
	$(BIN)/pytest --numprocesses 2 $(DIFFERENTIAL) $(ARGS)

bench: $(VENV)/.tests  ## what the agent costs, beside the bare worker: make bench ARGS="throughput --rounds 5"
	@tests/prepare.sh servers
	$(BIN)/python -m tests.bench.run $(ARGS)

clean:  ## remove what the other commands made
	rm -rf $(VENV) .venvs .pytest_cache .mypy_cache .ruff_cache .hypothesis artifacts
