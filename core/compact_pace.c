/* SPDX-License-Identifier: Apache-2.0 */
#include "core/compact_pace.h"

#include "core/base.h"

/* Operations in PACE_QUIET_NS that are nobody at work: a few of the background's, or of a person's. */
#define QUIET_OPS 16u
/* And in the short rests of quiet times, taken together. */
#define REST_OPS 2u
/* Work and rest while nobody else works, and work beside others. */
#define QUIET_PIECE_NS UINT64_C(10000000)
#define QUIET_REST_NS  UINT64_C(500000)
#define PIECE_NS       UINT64_C(4000000)
#define AGED_DUTY      (PACE_FULL / 16)

static void window_restart(struct compact_pace *p, uint64_t now_ns, uint64_t ops)
{
	p->window_ns = now_ns;
	p->window_ops = ops;
}

/* Does anybody work?  A whole window says yes or no; before its end only a yes is certain. */
static void look(struct compact_pace *p, uint64_t now_ns, uint64_t ops)
{
	const uint64_t ns = now_ns - p->window_ns, n = ops - p->window_ops;

	if (ns >= PACE_QUIET_NS)
		p->quiet = n <= QUIET_OPS * (ns / PACE_QUIET_NS);
	else if (n > (p->quiet ? REST_OPS : QUIET_OPS))
		p->quiet = false;
	else
		return;
	window_restart(p, now_ns, ops);
}

static uint64_t limit_of(const struct compact_pace *p, const struct compact_sight *s)
{
	uint64_t limit = max_u64(s->live, PACE_LEAST_SEGMENTS * s->segment);

	if (s->memory)
		limit = max_u64(s->live / 4, s->segment);
	if (p->option)
		limit = p->option;
	return s->memory ? limit : min_u64(limit, s->avail / 4);
}

static unsigned int duty_above(uint64_t over, uint64_t limit)
{
	const uint64_t ramp = limit / 4;

	if (over >= ramp)
		return PACE_FULL;
	return (unsigned int)max_u64(over / (ramp / PACE_FULL + 1), AGED_DUTY);
}

bool compact_pace_begin(struct compact_pace *p, const struct compact_sight *s)
{
	look(p, s->now_ns, s->ops);
	if (!p->since_ns)
		p->since_ns = s->now_ns;
	p->limit = limit_of(p, s);
	p->duty = PACE_FULL;
	if (s->low_space || (!s->memory && s->avail < PACE_TIGHT_SEGMENTS * s->segment)) {
		p->state = EMDB_COMPACT_TIGHT;
	} else if (p->quiet) {
		p->state = EMDB_COMPACT_QUIET;
	} else if (s->garbage > p->limit) {
		p->state = EMDB_COMPACT_LIMIT;
		p->duty = duty_above(s->garbage - p->limit, p->limit);
	} else if (s->now_ns - p->since_ns >= PACE_AGED_NS) {
		p->state = EMDB_COMPACT_AGED;
		p->duty = AGED_DUTY;
	} else {
		p->state = EMDB_COMPACT_WAITS;
		p->duty = 0;
		return false;
	}
	p->work_ns = s->now_ns;
	p->work_ops = s->ops;
	return true;
}

uint64_t compact_pace_piece(const struct compact_pace *p)
{
	return p->state == EMDB_COMPACT_QUIET ? QUIET_PIECE_NS : PIECE_NS;
}

uint64_t compact_pace_end(struct compact_pace *p, uint64_t now_ns, uint64_t ops, uint64_t others)
{
	const uint64_t worked = now_ns - p->work_ns;

	/* What was pinned meanwhile was pinned by the work: that time does not count. */
	p->window_ns += worked;
	p->window_ops += ops - p->work_ops;
	if (others > REST_OPS) {
		p->quiet = false;
		window_restart(p, now_ns, ops);
	}
	if (p->state == EMDB_COMPACT_QUIET)
		return QUIET_REST_NS;
	/* A sync or a busy machine can make a piece long: garbage grows meanwhile, so not for as long as that. */
	return p->duty ? min_u64(worked * (PACE_FULL - p->duty) / p->duty, PACE_QUIET_NS) : 0;
}

void compact_pace_nothing(struct compact_pace *p, const struct compact_sight *s)
{
	look(p, s->now_ns, s->ops);
	p->limit = limit_of(p, s);
	p->since_ns = 0;
	p->duty = 0;
	p->state = EMDB_COMPACT_RESTS;
}
