/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guard: touching mapped files without dying of SIGBUS.
 *
 * A page of a mapping that the disk cannot deliver, or that lies beyond the end of a file that
 * somebody cut, raises SIGBUS in the thread that touches it. Between guard_begin() and guard_end()
 * such a touch instead returns control to guard_begin(), which then is false. A SIGBUS outside goes
 * to whatever handler was installed before, as if this module did not exist.
 *
 * Cost: about 5 ns; the signal mask is not saved here, the handler has it from the kernel.
 *
 *	struct guard g;
 *
 *	if (!guard_begin(&g))
 *		return EMDB_ERR_IO;
 *	... only reads of mapped memory and writes to memory that is given up on failure ...
 *	guard_end(&g);
 *
 * Between the two: no return, no lock taken, nothing allocated, no callback. Locals that change in
 * between and are read after a failure must be volatile: better none. Guards of one thread nest.
 *
 * What lies in a segment may go at any time, also between verifying a record and using it: keys are compared, copied
 * and encoded under a guard (object.c), and what others get is a copy or goes to the kernel, which answers EFAULT.
 * Not done: a handler that puts a page of zeros where an access failed, and marks the segment so that
 * whoever used it finds out. The kernel copies replies from the mapping by itself, after the last look at such a
 * mark, and the mapping is everybody's: zeros would go out as a file's bytes.
 *
 * Thread-safety: a guard belongs to one thread. State of the process, the one exception to "no
 * globals" besides the allocator: the handler itself, installed once and never taken away, because
 * nobody can tell whether a later one has been chained behind it.
 */
#ifndef EMDB_GUARD_H
#define EMDB_GUARD_H

#include <setjmp.h>
#include <stdatomic.h>

#include "core/base.h"

struct guard {
	sigjmp_buf env;
	struct guard *prev;
};

/* The innermost guard of this thread. Only for the functions below. */
extern _Thread_local struct guard *guard_top __attribute__((tls_model("initial-exec")));

/* Installs the handler; every later call does nothing. 0 or a negative errno. */
int guard_install(void) EMDB_MUST_CHECK;

static inline void guard_push(struct guard *g)
{
	g->prev = guard_top;
	guard_top = g;
}

/*
 * A macro because the frame that calls sigsetjmp must live on. That call is opaque to the compiler,
 * so no later access moves before it and guard_top is stored by then.
 */
#define guard_begin(g) (guard_push(g), sigsetjmp((g)->env, 0) == 0)

static inline void guard_end(struct guard *g)
{
	/* Loads of mapped memory stay before the store that ends the protection. */
	atomic_signal_fence(memory_order_seq_cst);
	guard_top = g->prev;
}

#endif
