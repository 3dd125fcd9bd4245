# The commands of this repository. Each makes what it needs, in the ignored folders .venv, .e2e and .windows.
PYTHON ?= python3
RUN := .venv/bin/python

.PHONY: demo test e2e versions windows lint fuzz soak bench clean

demo:            ## one conversation, shown: no account needed
	$(PYTHON) tests/demo.py

test: .venv/made ## the tests with the fake codex
	$(RUN) -m pytest tests --ignore=tests/e2e --ignore=tests/windows --numprocesses 4 --dist worksteal

e2e:             ## the tests with the real Codex CLI and real MCP clients and agent frameworks, from npm and PyPI
	$(PYTHON) tests/e2e/install.py
	$(PYTHON) tests/e2e/install_clients.py
	$(PYTHON) tests/e2e/install_frameworks.py
	.e2e/venv/bin/python -m pytest tests/e2e

versions:        ## the tests of rights and open sessions with more versions of the real Codex CLI; VERSIONS="0.125.0 0.154.0" for some
	$(PYTHON) tests/e2e/versions.py $(VERSIONS)

windows: .venv/made ## the Windows half, under Wine, which is installed with apt if you are root
	$(PYTHON) tests/windows/install.py
	$(RUN) -m pytest tests/windows

lint: .venv/made ## style and types
	$(RUN) -m ruff check --isolated --select E4,E7,E9,F,W --per-file-ignores codex_persistent_mcp.py:W191 .
	$(RUN) -m ruff check --isolated --select E501,UP031,UP032 --line-length 100 tests
	$(RUN) -m ruff check --isolated --select E,F,W,B --ignore W191 --line-length 100 codex_persistent_mcp.py
	$(RUN) -m ruff format --check --isolated --line-length 100 tests
	# in tabs: four spaces for each would take 16 KB of the 128 KiB that `pipx run URL` can pass on
	$(RUN) -m ruff format --check --isolated --line-length 100 --config 'format.indent-style="tab"' codex_persistent_mcp.py
	$(RUN) -m mypy codex_persistent_mcp.py

fuzz: .venv/made ## random input; FUZZ="--cases N" for another number of cases
	$(RUN) tests/fuzz.py $(FUZZ)

soak: .venv/made ## five minutes of everything at once; SOAK="--seconds N" for another time
	$(RUN) tests/soak.py $(SOAK)

bench: .venv/made ## speed and memory, against floors; BENCH="--against FILE" measures another copy, too
	$(RUN) tests/bench.py $(BENCH)

clean:
	rm -rf .venv .e2e .windows .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/made: tests/requirements.txt
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --requirement tests/requirements.txt
	touch $@
