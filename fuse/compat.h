/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one place that knows which libfuse this is built against: 3.14 to 3.18.
 *
 * Include it instead of the fuse3 headers.
 */
#ifndef FUSE_COMPAT_H
#define FUSE_COMPAT_H

#include <stdbool.h>
#include <stdint.h>

/* Newer versions say here which they are; the older ones want to be asked for 3.14. */
#if __has_include(<libfuse_config.h>)
#include <libfuse_config.h>
#endif
#if defined(FUSE_MINOR_VERSION) && FUSE_MINOR_VERSION >= 17
#define FUSE_USE_VERSION 317
#else
#define FUSE_USE_VERSION 314
#endif
#include <fuse_lowlevel.h>

#if FUSE_VERSION < FUSE_MAKE_VERSION(3, 14)
#error "libfuse 3.14 or newer is needed"
#endif

#if FUSE_USE_VERSION >= 317
#define COMPAT_FEATURE_FLAGS 1 /* fuse_set_feature_flag() and a 64-bit set of wishes */
#define COMPAT_TMPFILE       1 /* struct fuse_lowlevel_ops has .tmpfile */
#else
#define COMPAT_FEATURE_FLAGS 0
#define COMPAT_TMPFILE       0
#endif

/* Since 3.18 there is .statx, and so the time of birth; and io_uring. */
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
#define COMPAT_STATX 1
#define COMPAT_URING 1 /* requests through io_uring, and fuse_req_get_payload() */
#else
#define COMPAT_STATX 0
#define COMPAT_URING 0
#endif

/*
 * Up to 3.16 libfuse cannot ask the kernel for these two, so the answer to
 * INIT is patched on its way out; see session.c.
 */
#define COMPAT_PATCH_INIT (!COMPAT_FEATURE_FLAGS)

/* Asks for a capability; false when the kernel does not offer it. */
static inline bool compat_want(struct fuse_conn_info *conn, uint64_t cap)
{
#if COMPAT_FEATURE_FLAGS
	return fuse_set_feature_flag(conn, cap);
#else
	if ((conn->capable & cap) == 0)
		return false;
	conn->want |= (unsigned int)cap;
	return true;
#endif
}

/* Turns off what libfuse would ask for by itself. */
static inline void compat_refuse(struct fuse_conn_info *conn, uint64_t cap)
{
#if COMPAT_FEATURE_FLAGS
	fuse_unset_feature_flag(conn, cap);
#else
	conn->want &= ~(unsigned int)cap;
#endif
}

/* Installs own read and write functions on the mounted session; 0 or a negative errno. */
static inline int compat_custom_io(struct fuse_session *se, const struct fuse_custom_io *io, int fd)
{
#if FUSE_USE_VERSION >= 317
	return fuse_session_custom_io(se, io, sizeof(*io), fd);
#else
	return fuse_session_custom_io(se, io, fd);
#endif
}

#endif
