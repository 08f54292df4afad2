# Two commands on a fresh machine: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check bench quality leaks mutants faults hostile up clean

$(VENV)/installed: requirements.lock pyproject.toml client/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable . --editable client
	touch $@

demo: $(VENV)/installed  ## ingest the example company, ask as two people, run its golden set
	$(BIN)/citadel demo

up: $(VENV)/installed  ## the whole stack on this machine, until Ctrl-C
	$(BIN)/citadel up

test: $(VENV)/installed  ## every test, on a real Postgres and Redis that the tests start
	$(BIN)/pytest --numprocesses auto --dist loadfile

check: $(VENV)/installed  ## lint, types, layers, and that the migrations build exactly schema.sql
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd client && ../$(BIN)/mypy citadel_client
	$(BIN)/lint-imports
	$(BIN)/python -m embedded.check_schema

quality: $(VENV)/installed  ## docs/quality.md anew, where ../shared/data is: ten minutes of two cores
	$(BIN)/citadel eval legs $(foreach set,scifact cranfield chroma-chunking@800 contextual-code sec-10q,../shared/data/retrieval/$(set)) --part test --part held --rerank late --write docs/quality.md

bench: $(VENV)/installed  ## ratios against what one would use instead
	$(BIN)/python -m bench.embed
	$(BIN)/python -m bench.ingest
	$(BIN)/python -m bench.sensitive --limit 100
	$(BIN)/python -m bench.copies --documents 2000
	$(BIN)/python -m bench.audit
	$(BIN)/python -m bench.access
	$(BIN)/python -m bench.share
	$(BIN)/python -m bench.filtered_search --rows 25000 --real -1 --label-sets 5000 --questions 15
	$(BIN)/python -m bench.paired_approximate --rows 5000 --queries 200
	$(BIN)/python -m bench.lexical --chunks 20000 --questions 100 --checked 20
	$(BIN)/python -m bench.rerank --texts 150 --questions 25 --timed 150
	$(BIN)/python -m bench.search --chunks 10000 --embedded 500 --questions 50 --seconds 4
	$(BIN)/python -m bench.recall --chunks 10000 --embedded 500 --questions 60
	$(BIN)/python -m bench.timing --pairs 300

leaks: $(VENV)/installed  ## who may not see it is told nothing of it: 100,000 probes, 2,000 paired searches
	$(BIN)/python -m tests.leaks

mutants: $(VENV)/installed  ## each isolation that is taken out is missed by a test
	$(BIN)/python -m tests.leaks.mutants

hostile: $(VENV)/installed  ## hostile, broken and 5,000 damaged files: each ends in a typed outcome in time
	$(BIN)/python -m tests.hostile

faults: $(VENV)/installed  ## kill, cut, flush, fill and restart everything while work comes and readers read: 10 minutes
	$(BIN)/python -m tests.faults

clean:
	rm -rf $(VENV) .citadel
