/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/served.h"

#include <inttypes.h>
#include <stdio.h>

#include "tools/text.h"

struct served {
	const struct cli *cli;
	bool first; /* no counter was printed yet */
};

/* The time within which that share of the requests was answered, us; an upper bound. */
static uint64_t quantile_us(const struct store_counter *c, unsigned int percent)
{
	uint64_t seen = 0, total = 0, wanted;
	size_t i;

	for (i = 0; i < c->bucket_count; i++)
		total += c->buckets[i];
	wanted = total - total / 100 * (100 - percent) - total % 100 * (100 - percent) / 100;
	for (i = 0; i < c->bucket_count; i++) {
		seen += c->buckets[i];
		if (seen >= wanted)
			break;
	}
	return UINT64_C(1) << (i < 63 ? i : 63);
}

static uint64_t mean_ns(const struct store_counter *c)
{
	return c->calls ? c->ns_total / c->calls : 0;
}

/* ---- JSON ---- */

static void transport_json(void *ctx, bool over_uring)
{
	const struct served *const served = ctx;

	out_str(served->cli->out, over_uring ? ",\"transport\":\"io_uring\",\"requests\":{"
					     : ",\"transport\":\"device\",\"requests\":{");
}

static void counter_json(void *ctx, const struct store_counter *c)
{
	struct served *const served = ctx;
	struct out *const out = served->cli->out;
	size_t i, used = c->bucket_count;
	bool first = true;

	if (!c->calls)
		return;
	while (used && !c->buckets[used - 1])
		used--;
	out_str(out, served->first ? "" : ",");
	served->first = false;
	out_json_string(out, c->name, c->name_len);
	out_str(out, ":{");
	out_json_u64(out, &first, "calls", c->calls);
	out_json_u64(out, &first, "mean_ns", mean_ns(c));
	out_json_u64(out, &first, "p50_us", quantile_us(c, 50));
	out_json_u64(out, &first, "p99_us", quantile_us(c, 99));
	out_json_name(out, &first, "histogram");
	out_str(out, "[");
	for (i = 0; i < used; i++)
		out_printf(out, "%s%" PRIu64, i ? "," : "", c->buckets[i]);
	out_str(out, "]}");
}

/* What compaction does or waits for, by enum emdb_compact_state. */
static const struct {
	const char *name, *text;
} compact_states[] = {
	[EMDB_COMPACT_RESTS] = { "rests", "has nothing to do" },
	[EMDB_COMPACT_WAITS] = { "waits", "waits until nobody works" },
	[EMDB_COMPACT_QUIET] = { "quiet", "works, as nobody else does" },
	[EMDB_COMPACT_AGED] = { "aged", "works a little, having waited for long" },
	[EMDB_COMPACT_LIMIT] = { "limit", "works: more garbage than may wait" },
	[EMDB_COMPACT_TIGHT] = { "tight", "works: hardly any room on the disk" },
};

static size_t compact_state(const struct emdb_stats *s)
{
	const size_t n = sizeof(compact_states) / sizeof(compact_states[0]);

	return s->compact_state < n ? (size_t)s->compact_state : EMDB_COMPACT_RESTS;
}

static void compaction_json(struct out *out, const struct emdb_stats *s)
{
	bool first = true;

	out_str(out, ",\"compaction\":{");
	out_json_str(out, &first, "state", compact_states[compact_state(s)].name);
	out_json_u64(out, &first, "garbage_bytes", s->reclaimable_bytes);
	out_json_u64(out, &first, "limit_bytes", s->compact_limit_bytes);
	out_json_u64(out, &first, "copied_bytes", s->compacted_bytes);
	out_json_u64(out, &first, "segments", s->compactions);
	out_str(out, "}");
}

/* The options that the daemon opened the store with. */
static void options_json(struct out *out, const struct emdb_stats *s)
{
	bool first = true;

	out_str(out, ",\"options\":{");
	out_json_u64(out, &first, "commit_interval_s", s->commit_interval_s);
	out_json_u64(out, &first, "sweep_interval_ms", s->sweep_interval_ms);
	out_json_u64(out, &first, "default_ttl_ms", s->default_ttl_ms);
	out_json_u64(out, &first, "compact_percent", s->compact_percent);
	out_json_u64(out, &first, "compact_rate", s->compact_rate);
	out_json_bool(out, &first, "write_through", s->flush_policy == EMDB_FLUSH_WRITE_THROUGH);
	out_json_bool(out, &first, "ordered", s->ordered);
	out_str(out, "}");
}

static emdb_err print_json(const struct cli *cli, struct store *store,
			   const struct emdb_stats *stats)
{
	struct served served = { .cli = cli, .first = true };
	struct out *const out = cli->out;
	bool first = true;
	emdb_err err;
	size_t i;

	out_str(out, ",\"served\":{");
	out_json_i64(out, &first, "pid", store_served_by(store));
	out_json_u64(out, &first, "appends", stats->appends);
	out_json_u64(out, &first, "flushes", stats->flushes);
	out_json_u64(out, &first, "syncs", stats->syncs);
	out_json_u64(out, &first, "expired", stats->expired);
	out_json_name(out, &first, "sync_groups");
	out_str(out, "[");
	for (i = 0; i < EMDB_GROUP_BUCKETS; i++)
		out_printf(out, "%s%" PRIu64, i ? "," : "", stats->group_size[i]);
	out_str(out, "]");
	options_json(out, stats);
	compaction_json(out, stats);
	err = store_counters(store, transport_json, counter_json, &served);
	out_str(out, "}}");
	return err;
}

/* ---- Text ---- */

static void transport_text(void *ctx, bool over_uring)
{
	const struct served *const served = ctx;

	out_printf(served->cli->out, "%-26s %s\n", "requests come through",
		   over_uring ? "io_uring" : "/dev/fuse");
}

static void counter_text(void *ctx, const struct store_counter *c)
{
	struct served *const served = ctx;
	char name[25];

	if (!c->calls)
		return;
	if (served->first)
		out_printf(served->cli->out, "%-26s %12s %10s %8s %8s\n", "requests", "calls",
			   "mean us", "p50 us", "p99 us");
	served->first = false;
	(void)snprintf(name, sizeof(name), "%.*s", (int)c->name_len, c->name);
	out_printf(served->cli->out,
		   "  %-24s %12" PRIu64 " %8" PRIu64 ".%01u %8" PRIu64 " %8" PRIu64 "\n", name,
		   c->calls, mean_ns(c) / 1000, (unsigned int)(mean_ns(c) % 1000 / 100),
		   quantile_us(c, 50), quantile_us(c, 99));
}

/* An interval or a lifetime, of which 0 is never. */
static void option_text(struct out *out, const char *name, uint64_t ms)
{
	char span[TEXT_SPAN_SIZE];

	out_printf(out, "%-26s %s\n", name, ms ? text_span((int64_t)ms, span) : "never");
}

static emdb_err print_text(const struct cli *cli, struct store *store,
			   const struct emdb_stats *stats)
{
	struct served served = { .cli = cli, .first = true };
	struct out *const out = cli->out;
	size_t i, used = EMDB_GROUP_BUCKETS;

	while (used && !stats->group_size[used - 1])
		used--;
	out_printf(out, "%-26s %" PRId64 "\n", "served by process", store_served_by(store));
	option_text(out, "  commits every", stats->commit_interval_s * 1000);
	option_text(out, "  sweeps every", stats->sweep_interval_ms);
	option_text(out, "  new files expire after", stats->default_ttl_ms);
	out_printf(out, "%-26s %s\n", "compaction", compact_states[compact_state(stats)].text);
	out_printf(out, "%-26s %" PRIu64 "\n", "  garbage, bytes", stats->reclaimable_bytes);
	out_printf(out, "%-26s %" PRIu64 "\n", "  of which may wait", stats->compact_limit_bytes);
	out_printf(out, "%-26s %" PRIu64 "\n", "frames written", stats->appends);
	out_printf(out, "%-26s %" PRIu64 "\n", "expired", stats->expired);
	out_printf(out, "%-26s %" PRIu64 "\n", "flushes", stats->flushes);
	out_printf(out, "%-26s %" PRIu64 "\n", "syncs", stats->syncs);
	if (used)
		out_printf(out, "%-26s", "  for 1, 2, 4, 8.. flushes");
	for (i = 0; i < used; i++)
		out_printf(out, " %" PRIu64, stats->group_size[i]);
	out_str(out, used ? "\n" : "");
	return store_counters(store, transport_text, counter_text, &served);
}

emdb_err served_print(const struct cli *cli, struct store *store, const struct emdb_stats *stats)
{
	return (cli->json ? print_json : print_text)(cli, store, stats);
}
