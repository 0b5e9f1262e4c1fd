/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "fuse/control_ops.h"
#include "fuse/log.h"

/* How long a new connection waits for an evicted one to leave, ms. */
#define EVICT_MS 2000
#define BACKLOG  16
/* Between attempts to accept while the process is out of descriptors, ms. */
#define RETRY_MS 100
/* At the end: how long a client may go on, and be silent meanwhile; how often that is looked at. */
#define DRAIN_MS      1000
#define DRAIN_IDLE_MS 100
#define DRAIN_STEP_MS 5

enum slot_state { SLOT_FREE, SLOT_RUNNING, SLOT_FINISHED };

struct connection {
	struct control *control; /* immutable */
	pthread_t thread;        /* only used by the listening and the stopping thread */
	enum slot_state state;   /* guarded by lock */
	int fd;                  /* guarded by lock for changing it; -1: closed */
	uint64_t idle_since_ms;  /* guarded by lock; 0: busy */
};

struct control {
	struct fs *fs;          /* immutable */
	const char *mountpoint; /* immutable; the caller's */
	uid_t owner;            /* immutable; of the store */
	int dir, listener;      /* immutable */
	pthread_t thread;       /* immutable */
	pthread_mutex_t lock;
	pthread_cond_t left; /* a connection finished */
	bool stop;           /* guarded by lock */
	struct connection connections[CONTROL_CONNECTIONS_MAX];
};

static uint64_t now_ms(void)
{
	return counters_now() / 1000000 + 1;
}

/* ---- Bytes ---- */

/* Waits for the socket until the deadline; false: too late, or the connection is over. */
static bool wait_for(int fd, short events, uint64_t deadline_ms)
{
	struct pollfd p = { .fd = fd, .events = events };

	for (;;) {
		const uint64_t now = now_ms();
		int n;

		if (now >= deadline_ms)
			return false;
		n = poll(&p, 1, (int)(deadline_ms - now));
		if (n == 1)
			return true;
		if (n == -1 && errno != EINTR)
			return false;
	}
}

static bool again(void)
{
	return errno == EINTR || errno == EAGAIN;
}

static bool receive(int fd, uint8_t *p, size_t n, uint64_t deadline_ms)
{
	while (n > 0) {
		ssize_t done;

		if (!wait_for(fd, POLLIN, deadline_ms))
			return false;
		done = recv(fd, p, n, MSG_DONTWAIT);
		if (done == -1 && again())
			continue;
		if (done <= 0)
			return false;
		p += done;
		n -= (size_t)done;
	}
	return true;
}

static bool transmit(int fd, const uint8_t *p, size_t n)
{
	const uint64_t deadline_ms = now_ms() + CONTROL_SLOW_MS;

	while (n > 0) {
		ssize_t done;

		if (!wait_for(fd, POLLOUT, deadline_ms))
			return false;
		done = send(fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (done == -1 && again())
			continue;
		if (done <= 0)
			return false;
		p += done;
		n -= (size_t)done;
	}
	return true;
}

/* Waits for the next message for as long as it takes. */
static bool wait_idle(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int n;

	do {
		n = poll(&p, 1, -1);
	} while (n == -1 && errno == EINTR);
	return n == 1;
}

/* ---- One connection ---- */

/* What a message is made of while it is read and answered. */
struct exchange {
	uint8_t *in;
	size_t in_cap;
	struct ctl_buf out;
};

static bool send_error(int fd, struct ctl_buf *out, uint8_t op, emdb_err err, const char *remark)
{
	const struct ctl_msg m = { .op = op, .err = err, .str = { { remark, strlen(remark) } } };

	return ctl_encode(out, CTL_ANSWER, &m) && transmit(fd, out->data, out->len);
}

static bool reserve_in(struct exchange *x, size_t n)
{
	uint8_t *p;

	if (n <= x->in_cap)
		return true;
	p = realloc(x->in, n);
	if (p == NULL)
		return false;
	x->in = p;
	x->in_cap = n;
	return true;
}

/* Reads one message; false: the connection is of no more use. */
static bool read_message(int fd, struct exchange *x, struct ctl_msg *ret)
{
	const uint64_t deadline_ms = now_ms() + CONTROL_SLOW_MS;
	unsigned int version = 0;
	size_t rest;

	if (!reserve_in(x, CTL_HEADER) || !receive(fd, x->in, CTL_HEADER, deadline_ms))
		return false;
	if (!ctl_parse_header(x->in, &rest, &version)) {
		if (version != CTL_VERSION)
			(void)send_error(fd, &x->out, CTL_HELLO, EMDB_ERR_VERSION,
					 "the daemon speaks another version of the protocol");
		return false;
	}
	if (!reserve_in(x, CTL_HEADER + rest) ||
	    !receive(fd, x->in + CTL_HEADER, rest, deadline_ms))
		return false;
	if (ctl_decode(x->in, CTL_HEADER + rest, CTL_REQUEST, ret))
		return true;
	(void)send_error(fd, &x->out, CTL_HELLO, EMDB_ERR_INVAL, "the message makes no sense");
	return false;
}

static void set_idle(struct connection *con, bool idle)
{
	(void)pthread_mutex_lock(&con->control->lock);
	con->idle_since_ms = idle ? now_ms() : 0;
	(void)pthread_mutex_unlock(&con->control->lock);
}

/* Where control_answer() sends what comes before an answer. */
struct telling {
	int fd;
	struct ctl_buf out;
};

static bool tell(void *ctx, const struct ctl_msg *answer)
{
	struct telling *t = ctx;

	return ctl_encode(&t->out, CTL_ANSWER, answer) && transmit(t->fd, t->out.data, t->out.len);
}

static void converse(struct connection *con, struct exchange *x, struct control_client *cl)
{
	const int fd = con->fd;
	struct ctl_msg request, answer;

	for (;;) {
		set_idle(con, true);
		if (!wait_idle(fd))
			return;
		set_idle(con, false);
		if (!read_message(fd, x, &request))
			return;
		control_answer(cl, &request, &answer);
		if (!ctl_encode(&x->out, CTL_ANSWER, &answer)) {
			(void)send_error(fd, &x->out, request.op, EMDB_ERR_NOMEM, "");
			return;
		}
		if (!transmit(fd, x->out.data, x->out.len))
			return;
	}
}

/* Somebody still waits for the answer, and the mount is not about to go. */
static bool is_wanted(void *ctx)
{
	const struct connection *con = ctx;
	struct control *c = con->control;
	struct pollfd p = { .fd = con->fd, .events = POLLRDHUP };
	bool stop;

	(void)pthread_mutex_lock(&c->lock);
	stop = c->stop;
	(void)pthread_mutex_unlock(&c->lock);
	return !stop && !atomic_load_explicit(&c->fs->ending, memory_order_relaxed) &&
	       poll(&p, 1, 0) == 0;
}

static void *connection_main(void *arg)
{
	struct connection *con = arg;
	struct control *c = con->control;
	struct telling telling = { .fd = con->fd, .out = CTL_BUF_INIT };
	struct control_client cl = {
		.fs = c->fs,
		.mountpoint = c->mountpoint,
		.wanted = is_wanted,
		.wanted_ctx = con,
		.tell = tell,
		.tell_ctx = &telling,
	};
	struct exchange x = { .in = NULL, .out = CTL_BUF_INIT };

	converse(con, &x, &cl);
	control_client_release(&cl);
	ctl_buf_release(&telling.out);
	ctl_buf_release(&x.out);
	free(x.in);
	(void)pthread_mutex_lock(&c->lock);
	(void)close(con->fd);
	con->fd = -1;
	con->state = SLOT_FINISHED;
	(void)pthread_cond_broadcast(&c->left);
	(void)pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* ---- Accepting ---- */

static struct connection *find_slot_locked(struct control *c)
{
	for (size_t i = 0; i < CONTROL_CONNECTIONS_MAX; i++) {
		struct connection *con = &c->connections[i];

		if (con->state == SLOT_FINISHED) {
			/* It has nothing left to do that takes the lock. */
			(void)pthread_join(con->thread, NULL);
			con->state = SLOT_FREE;
		}
		if (con->state == SLOT_FREE)
			return con;
	}
	return NULL;
}

/* Ends the connection that has been silent longest; false: all have work to do. */
static bool evict_locked(struct control *c)
{
	const uint64_t now = now_ms();
	struct connection *silent = NULL;

	for (size_t i = 0; i < CONTROL_CONNECTIONS_MAX; i++) {
		struct connection *con = &c->connections[i];

		if (con->state != SLOT_RUNNING || con->idle_since_ms == 0 ||
		    con->idle_since_ms + CONTROL_IDLE_MS > now)
			continue;
		if (silent == NULL || con->idle_since_ms < silent->idle_since_ms)
			silent = con;
	}
	if (silent == NULL)
		return false;
	(void)shutdown(silent->fd, SHUT_RDWR);
	return true;
}

static void deadline_in(int ms, struct timespec *ret)
{
	(void)clock_gettime(CLOCK_REALTIME, ret);
	ret->tv_sec += ms / 1000;
	ret->tv_nsec += (long)(ms % 1000) * 1000000;
	if (ret->tv_nsec >= 1000000000) {
		ret->tv_nsec -= 1000000000;
		ret->tv_sec++;
	}
}

/* A place for a new connection, if need be that of another; NULL: there is none. */
static struct connection *take_slot_locked(struct control *c)
{
	struct connection *con = find_slot_locked(c);
	struct timespec until;
	int err = 0;

	if (con != NULL || c->stop || !evict_locked(c))
		return con;
	deadline_in(EVICT_MS, &until);
	while ((con = find_slot_locked(c)) == NULL && !c->stop && err == 0)
		err = pthread_cond_timedwait(&c->left, &c->lock, &until);
	return con;
}

static bool is_allowed(const struct control *c, int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == -1)
		return false;
	if (peer.uid == 0 || peer.uid == c->owner)
		return true;
	log_warn("user %u, process %d, is not allowed to use the control socket",
		 (unsigned int)peer.uid, (int)peer.pid);
	return false;
}

/* Says why and hangs up. */
static void refuse(int fd, emdb_err err, const char *remark)
{
	struct ctl_buf out = CTL_BUF_INIT;

	/* The socket's buffer takes that much at once. */
	(void)send_error(fd, &out, CTL_HELLO, err, remark);
	ctl_buf_release(&out);
	(void)close(fd);
}

static void welcome(struct control *c, int fd)
{
	struct connection *con;

	if (!is_allowed(c, fd)) {
		refuse(fd, EMDB_ERR_PERM, "only the store's owner and root may do that");
		return;
	}
	(void)pthread_mutex_lock(&c->lock);
	con = take_slot_locked(c);
	if (con != NULL && !c->stop) {
		con->fd = fd;
		con->idle_since_ms = 0;
		if (pthread_create(&con->thread, NULL, connection_main, con) == 0) {
			con->state = SLOT_RUNNING;
			fd = -1;
		}
	}
	(void)pthread_mutex_unlock(&c->lock);
	if (fd != -1)
		refuse(fd, EMDB_ERR_BUSY, "too many connections");
}

static void *control_main(void *arg)
{
	struct control *c = arg;

	for (;;) {
		const int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC);
		bool stop;

		(void)pthread_mutex_lock(&c->lock);
		stop = c->stop;
		(void)pthread_mutex_unlock(&c->lock);
		if (stop) {
			if (fd != -1)
				(void)close(fd);
			return NULL;
		}
		if (fd != -1)
			welcome(c, fd);
		else if (errno != EINTR && errno != ECONNABORTED)
			(void)poll(NULL, 0, RETRY_MS);
	}
}

/* ---- Starting and stopping ---- */

/*
 * The path of a socket has 108 bytes: it is reached through the directory's
 * descriptor.  The store's lock is ours, so whoever made a socket that is there
 * is gone.  A socket takes its permissions from the descriptor.
 */
static bool listen_in(struct control *c, const char *store)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct stat st;

	c->dir = open(store, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (c->dir == -1 || fstat(c->dir, &st) == -1)
		return false;
	c->owner = st.st_uid;
	if (unlinkat(c->dir, CTL_SOCKET, 0) == -1 && errno != ENOENT)
		return false;
	c->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->listener == -1 || fchmod(c->listener, 0600) == -1)
		return false;
	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d/" CTL_SOCKET,
		       c->dir);
	return bind(c->listener, (const struct sockaddr *)&addr, sizeof(addr)) == 0 &&
	       listen(c->listener, BACKLOG) == 0;
}

static void control_free(struct control *c)
{
	if (c->listener != -1) {
		(void)close(c->listener);
		(void)unlinkat(c->dir, CTL_SOCKET, 0);
	}
	if (c->dir != -1)
		(void)close(c->dir);
	(void)pthread_mutex_destroy(&c->lock);
	(void)pthread_cond_destroy(&c->left);
	free(c);
}

struct control *control_start(struct fs *fs, const char *store, const char *mountpoint)
{
	struct control *c = calloc(1, sizeof(*c));
	int err;

	if (c == NULL) {
		log_warn("%s: no control socket: out of memory", store);
		return NULL;
	}
	c->fs = fs;
	c->mountpoint = mountpoint;
	c->dir = c->listener = -1;
	(void)pthread_mutex_init(&c->lock, NULL);
	(void)pthread_cond_init(&c->left, NULL);
	for (size_t i = 0; i < CONTROL_CONNECTIONS_MAX; i++)
		c->connections[i] = (struct connection){ .control = c, .fd = -1 };
	err = listen_in(c, store) ? 0 : errno;
	if (err == 0)
		err = pthread_create(&c->thread, NULL, control_main, c);
	if (err == 0)
		return c;
	log_warn("%s: no control socket: %s", store, strerror(err));
	control_free(c);
	return NULL;
}

/* Nobody else is let in, and work that takes long gives up. */
static void close_door(struct control *c)
{
	(void)unlinkat(c->dir, CTL_SOCKET, 0);
	(void)pthread_mutex_lock(&c->lock);
	c->stop = true;
	(void)pthread_cond_broadcast(&c->left);
	(void)pthread_mutex_unlock(&c->lock);
	(void)shutdown(c->listener, SHUT_RDWR);
	(void)pthread_join(c->thread, NULL);
}

/*
 * Hangs up on those who have been silent for that long; returns how many others
 * there are.  The sockets are closed by whom they belong to.
 */
static unsigned int hang_up(struct control *c, uint64_t idle_ms)
{
	unsigned int busy = 0;

	(void)pthread_mutex_lock(&c->lock);
	for (size_t i = 0; i < CONTROL_CONNECTIONS_MAX; i++) {
		const struct connection *con = &c->connections[i];
		const uint64_t since = con->idle_since_ms;

		if (con->state != SLOT_RUNNING)
			continue;
		if (idle_ms == 0 || (since != 0 && since + idle_ms <= now_ms()))
			(void)shutdown(con->fd, SHUT_RDWR);
		else
			busy++;
	}
	(void)pthread_mutex_unlock(&c->lock);
	return busy;
}

/* A command that is between two of its requests may finish. */
static void drain(struct control *c)
{
	const uint64_t end_ms = now_ms() + DRAIN_MS;

	while (hang_up(c, DRAIN_IDLE_MS) > 0 && now_ms() < end_ms)
		(void)poll(NULL, 0, DRAIN_STEP_MS);
	(void)hang_up(c, 0);
}

void control_stop(struct control *c)
{
	if (c == NULL)
		return;
	close_door(c);
	drain(c);
	/* Nobody takes a slot any more; those that are taken only finish. */
	for (size_t i = 0; i < CONTROL_CONNECTIONS_MAX; i++) {
		bool used;

		(void)pthread_mutex_lock(&c->lock);
		used = c->connections[i].state != SLOT_FREE;
		(void)pthread_mutex_unlock(&c->lock);
		if (used)
			(void)pthread_join(c->connections[i].thread, NULL);
	}
	control_free(c);
}
