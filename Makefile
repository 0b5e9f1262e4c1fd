# SPDX-License-Identifier: Apache-2.0
#
# make            the libraries, the daemon and the command line, in build/
# make libfuse    a newer libfuse in build/libfuse, with io_uring, that all the rest then uses; mount and
#                 bench do that by themselves, and go on with the packaged one where it cannot be had
# make mount      the same, then a store mounted at ~/emdbfs (STORE=, MNT=); make umount
# make check      everything that must pass before a commit; make check-unit for the quick part
# make install    below DESTDIR and PREFIX
#
# Variables: BUILD= output directory, CC=, CFLAGS=, DEV=1 warnings are errors, V=1 show commands,
# VARIANT=release|asan|tsan, LIBFUSE_PRIVATE= prefix of a private static libfuse (that of make libfuse
# when it was made; empty: the packaged one), SEED=,
# FUZZ_SECONDS=, TESTS= which binaries check-unit runs (test_io test_codec ...), CORE_SRCS= the part
# of core/ they are linked with.

BUILD	?= build
VARIANT ?= release
CC	:= $(if $(filter default,$(origin CC)),gcc,$(CC))
CFLAGS	?= -O2 -g
PREFIX	?= /usr/local
LIBDIR	?= $(PREFIX)/lib
MANDIR	?= $(PREFIX)/share/man
UNITDIR ?= $(PREFIX)/lib/systemd
MODPROBEDIR ?= $(PREFIX)/lib/modprobe.d
STORE	?= $(HOME)/.local/share/emdbfs/store
MNT	?= $(HOME)/emdbfs
FUZZ_SECONDS ?= 5
VERSION := $(shell sed -n 's/.*EMDB_VERSION_STRING "\(.*\)"/\1/p' core/emdb.h)
SOVERSION := 0
PKG_CONFIG ?= pkg-config
PYTEST	?= /usr/bin/python3 -m pytest

O	:= $(BUILD)/$(VARIANT)
BIN	:= $(if $(filter release,$(VARIANT)),$(BUILD),$(O))
Q	:= $(if $(V),,@)
say	= $(if $(V),,@printf '  %-7s %s\n' $(1) $(patsubst $(BUILD)/%,%,$@))
is_clang := $(findstring clang,$(shell $(CC) --version 2>/dev/null | head -n 1))
SUB	= +$(Q)$(MAKE) --no-print-directory

# ---- Flags ----

WARN	:= -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wold-style-definition -Wpointer-arith -Wcast-qual -Wwrite-strings -Wvla -Wundef -Wformat=2 \
	-Wconversion -Wno-sign-conversion -Wswitch-enum -Wimplicit-fallthrough -Wnull-dereference \
	$(if $(is_clang),-Wthread-safety,-Wlogical-op -Wduplicated-cond -Wjump-misses-init) \
	$(if $(DEV),-Werror)
SAN_release := -D_FORTIFY_SOURCE=2
SAN_asan := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -DEMDB_DEBUG
SAN_tsan := -fsanitize=thread -fno-omit-frame-pointer -DEMDB_DEBUG
SAN_fuzz := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all \
	-fno-omit-frame-pointer -DEMDB_DEBUG
SANITIZE := $(SAN_$(VARIANT))
ifneq ($(filter asan tsan fuzz,$(VARIANT)),)
override CFLAGS := -O1 -g
endif
ALL_CFLAGS = -std=gnu11 $(CFLAGS) $(WARN) -fno-common -fvisibility=hidden -fstack-protector-strong \
	-fPIC -D_FILE_OFFSET_BITS=64 -D_GNU_SOURCE -I. $(SANITIZE) $(EXTRA_CFLAGS)
ALL_LDFLAGS = $(LDFLAGS) $(filter -fsanitize=%,$(SANITIZE))
TOOL_LIBS := -larchive
CORE_LIBS := -lisal -luring -lsodium -largon2 -lpthread
LIBFUSE_DIR := build/libfuse
LIBFUSE_PRIVATE ?= $(abspath $(patsubst %/lib/libfuse3.a,%,$(wildcard $(LIBFUSE_DIR)/prefix/lib/libfuse3.a)))
ifneq ($(LIBFUSE_PRIVATE),)
PKG_CONFIG := PKG_CONFIG_PATH='$(LIBFUSE_PRIVATE)/lib/pkgconfig:$(wildcard $(LIBFUSE_PRIVATE)/lib/*/pkgconfig)' $(PKG_CONFIG)
FUSE_STATIC := --static
endif
FUSE_CFLAGS := $(subst -I/,-isystem /,$(shell $(PKG_CONFIG) --cflags fuse3 2>/dev/null))
FUSE_LIBS := $(shell $(PKG_CONFIG) $(FUSE_STATIC) --libs fuse3 2>/dev/null || echo -lfuse3)
BENCH_LIBS ?=

# ---- What there is ----

objs	= $(patsubst %.c,$(O)/%.o,$(1))
CORE_SRCS ?= $(wildcard core/*.c)
CORE	:= $(call objs,$(CORE_SRCS))
# What both ends of the control socket share is in tools/.
FUSE	:= $(call objs,$(wildcard fuse/*.c) tools/ctl_proto.c tools/install.c tools/secret.c)
TOOLS	:= $(call objs,$(wildcard tools/*.c))
PROGS	:= $(if $(wildcard fuse/main.c),$(BIN)/emdbfs) $(if $(TOOLS),$(BIN)/emdb)
LIBS	:= $(BIN)/libemdb.a $(BIN)/libemdb.so.$(SOVERSION)
TESTS	?= $(basename $(notdir $(wildcard tests/unit/test_*.c)))
CRASH	:= $(patsubst %.c,$(O)/%,$(wildcard tests/crash/crash_*.c))
# What has threads: the others only take time under ThreadSanitizer.
TSAN_TESTS ?= $(filter-out test_names test_acl test_ttl test_extent test_format% test_golden test_error test_store test_index_ord test_view test_kv test_group test_appdir test_provoked test_process,$(TESTS))
# Waits for most of its time; test_race expires under it.
TSAN_TESTS := $(filter-out test_expire,$(TSAN_TESTS))
# One thread at work, and much that waits for the disk.
TSAN_TESTS := $(filter-out test_bus test_keys test_repair_keys test_crypto test_convert test_tamper test_nonce,$(TSAN_TESTS))
UNIT	:= $(TESTS:%=$(O)/tests/unit/%)
FUZZERS := $(patsubst %.c,$(O)/%,$(wildcard tests/fuzz/fuzz_*.c))
BENCHES := $(patsubst tools/bench/%.c,$(BIN)/bench/%,$(wildcard tools/bench/*.c))
SOURCES	= $(wildcard $(addsuffix /*.[ch],core fuse tools tools/bench tools/bench/peers tests/unit tests/fuzz tests/crash))

# Files outside core/ that a test, fuzz target or bench links as well: EXTRA_<name>.
EXTRA_test_names := $(wildcard fuse/names.c)
EXTRA_fuzz_names := $(wildcard fuse/names.c)
EXTRA_test_acl := fuse/acl.c
WRAP_test_nonce := -Wl,--wrap=seal,--wrap=getrandom
EXTRA_fuzz_acl := fuse/acl.c
# The handlers without what talks to the kernel.
HANDLERS := $(filter-out fuse/main.c fuse/session.c fuse/daemon.c fuse/signals.c fuse/mounts.c fuse/paths.c \
	fuse/control.c fuse/control_ops.c fuse/notify.c fuse/log.c fuse/uring.c fuse/unlock.c,$(wildcard fuse/*.c))
EXTRA_test_ops := $(HANDLERS) tools/secret.c
EXTRA_fuzz_ops := $(HANDLERS) tools/secret.c
TSAN_TESTS := $(filter-out test_ops,$(TSAN_TESTS))
EXTRA_fuzz_tar := tools/tar_import.c
EXTRA_test_control := tools/ctl_proto.c
EXTRA_fuzz_control := tools/ctl_proto.c
EXTRA_nullfs := $(patsubst %,fuse/%.c,session child view options names uring mounts notify log) tools/secret.c
LIBS_nullfs := $(FUSE_LIBS)
WRAP_crash_store := -Wl,--wrap=emdb_io_posix_new,--wrap=crc32c,--wrap=journal_give_back
WRAP_fuzz_store := -Wl,--wrap=emdb_io_posix_new
WRAP_test_bus := -Wl,--wrap=segment_rec
WRAP_test_provoked := -Wl,--wrap=emdb_io_posix_new
WRAP_test_faults := -Wl,--wrap=emdb_io_posix_new,--wrap=thread_start,--wrap=io_event_new,--wrap=io_event_close
EXTRA_crash_store := $(addprefix tests/crash/,simdisk.c work.c work_run.c work_check.c)
EXTRA_peers := $(wildcard tools/bench/peers/*.c)
# Other stores to be measured beside, where their packages are.
HAVE_LMDB := $(if $(wildcard /usr/include/lmdb.h),y)
HAVE_ROCKSDB := $(if $(wildcard /usr/include/rocksdb/c.h),y)
LIBS_peers := $(if $(HAVE_LMDB),-llmdb) $(if $(HAVE_ROCKSDB),-lrocksdb)
extra	= $(call objs,$(EXTRA_$(notdir $(1))))

all: $(LIBS) $(PROGS)

# ---- Rules ----

.SECONDEXPANSION:
.SECONDARY:
.DELETE_ON_ERROR:

# Rewritten only when the command line changes, so that changed flags rebuild.
FLAGS	:= $(CC) $(ALL_CFLAGS) $(FUSE_CFLAGS)
$(O)/.flags: FORCE
	@mkdir -p $(@D); printf '%s\n' $(call quote,$(FLAGS)) | cmp -s - $@ || printf '%s\n' $(call quote,$(FLAGS)) >$@
quote	= '$(subst ','\'',$(1))'
FORCE:

$(O)/core/%.o $(O)/fuse/%.o $(O)/tools/%.o: ALL_CFLAGS += -include core/banned.h
$(O)/fuse/%.o $(O)/tools/bench/nullfs.o $(O)/tests/unit/test_ops.o $(O)/tests/fuzz/fuzz_ops.o: \
	ALL_CFLAGS += $(FUSE_CFLAGS)
$(O)/tools/bench/%.o: ALL_CFLAGS += $(if $(HAVE_LMDB),-DHAVE_LMDB) $(if $(HAVE_ROCKSDB),-DHAVE_ROCKSDB)
$(O)/%.o: %.c $(O)/.flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(BIN)/libemdb.a: $(CORE)
	$(call say,AR)
	$(Q)rm -f $@ && ar crs $@ $^

$(BIN)/libemdb.so.$(SOVERSION): $(CORE)
	$(call say,LD)
	$(Q)$(CC) -shared -Wl,-soname,$(@F) $(ALL_LDFLAGS) -Wl,-z,now -o $@ $^ $(CORE_LIBS)
	$(Q)ln -sf $(@F) $(BIN)/libemdb.so

link	= $(Q)mkdir -p $(@D) && $(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o %.a,$^) $(1) $(CORE_LIBS)
$(BIN)/emdbfs: $(FUSE) $(BIN)/libemdb.a
	$(call say,LD)
	$(call link,$(FUSE_LIBS))
$(BIN)/emdb: $(TOOLS) $(BIN)/libemdb.a
	$(call say,LD)
	$(call link,$(TOOL_LIBS))
$(UNIT) $(CRASH): %: %.o $$(call extra,$$*) $(BIN)/libemdb.a
	$(call say,LD)
	$(call link,$(WRAP_$(notdir $@)))
$(FUZZERS): %: %.o $$(call extra,$$*) $(BIN)/libemdb.a
	$(call say,LD)
	$(call link,-fsanitize=fuzzer $(WRAP_$(notdir $@)) $(if $(filter %/fuzz_tar,$@),$(TOOL_LIBS)))
$(BIN)/bench/%: $(O)/tools/bench/%.o $$(call extra,$$*) $(BIN)/libemdb.a
	$(call say,LD)
	$(call link,$(BENCH_LIBS) $(LIBS_$*))

-include $(shell find $(O) -name '*.d' -type f 2>/dev/null)

# ---- Packages ----

deps:
	$(Q).ci/deps deps
deps-test: deps
	$(Q).ci/deps deps-test

# Not where a prefix was given, or none at all. Never fails: all works with the packaged one too.
LIBFUSE_TRY := $(if $(filter file,$(origin LIBFUSE_PRIVATE)),libfuse,deps)
libfuse: deps
	$(Q)packaging/libfuse/build.sh $(LIBFUSE_DIR) || \
		echo "using the packaged libfuse, without io_uring: $$(cat $(LIBFUSE_DIR)/why) (rm -r $(LIBFUSE_DIR) to try again)"

# ---- Tests ----

RUN	= $(if $(EMDB_LONG),TEST_TIMEOUT=7200) ASAN_OPTIONS=detect_stack_use_after_return=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 EMDB_BIN=$(abspath $(BIN)) tests/unit/run.sh
HAVE_CLANG := $(if $(shell command -v clang),y)

# In two steps, because this file looks at the machine before the packages are there.
check: deps-test
	$(SUB) check-all
check-all:
	$(SUB) DEV=1 all check-unit check-crash check-examples bench-build
ifneq ($(HAVE_CLANG),)
	$(SUB) DEV=1 BUILD=$(BUILD)/clang CC=clang all unit-build bench-build
endif
	$(SUB) DEV=1 check-asan
	$(SUB) DEV=1 check-tsan
	$(SUB) fuzz-smoke
	$(SUB) check-symbols check-layers check-docs format-check
	$(SUB) check-integration
	@echo "check: all passed"

unit-build: $(UNIT) $(CRASH)
bench-build: $(BENCHES)
check-unit: $(UNIT)
	$(Q)$(RUN) $(or $(LABEL),unit) $(UNIT)
check-crash: $(CRASH) $(PROGS)
	$(Q)$(if $(CRASH),$(RUN) crash $(CRASH))
# As a user would: against what `make install` installs.
check-examples: all
	$(Q)rm -rf $(O)/stage && $(MAKE) -s --no-print-directory install DESTDIR=$(abspath $(O))/stage && \
		tests/examples/run.sh $(abspath $(O))/stage $(CC) $(if $(HAVE_CLANG),clang++,c++)
check-asan:
	$(SUB) VARIANT=asan LABEL=unit-asan check-unit
check-tsan:
	$(SUB) VARIANT=tsan LABEL=unit-tsan TESTS='$(filter-out test_faults,$(TSAN_TESTS))' check-unit
check-integration: all
	$(Q)if ls tests/integration/test_*.py >/dev/null 2>&1; then \
		EMDB_BIN=$(abspath $(BIN)) $(PYTEST) -q -p no:cacheprovider tests/integration $(PYTEST_ARGS); fi
check-long: all
	$(SUB) FUZZ_SECONDS=120 fuzz-smoke
	$(SUB) EMDB_LONG=1 VARIANT=asan check-unit check-crash
	$(SUB) EMDB_LONG=1 check-unit check-crash check-integration
	$(SUB) EMDB_LONG=1 check-uring
# With the private libfuse, where it can be had, and the kernel's switch on, where it is ours to set.
check-uring: libfuse
	$(SUB) BUILD=$(BUILD)/uring all bench-build
	$(SUB) BUILD=$(BUILD)/uring PYTEST_ARGS='--io-uring $(PYTEST_ARGS)' check-integration

# Figures: so many crashes, kills, faults, damages and seconds of fuzzing, and what was lost. Hours; PROOF= some of it.
STATES	?= 100000
KILLS	?= 1000
MUTATIONS ?= 1000000
FUZZ_CPU ?= 600
PROOF	?= crash kill daemon faults damage fuzz
proof: all unit-build $(if $(filter fuzz,$(PROOF)),fuzz)
	$(Q)STATES=$(STATES) KILLS=$(KILLS) MUTATIONS=$(MUTATIONS) FUZZ_CPU=$(FUZZ_CPU) PYTEST='$(PYTEST)' \
		$(if $(SEED),SEED=$(SEED)) tests/proof.sh $(BUILD) $(PROOF)

fuzz:
ifneq ($(HAVE_CLANG),)
	$(SUB) VARIANT=fuzz CC=clang fuzz-build
endif
fuzz-build: $(FUZZERS)
fuzz-smoke: fuzz
	$(Q)tests/fuzz/run.sh $(BUILD)/fuzz/tests/fuzz $(FUZZ_SECONDS)

# By hand: the analyser of gcc over the libraries, the daemon and the command line. A warning is an error.
analyze:
	$(SUB) BUILD=$(BUILD)/analyze CC=gcc DEV=1 EXTRA_CFLAGS='-fanalyzer -Wno-analyzer-too-complex' all
	@echo "analyze: no warnings"
# By hand: the unit tests under valgrind, all of them; TESTS= some.
check-valgrind: $(UNIT)
	$(Q)TEST_TIMEOUT=1800 $(RUN) valgrind $(UNIT)

check-symbols: $(BIN)/libemdb.so.$(SOVERSION)
	$(Q)bad=$$(nm -D --defined-only $< | awk '$$3 !~ /^emdb_/ {print $$3}'); \
		[ -z "$$bad" ] || { echo "exported without emdb_: $$bad"; exit 1; }; echo "check-symbols: ok"
check-layers check-docs:
	$(Q)tests/$@.sh
format-check:
	$(Q)clang-format --dry-run -Werror $(SOURCES) && echo "format-check: ok"
format:
	$(Q)clang-format -i $(SOURCES)

bench: $(LIBFUSE_TRY)
	$(SUB) all bench-build
	$(Q)EMDB_BIN=$(abspath $(BIN)) tools/bench/run.sh $(BENCH_ARGS)
	$(SUB) bench-peers
# What the last run gave goes into README and beside the benchmark.
bench-publish:
	$(Q)cp $(BIN)/bench/results.jsonl $(BIN)/bench/results.roundtrips.md tools/bench/
	$(Q)tools/bench/report.py tools/bench/results.jsonl --readme README.md \
		--markdown tools/bench/results.md --svg tools/bench/results.svg
# What encryption costs, in the mount and in the engine, beside gocryptfs (package gocryptfs).
bench-encrypted: $(LIBFUSE_TRY)
	$(SUB) all bench-build
	$(Q)EMDB_BIN=$(abspath $(BIN)) tools/bench/encrypted.py measure $(BENCH_ARGS)
bench-encrypted-publish:
	$(Q)cp $(BIN)/bench/encrypted.jsonl tools/bench/
	$(Q)tools/bench/encrypted.py report tools/bench/encrypted.jsonl --markdown tools/bench/encrypted.md
	$(Q)tools/bench/encrypted.py report tools/bench/encrypted.jsonl --readme README.md
# Why the rows that miss their aims do: tools/bench/profile.md, as root; PROFILE_ARGS: its --help.
bench-profile: $(LIBFUSE_TRY)
	$(SUB) all bench-build
	$(Q)EMDB_BIN=$(abspath $(BIN)) tools/bench/profile.py -o tools/bench/profile.md $(PROFILE_ARGS)
bench-engine: $(BIN)/bench/engine
	$(Q)$< $(ENGINE_ARGS) $(or $(BENCH_DIR),$(BIN))
.PHONY: bench-peers bench-peers-run bench-peers-publish
# Beside LMDB, RocksDB (packages liblmdb-dev, librocksdb-dev) and stores in Rust (cargo).
PEERS_ARGS ?= $(if $(filter --quick,$(BENCH_ARGS)),-n 200000 -r 1)
# In two steps, because this file looks at the machine before the packages are there.
bench-peers:
	$(Q).ci/deps deps-bench || echo "bench-peers: without the packages that are missing"
	$(SUB) bench-peers-run
bench-peers-run: $(BIN)/bench/peers
	$(Q)EMDB_BIN=$(abspath $(BIN)) tools/bench/peers.py $(PEERS_ARGS) $(BENCH_DIR)
bench-peers-publish:
	$(Q)tools/bench/peers.py --publish $(BIN)/bench

bench-space: all $(BIN)/bench/space
	$(Q)EMDB_BIN=$(abspath $(BIN)) tools/bench/space.sh $(BENCH_ARGS)

# ---- Try it ----

# True also of a mount whose daemon was killed, which emdbfs cleans up by itself. What tells the two
# apart is a question that the kernel never answers from its caches, such as statfs.
MOUNTED	= grep -qs " $(abspath $(MNT)) fuse.emdbfs " /proc/mounts

mount: $(LIBFUSE_TRY)
	$(SUB) all
	$(Q)if $(MOUNTED) && stat -f "$(MNT)" >/dev/null 2>&1; then echo "$(MNT) is already mounted."; else \
		mkdir -p "$$(dirname "$(STORE)")" && { $(MOUNTED) || mkdir -p "$(MNT)"; } && \
		"$(BUILD)/emdbfs" "$(STORE)" "$(MNT)" && \
		printf '%s\n' "Mounted $(STORE) at $(MNT)." \
		"  Try:     echo hello > $(MNT)/greeting && cat $(MNT)/greeting" \
		"  Expire:  setfattr -n user.emdb.ttl -v 90s $(MNT)/greeting" \
		"  Unmount: make umount        (or: fusermount3 -u $(MNT))"; fi
umount:
	$(Q)if $(MOUNTED); then fusermount3 -u "$(MNT)"; else echo "$(MNT) is not mounted."; fi

# ---- Install ----

D	= $(DESTDIR)
put	= $(if $(2),install -d $(D)$(3) && install -m $(1) $(2) $(D)$(3)/,:)
man	= $(wildcard packaging/man/*.$(1))
install: all
	$(Q)$(call put,755,$(PROGS),$(PREFIX)/bin)
	$(Q)$(call put,644,$(LIBS),$(LIBDIR)) && ln -sf libemdb.so.$(SOVERSION) $(D)$(LIBDIR)/libemdb.so
	$(Q)$(call put,644,core/emdb.h,$(PREFIX)/include)
	$(Q)install -d $(D)$(LIBDIR)/pkgconfig && printf '%s\n' 'Name: emdb' 'Version: $(VERSION)' \
		'Description: Embedded log-structured key-value store' 'Libs: -L$(LIBDIR) -lemdb' \
		'Libs.private: $(CORE_LIBS)' 'Cflags: -I$(PREFIX)/include' >$(D)$(LIBDIR)/pkgconfig/emdb.pc
	$(Q)$(foreach s,1 3 5 7 8,$(call put,644,$(call man,$(s)),$(MANDIR)/man$(s)) &&) :
# A page for each function: the one that names it.
	$(Q)cd $(D)$(MANDIR)/man3 && for p in *-*.3; do for f in $$(sed -n 's/^\.Nm \(emdb_[a-z_]*\).*/\1/p' "$$p"); do \
		ln -sf "$$p" "$$f.3"; done; done
	$(Q)$(call put,644,$(wildcard packaging/systemd/system/*),$(UNITDIR)/system)
	$(Q)$(call put,644,$(wildcard packaging/systemd/user/*),$(UNITDIR)/user)
	$(Q)$(call put,644,$(wildcard packaging/modprobe.d/*),$(MODPROBEDIR))
	$(Q)$(call put,644,$(wildcard packaging/completion/*),$(PREFIX)/share/bash-completion/completions)
	$(Q)if [ -e $(BIN)/emdbfs ]; then install -d $(D)$(PREFIX)/sbin && \
		for h in mount.emdbfs mount.fuse.emdbfs; do ln -sf ../bin/emdbfs $(D)$(PREFIX)/sbin/$$h; done; fi
	$(Q)install -d $(D)$(PREFIX)/sbin && ln -sf ../bin/emdb $(D)$(PREFIX)/sbin/fsck.emdbfs
# What an install into an empty directory gives is what goes.
uninstall:
	$(Q)t=$$(mktemp -d) && $(MAKE) -s --no-print-directory install DESTDIR="$$t" && \
		(cd "$$t" && find . ! -type d) | while read -r f; do rm -f "$(D)/$$f"; done; rm -rf "$$t"

clean:
	$(Q)rm -rf $(BUILD)

.PHONY: all analyze check-valgrind proof deps deps-test libfuse check check-all unit-build bench-build check-unit check-crash check-examples \
	check-asan check-tsan \
	check-integration check-long check-uring fuzz fuzz-build fuzz-smoke check-symbols check-layers check-docs format-check \
	format bench bench-publish bench-profile bench-encrypted bench-encrypted-publish bench-engine bench-space mount umount install uninstall clean FORCE
