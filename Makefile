# Every target sets up what it needs. `make demo` and `make test` are the two commands a new user runs.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# What is compiled is kept, whatever the caller's environment says: a job starts in a quarter of the time.
unexport PYTHONDONTWRITEBYTECODE

# Programs that some tests use where they are there: a browser and PostgreSQL. Tests that need them skip without.
SYSTEM := chromium chromium-driver postgresql

.PHONY: system setup demo test lint format protos check-agent images clean

system:
	@if dpkg -s $(SYSTEM) > /dev/null 2>&1; then echo "$(SYSTEM): installed"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $(SYSTEM); \
	else echo "not root, or not Debian: without $(SYSTEM), the tests that need them are skipped"; fi

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	# The pip of an older Python takes minutes to find out that everything is pinned.
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --upgrade pip
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[server,huggingface,openvino,otel,postgres,s3,gcs,ray,mlflow,web,demo,dev]'
	# On all cores, where pip takes one. Confined workers cannot do it for themselves: each would spend twenty seconds on
	# it. Some packages hold files for other Pythons, which do not compile here.
	$(BIN)/python -m compileall -qq -j 0 -x '/tests/' $(VENV)/lib compressors deploy protos service || true
	touch $@

demo: $(INSTALLED)
	$(BIN)/python -m examples.demo --out demo-output

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint protos
	$(BIN)/hadolint Dockerfile deploy/containers/jetson.Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/containers/compose.yaml
	$(BIN)/check-jsonschema --quiet --schemafile deploy/helm/shoal/values.schema.json deploy/helm/shoal/values.yaml
	$(BIN)/python -m tests.deploy.helm.validate
	@if command -v helm > /dev/null; then helm lint --strict deploy/helm/shoal; else echo "helm is not installed: helm lint was not run"; fi
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m protos.breaking

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m protos.generate

# What the image of the agent installs, in the same steps, and proof that it needs no torch.
check-agent: export PYTHONPATH :=
check-agent:
	rm -rf build/agent
	$(PYTHON) -m venv build/agent/venv
	build/agent/venv/bin/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/agent .
	build/agent/venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt "$$(ls build/agent/shoal-*.whl)[agent]"
	cd build/agent && venv/bin/python -P ../../tests/deploy/agent_install.py

images:
	docker build --target cpu --tag shoal .
	docker build --target gpu --tag shoal:gpu .
	docker build --target agent --tag shoal-agent .

clean:
	rm -rf $(VENV) demo-output build *.egg-info .mypy_cache .ruff_cache .pytest_cache
