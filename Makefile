PYTHON ?= python3
BIN = .venv/bin

.PHONY: test kinds pages others behind docs table check format parked parked-fast autobahn autobahn-fast autobahn-servers fuzz versions versions-fast package soak bench bench-fast chaos clean

test: check           # everything that the gate runs: three things at once, since most of it is waiting
	tests/setup && $(MAKE) -j3 -O kinds pages others behind

kinds: .venv/ready    # what runs under each kind of server
	$(BIN)/pytest -m kinds

pages: .venv/ready    # what is about PubSub, and what the pages in docs/ say
	$(BIN)/pytest -m 'not kinds' -k 'pubsub or docs'

others: .venv/ready   # all other tests
	$(BIN)/pytest -m 'not kinds' -k 'not (pubsub or docs)'

behind: .venv/ready   # one by one: the conformance suite writes to one place
	$(MAKE) parked-fast && $(MAKE) autobahn-fast && $(MAKE) versions-fast

check: .venv/ready    # style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

parked-fast: .venv/ready # the contract, with parked connections
	TEST_IDLE=parked $(BIN)/pytest -q $(CONTRACT) && TEST_IDLE=parked $(MAKE) autobahn-fast

CONTRACT = $(addprefix tests/test_,$(addsuffix .py,connection deflate drain endings flask handshake machine mailbox \
    testing upgrade waiter websocket))

versions: .venv/ready # the contract and every server, on each python3.X at hand; some fifteen minutes
	tests/setup && $(BIN)/python tests/versions.py $(CONTRACT) tests/test_servers.py

versions-fast: .venv/ready # the core of the contract, on the oldest and the newest of everything
	$(BIN)/python tests/versions.py --ends $(CORE)

CORE = $(addprefix tests/test_,$(addsuffix .py,blocking connection endings flask legacy mailbox testing upgrade waiter))

package: .venv/ready  # sdist and wheel: built, looked into, installed, served; a minute
	$(BIN)/pip install -q build twine && $(BIN)/python tests/package.py

parked: .venv/ready   # all tests, with parked connections; ten minutes
	TEST_IDLE=parked $(BIN)/pytest

autobahn: .venv/ready # the whole conformance suite; some eight minutes
	$(BIN)/python tests/autobahn/suite --write tests/autobahn/RESULTS.txt

docs: .venv/ready     # the pages, into docs/_build; opens no connection
	$(BIN)/sphinx-build -q -W --keep-going -n -b html docs docs/_build
	$(BIN)/sphinx-build -q -b doctest docs docs/_build/doctest

table: .venv/ready    # the table in docs/servers.rst; six minutes
	tests/setup && $(BIN)/pytest -m matrix --write-table

autobahn-fast: .venv/ready
	$(BIN)/python tests/autobahn/suite --fast

autobahn-servers: .venv/ready # sections 1-7 and 10 on every kind of server; three minutes
	$(BIN)/python tests/autobahn/servers --write tests/autobahn/SERVERS.txt

bench: .venv/peers    # everything against everybody, docs/benchmarks.rst and the README's table; three quarters of an hour
	$(BIN)/python benchmarks/check_load.py && $(BIN)/python benchmarks/suite.py

bench-fast: .venv/peers # three scenarios, five servers, only shown; four minutes
	$(BIN)/python benchmarks/suite.py --fast

soak: .venv/ready     # half an hour of everything clients do; does anything grow, is anything left?
	$(BIN)/python benchmarks/soak.py

chaos: .venv/ready    # PubSub with a thousand subscribers, while everything goes wrong; a minute and a half
	tests/setup && CHAOS=large $(BIN)/pytest tests/test_pubsub_chaos.py

SECONDS ?= 60

fuzz: .venv/ready     # coverage-guided, all targets; SECONDS=600 for ten minutes, shared among them
	$(BIN)/pip install -q atheris && $(BIN)/python tests/fuzz/run.py --seconds $(SECONDS)

clean:
	rm -rf .venv .cache build dist docs/_build *.egg-info tests/node/node_modules tests/autobahn/venv-*
	rm -rf benchmarks/.build benchmarks/apps/node_ws/node_modules

.venv/ready: setup.cfg
	$(PYTHON) -m venv .venv && $(BIN)/pip install -q -e '.[dev]' && touch $@

.venv/peers: .venv/ready # whom the benchmarks measure beside us, and what draws; Node.js with npm must be there
	$(BIN)/pip install -q flask-sock picows uvicorn uvloop httptools matplotlib
	npm install --prefix benchmarks/apps/node_ws --no-audit --no-fund && touch $@
