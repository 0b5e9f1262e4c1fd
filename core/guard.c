/* SPDX-License-Identifier: Apache-2.0 */
#include "core/guard.h"

#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

_Thread_local struct guard *guard_top __attribute__((tls_model("initial-exec")));

static struct sigaction previous; /* written once, before the handler can run */
static int install_err;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Hands the signal on; without a handler before us the default action ends the process. */
static void chain(int sig, siginfo_t *info, void *context)
{
	if (previous.sa_flags & SA_SIGINFO) {
		previous.sa_sigaction(sig, info, context);
	} else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
		previous.sa_handler(sig);
	} else {
		/* The faulting instruction runs again and finds the default action. */
		struct sigaction dfl = { .sa_handler = SIG_DFL };

		(void)sigaction(sig, &dfl, NULL);
		if (info->si_code <= 0) /* sent by kill(), nothing will fault again */
			(void)raise(sig);
	}
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	struct guard *const g = guard_top;

	/* si_code <= 0: sent by a process, not raised by an access of this thread. */
	if (!g || info->si_code <= 0) {
		chain(sig, info, context);
		return;
	}
	guard_top = g->prev;
	/* As at the fault: what the handler's installation blocks must not stay blocked. */
	(void)pthread_sigmask(SIG_SETMASK, &((const ucontext_t *)context)->uc_sigmask, NULL);
	siglongjmp(g->env, 1);
}

static void install(void)
{
	struct sigaction sa = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };

	(void)sigemptyset(&sa.sa_mask);
	if (sigaction(SIGBUS, NULL, &previous) < 0 || sigaction(SIGBUS, &sa, NULL) < 0)
		install_err = -errno;
}

int guard_install(void)
{
	const int err = pthread_once(&once, install);

	return err ? -err : install_err;
}
