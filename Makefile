# zgen: `make run` prints a story, `make test` runs all tests, `make quick` those of a minute; each installs missing
# packages first.
#
# Rooms are folders: every .c file below src is compiled, so that adding a file needs no line here.  The other
# flavours (asan, fuzz, aarch64) use the same rules in a build folder of their own, with another compiler or other
# CFLAGS.  CC, CFLAGS, CPPFLAGS, LDFLAGS, PREFIX and DESTDIR are the user's.

CFLAGS ?= -O2 -g
PREFIX ?= /usr/local
BUILD  ?= build
FUZZ_SECONDS ?= 60
ROOMS  ?= *
SANITIZE = -O2 -g -fno-sanitize-recover=all

# Sums must be the same on every machine and at every optimisation: no contraction into fused products.
FLAGS   = $(CPPFLAGS) $(CFLAGS) -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -pthread \
          -ffp-contract=off -fno-math-errno
LDLIBS  = -l:libjansson.a -l:libpcre2-8.a -l:libedit.a -l:libtinfo.a -l:libbsd.a -l:libmd.a -lm -pthread
MACHINE := $(shell $(CC) -dumpmachine 2>/dev/null)
# A line per file, "  CC      main.c"; make V=1 shows the commands instead, make -s nothing.
ifeq ($(V)$(findstring s,$(filter-out -%,$(firstword $(MAKEFLAGS)))),)
say = @printf '  %-7s %s\n' $1;
endif

ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 1) --no-print-directory
endif

SOURCES := $(wildcard $(ROOMS:%=src/%/*.c) $(ROOMS:%=src/%/*/*.c))
TESTS   := $(wildcard test/unit/*.c)
GPU_TESTS := $(wildcard test/gpu/*.c)
WORKSHOP  := $(patsubst %.c,$(BUILD)/%,$(wildcard scripts/workshop/*.c))
FUZZERS := $(patsubst test/fuzz/fuzz_%.c,%,$(wildcard test/fuzz/fuzz_*.c))

ifeq ($(findstring x86_64,$(MACHINE)),)
SOURCES := $(filter-out src/cpu/avx%.c,$(SOURCES))
endif

# A cross compiler has no Jansson and no PCRE2 to link.  With the headers of this machine, which are the same, all rooms
# compile; unit tests that include Jansson, or a room that needs one of the two, are left out.
ifeq ($(findstring $(shell uname -m),$(MACHINE)),)
FLAGS  += -idirafter /usr/include
LDLIBS := -lm -pthread
TESTS  := $(filter-out $(shell grep -lE '^.include (<jansson.h>|"(golden|together).h"|"[./]*/src/(base/json.h|jinja/|text/|run/|cli/|bench/))' $(TESTS) /dev/null),$(TESTS))
endif

# With a CUDA compiler the GPU executor is built: for the GPU of this machine, for CUDA_ARCH=90 or another, or for three
# architectures.  CUDA=no leaves it out, as do sanitizers and cross compilers.
CUDA      ?= $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc) no)
CUDA_ARCH ?= $(subst .,,$(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | grep -xE '[0-9]+\.[0-9]+' | sort -u))
ifneq ($(findstring -fsanitize,$(CFLAGS))$(filter-out $(shell uname -m)%,$(MACHINE)),)
CUDA := no
endif
ifeq ($(CUDA),no)
CUDA_OBJECTS := $(BUILD)/cuda/capability.o $(BUILD)/cuda/none.o
# Tests that call kernels directly are left out; the others skip with the reason.
GPU_TESTS    := $(filter-out $(shell grep -l '"device.h"' $(GPU_TESTS) /dev/null),$(GPU_TESTS))
else
CUDA_OBJECTS := $(BUILD)/cuda/capability.o $(patsubst %.cu,$(BUILD)/%.o,$(wildcard cuda/*/*.cu))
CUDA_CODE    := $(foreach a,$(or $(CUDA_ARCH),80 90 120),-gencode arch=compute_$(a:90=90a),code=sm_$(a:90=90a)) \
                $(if $(CUDA_ARCH),,-gencode arch=compute_120,code=compute_120)
CUDA_FLAGS   := -std=c++20 -O3 $(CUDA_CODE) -Werror all-warnings -Xcompiler -Wall,-Wno-missing-field-initializers
LDLIBS       += -L$(dir $(realpath $(CUDA)))../lib64 -lcudart_static -ldl -lrt -l:libstdc++.a
endif

OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o) $(CUDA_OBJECTS) $(BUILD)/models/demo.o

all: zgen

zgen: $(BUILD)/zgen
	@install -m 755 $< $@

run:
	@scripts/setup.sh run
	@$(MAKE) zgen
	./zgen --echo -p "Once upon a time"

test:
	@scripts/setup.sh test
	@$(MAKE) zgen $(BUILD)/test_unit $(WORKSHOP)
	@test/run.sh $(BUILD) layers docs unit cli hostile mutations aarch64

quick:
	@scripts/setup.sh run
	@$(MAKE) $(BUILD)/test_unit
	@test/run.sh $(BUILD) layers docs unit

# build/test_gpu needs a driver and the tree's test/ and models/: it can be copied to a machine with a GPU.
test-gpu:
	@scripts/setup.sh run
	@$(MAKE) $(BUILD)/test_gpu
	$(BUILD)/test_gpu

asan: FLAVOUR = BUILD=build/asan CFLAGS='$(SANITIZE) -fno-omit-frame-pointer -fsanitize=address,undefined'
asan:
	@scripts/setup.sh test
	@$(MAKE) $(FLAVOUR) build/asan/zgen build/asan/test_unit
	@test/run.sh build/asan unit cli hostile mutations

aarch64:
	@scripts/setup.sh aarch64
	@test/run.sh $(BUILD) aarch64

cross: FLAVOUR = BUILD=build/aarch64 CC=aarch64-linux-gnu-gcc AR=aarch64-linux-gnu-ar
cross:
	@$(MAKE) $(FLAVOUR) build/aarch64/main.o build/aarch64/test_unit

# Fuzzers test the rooms that read untrusted bytes; the others (above all the kernels) are not built for them.
fuzz: FLAVOUR = BUILD=build/fuzz CC=clang ROOMS='base gguf jinja text plan' \
        CFLAGS='$(SANITIZE) -fsanitize=fuzzer-no-link,address,undefined'
fuzz:
	@scripts/setup.sh fuzz
	@$(MAKE) $(FLAVOUR) $(FUZZERS:%=build/fuzz/fuzz_%)
	@for f in $(FUZZERS); do \
	    mkdir -p build/fuzz/corpus/$$f && \
	    build/fuzz/fuzz_$$f -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=build/fuzz/ build/fuzz/corpus/$$f || exit 1; \
	done

format:
	@scripts/setup.sh format
	$(call say,FORMAT "main.c src cuda test scripts")clang-format -i $(shell find main.c src cuda test scripts -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh')

install: zgen
	install -D -m 755 zgen $(DESTDIR)$(PREFIX)/bin/zgen
	install -D -m 644 src/cli/zgen.1 $(DESTDIR)$(PREFIX)/share/man/man1/zgen.1

clean:
	rm -rf build zgen

$(BUILD)/zgen: $(BUILD)/main.o $(BUILD)/rooms.a
	$(call say,LINK $@)$(CC) $(FLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/test_unit: $(TESTS:%.c=$(BUILD)/%.o) $(BUILD)/rooms.a
	$(call say,LINK $@)$(CC) $(FLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/test_gpu: $(GPU_TESTS:%.c=$(BUILD)/%.o) $(BUILD)/test/unit/main.o $(BUILD)/rooms.a
	$(call say,LINK $@)$(CC) $(FLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(WORKSHOP): %: %.o $(BUILD)/rooms.a
	$(call say,LINK $@)$(CC) $(FLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/fuzz_%: $(BUILD)/test/fuzz/fuzz_%.o $(BUILD)/rooms.a
	$(call say,LINK $@)$(CC) $(FLAGS) -fsanitize=fuzzer $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/rooms.a: $(OBJECTS)
	@rm -f $@
	$(call say,AR $@)$(AR) rcs $@ $^

$(BUILD)/src/cpu/avx2.o: ISA = -mavx2 -mfma -mf16c
$(BUILD)/src/cpu/avx512.o: ISA = -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni
$(BUILD)/test/gpu/%.o: ISA = -isystem $(dir $(realpath $(CUDA)))../include

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC $<)$(CC) $(FLAGS) $(ISA) -MMD -MP -c -o $@ $<

# Of a processor, for one architecture.
$(BUILD)/cuda/kernel/product.o: DURATION = (about 110 s per architecture)
$(BUILD)/cuda/kernel/fusion.o: DURATION = (about 40 s per architecture)
$(BUILD)/cuda/kernel/attn.o: DURATION = (about 20 s per architecture)

$(BUILD)/%.o: %.cu $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,NVCC "$(strip $< $(DURATION))")$(CUDA) $(CUDA_FLAGS) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<

$(BUILD)/models/demo.o: models/demo.S models/stories-q8_0.gguf
	@mkdir -p $(@D)
	$(call say,CC $<)$(CC) -c -o $@ $<

# Changes only with the compiler or its flags, so that objects of other flags are compiled again.
$(BUILD)/flags: always
	@mkdir -p $(@D)
	@echo "$(CC) $(FLAGS) $(CUDA_FLAGS)" | cmp -s - $@ || echo "$(CC) $(FLAGS) $(CUDA_FLAGS)" > $@

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
.PHONY: all run test quick test-gpu asan aarch64 cross fuzz format install clean always
.SECONDARY:
