PYTHON ?= python3
BIN = .venv/bin

.PHONY: test table check format autobahn autobahn-fast autobahn-servers fuzz soak bench clean

test: check           # everything that the gate runs
	tests/setup && $(BIN)/pytest && $(MAKE) autobahn-fast

check: .venv/ready    # style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

autobahn: .venv/ready # the whole conformance suite; some eight minutes
	$(BIN)/python tests/autobahn/suite --write tests/autobahn/RESULTS.txt

table: .venv/ready    # the README's table of servers; six minutes
	tests/setup && $(BIN)/pytest -m matrix --write-table

autobahn-fast: .venv/ready
	$(BIN)/python tests/autobahn/suite --fast

autobahn-servers: .venv/ready # sections 1-7 and 10 on every kind of server; three minutes
	$(BIN)/python tests/autobahn/servers --write tests/autobahn/SERVERS.txt

bench: .venv/ready    # echo against peers; about a quarter of an hour
	$(BIN)/pip install -q flask-sock picows uvloop && $(BIN)/python benchmarks/echo.py

soak: .venv/ready     # half an hour of everything clients do; does anything grow, is anything left?
	$(BIN)/python benchmarks/soak.py

SECONDS ?= 60

fuzz: .venv/ready     # coverage-guided, all targets; SECONDS=600 for ten minutes, shared among them
	$(BIN)/pip install -q atheris && $(BIN)/python tests/fuzz/run.py --seconds $(SECONDS)

clean:
	rm -rf .venv .cache build dist *.egg-info tests/node/node_modules tests/autobahn/venv-*

.venv/ready: setup.cfg
	$(PYTHON) -m venv .venv && $(BIN)/pip install -q -e '.[dev]' && touch $@
