# The two commands of the README do all of their set-up: `make demo` and `make test`.
PREFIX ?= /usr/local
TARGET = $(DESTDIR)$(PREFIX)
SWIFT ?= swift
PROGRAM := .build/release/convert-model
# The instructions to use: those of the machine at hand, by the levels of x86-64 that its loader tells (x86-64-v3 has
# AVX2, x86-64-v4 AVX-512). CPU=x86-64 makes a program for every such processor, somewhat slower; its bytes are the same.
CPU ?= $(or $(shell /lib64/ld-linux-x86-64.so.2 --help 2>/dev/null | sed -n 's/^ *\(x86-64-v[34]\) .supported.*/\1/p' | head -1),any)
LEVEL_x86-64-v3 = -Xcc -march=x86-64-v3 -Xswiftc -DX86_64_V3
LEVEL_x86-64-v4 = -Xcc -march=x86-64-v4 -Xswiftc -DX86_64_V4
FLAGS = -c release $(LEVEL_$(CPU))
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)

.PHONY: demo test build setup lint format bench interop interop-quick fuzz fuzz-replay torture install uninstall clean

demo: build
	rm -rf demo-output
	$(PROGRAM) Fixtures/tiny-llama --output demo-output --method nf4 --double-quantization
	$(PROGRAM) report demo-output --against Fixtures/tiny-llama

test: setup
	$(SWIFT) test $(FLAGS)

build: setup
	$(SWIFT) build $(FLAGS) --product convert-model

# System packages, where Debian's package manager is at hand and one of them is missing.
setup:
	@if command -v dpkg >/dev/null && ! dpkg -s libopenblas-dev liblapacke-dev pkg-config >/dev/null 2>&1; then \
	  echo "Installing libopenblas-dev liblapacke-dev pkg-config"; \
	  $(SUDO) apt-get update -qq && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq libopenblas-dev liblapacke-dev pkg-config; \
	fi

lint:
	$(SWIFT) format lint --strict --recursive Package.swift Sources Tests Benchmarks

format:
	$(SWIFT) format --in-place --recursive Package.swift Sources Tests Benchmarks

# PEER is a Python with bitsandbytes and transformers, LLAMA one with llama-cpp-python, to compare with in the same run.
bench: build
	$(SWIFT) build $(FLAGS) --product ForwardBenchmarks
	$(SWIFT) build $(FLAGS) --product KernelBenchmarks
	Benchmarks/run $(PROGRAM) $(if $(PEER),--peer $(PEER))
	Benchmarks/forward $(PROGRAM) .build/release/ForwardBenchmarks $(if $(PEER),--peer $(PEER))
	.build/release/KernelBenchmarks
	Benchmarks/layouts $(PROGRAM) $(if $(LLAMA),--llama $(LLAMA))
	Benchmarks/calibration $(PROGRAM) $(if $(PEER),--peer $(PEER))

# Every layout in its own client. PEER is a Python with the clients of Tests/Interop/clients.txt: without it an environment
# is made in .build/interop, once. LLAMA is one with llama-cpp-python and gguf, MODEL and TEXT are a Llama and a text.
MODEL ?= ../shared/models/stories5M
TEXT ?= ../shared/text/eval.txt
CLIENTS := .build/interop
INTEROP := $(or $(PEER),$(CLIENTS)/bin/python)
interop: build $(if $(PEER),,$(CLIENTS)/complete)
	$(INTEROP) Tests/Interop/layouts.py $(PROGRAM) $(MODEL) $(TEXT) --page Docs/Interop.md
	$(INTEROP) Tests/Interop/gguf.py $(PROGRAM) $(MODEL) --text $(TEXT) $(if $(LLAMA),--llama $(LLAMA))
	$(if $(LLAMA),$(LLAMA) Tests/Interop/quantize.py $(PROGRAM) $(MODEL))

# The first row of each layout in each client, and three GGUF mixes, on the bundled model, in a minute. Takes the program
# that an earlier build or test left.
interop-quick: $(if $(PEER),,$(CLIENTS)/complete)
	@test -x $(PROGRAM) || $(MAKE) build
	$(INTEROP) Tests/Interop/layouts.py $(PROGRAM) Fixtures/tiny-llama Fixtures/text/tiny-eval.txt --one-each
	$(INTEROP) Tests/Interop/gguf.py $(PROGRAM) Fixtures/tiny-llama --text Fixtures/text/tiny-eval.txt F16 Q8_0 Q4_K_M

$(CLIENTS)/complete: Tests/Interop/clients.txt
	Tests/Interop/environment $(CLIENTS)

# Every reader of files is given changed inputs for MINUTES together; Tests/Fuzz/run takes single targets, too.
MINUTES ?= 10
fuzz: build
	Tests/Fuzz/build
	Tests/Fuzz/run $(MINUTES)

# The known inputs again, with address sanitizer; links with what an earlier build or test left.
fuzz-replay:
	@test -e .build/release/convert-model.product/Objects.LinkFileList || $(MAKE) build
	OPTIMIZE=-Onone OUT=.build/fuzz-replay Tests/Fuzz/build
	OUT=.build/fuzz-replay TIMEOUT=10 Tests/Fuzz/run replay

# Conversions killed KILLS times at random moments, and gone on with: the bytes must be those of undisturbed ones.
KILLS ?= 200
torture: build
	Tests/Torture/torture.py $(PROGRAM) --kills $(KILLS)

# One binary with the Swift libraries inside, completions for three shells, and the manual page.
# Functions with the same instructions are kept once, an eighth of the program.
# OpenBLAS goes in, too: a folder with its archives alone comes first on the linker's way.
ARCHIVES := .build/archives
install: setup
	mkdir -p $(ARCHIVES)
	ln -sf "$$(pkg-config --variable=libdir openblas)/libopenblas.a" $(ARCHIVES)/libopenblas.a
	sed 's|^libdir=.*|libdir=$(CURDIR)/$(ARCHIVES)|' "$$(pkg-config --variable=pcfiledir openblas)/openblas.pc" \
	  > $(ARCHIVES)/openblas.pc
	PKG_CONFIG_PATH=$(CURDIR)/$(ARCHIVES) $(SWIFT) build $(FLAGS) --product convert-model --static-swift-stdlib \
	  --scratch-path .build/static -Xlinker --icf=all
	$(SWIFT) package $(FLAGS) plugin generate-manual
	install -d "$(TARGET)/bin" "$(TARGET)/share/man/man1" "$(TARGET)/share/bash-completion/completions" \
	  "$(TARGET)/share/zsh/site-functions" "$(TARGET)/share/fish/vendor_completions.d"
	install -s -m 755 .build/static/release/convert-model "$(TARGET)/bin/convert-model"
	install -m 644 .build/plugins/GenerateManual/outputs/ConvertModel/convert-model.1 "$(TARGET)/share/man/man1/"
	"$(TARGET)/bin/convert-model" --generate-completion-script bash \
	  > "$(TARGET)/share/bash-completion/completions/convert-model"
	"$(TARGET)/bin/convert-model" --generate-completion-script zsh > "$(TARGET)/share/zsh/site-functions/_convert-model"
	"$(TARGET)/bin/convert-model" --generate-completion-script fish \
	  > "$(TARGET)/share/fish/vendor_completions.d/convert-model.fish"

uninstall:
	rm -f "$(TARGET)/bin/convert-model" "$(TARGET)/share/man/man1/convert-model.1" \
	  "$(TARGET)/share/bash-completion/completions/convert-model" \
	  "$(TARGET)/share/zsh/site-functions/_convert-model" \
	  "$(TARGET)/share/fish/vendor_completions.d/convert-model.fish"

clean:
	rm -rf .build demo-output
