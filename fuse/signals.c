/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/signals.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "fuse/log.h"

static void make_set(sigset_t *set)
{
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2 };

	(void)sigemptyset(set);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		(void)sigaddset(set, signals[i]);
}

static void log_status(struct signals *s)
{
	char text[1000];

	(void)pthread_mutex_lock(&s->lock);
	if (s->phase == SIGNALS_SERVING) {
		fs_status(s->session->fs, text, sizeof(text));
		log_info("%s", text);
	}
	(void)pthread_mutex_unlock(&s->lock);
}

/* The phase that a signal meets, once it is clear what to do. */
static enum signals_phase phase_of(struct signals *s)
{
	enum signals_phase phase;

	(void)pthread_mutex_lock(&s->lock);
	while (s->phase == SIGNALS_MOUNTING)
		(void)pthread_cond_wait(&s->changed, &s->lock);
	phase = s->phase;
	/* The lock is kept: mounting must not begin between looking and exiting. */
	if (phase == SIGNALS_OPENING) {
		log_error("interrupted while opening the store");
		_exit(1);
	}
	(void)pthread_mutex_unlock(&s->lock);
	return phase;
}

/* SIGUSR2 is from signals_stop(), or means nothing. */
static bool is_leaving(struct signals *s)
{
	bool leaving;

	(void)pthread_mutex_lock(&s->lock);
	leaving = s->phase == SIGNALS_LEAVING;
	(void)pthread_mutex_unlock(&s->lock);
	return leaving;
}

static void *signals_main(void *arg)
{
	struct signals *s = arg;
	bool ended = false, leaving = false;
	sigset_t set;

	make_set(&set);
	while (!leaving) {
		int sig;

		if (sigwait(&set, &sig) != 0)
			continue;
		if (sig == SIGUSR1) {
			log_status(s);
		} else if (sig == SIGUSR2) {
			leaving = is_leaving(s);
		} else if (phase_of(s) == SIGNALS_SERVING && !ended) {
			log_info("%s: unmounting", strsignal(sig));
			session_end(s->session);
			ended = true;
		}
	}
	return NULL;
}

int signals_start(struct signals *s, struct session *session)
{
	sigset_t set;

	make_set(&set);
	(void)pthread_sigmask(SIG_BLOCK, &set, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	s->session = session;
	s->phase = SIGNALS_OPENING;
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->changed, NULL);
	return pthread_create(&s->thread, NULL, signals_main, s);
}

void signals_enter(struct signals *s, enum signals_phase phase)
{
	(void)pthread_mutex_lock(&s->lock);
	s->phase = phase;
	(void)pthread_cond_broadcast(&s->changed);
	(void)pthread_mutex_unlock(&s->lock);
}

void signals_stop(struct signals *s)
{
	signals_enter(s, SIGNALS_LEAVING);
	(void)pthread_kill(s->thread, SIGUSR2);
	(void)pthread_join(s->thread, NULL);
	(void)pthread_mutex_destroy(&s->lock);
	(void)pthread_cond_destroy(&s->changed);
}
