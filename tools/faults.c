/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/faults.h"

#include <string.h>

static const char *damage_name(enum emdb_damage damage)
{
	static const char *const names[] = {
		[EMDB_DAMAGE_PLACE] = "place",       [EMDB_DAMAGE_FILE] = "file",
		[EMDB_DAMAGE_LOST] = "lost",         [EMDB_DAMAGE_RANGE] = "range",
		[EMDB_DAMAGE_META] = "metadata",     [EMDB_DAMAGE_OLDER] = "older",
		[EMDB_DAMAGE_ADRIFT] = "adrift",     [EMDB_DAMAGE_UNKNOWN] = "unknown",
		[EMDB_DAMAGE_SNAPSHOT] = "snapshot",
	};

	return (size_t)damage < sizeof(names) / sizeof(*names) ? names[damage] : "place";
}

void faults_tell(void *ctx, const struct emdb_detail *detail)
{
	const struct faults *const f = ctx;
	struct out *const out = f->cli->out;
	bool first;

	if (f->quiet)
		return;
	if (!f->cli->json) {
		out_name(out, detail->text, strlen(detail->text));
		out_str(out, "\n");
		return;
	}
	out_json_begin(out, &first, "error");
	out_json_str(out, &first, "damage", damage_name(detail->damage));
	if (detail->segment != UINT64_MAX) {
		out_json_u64(out, &first, "segment", detail->segment);
		out_json_u64(out, &first, "offset", detail->offset);
	}
	if (detail->path[0])
		out_json_str(out, &first, "path", detail->path);
	if (detail->damage == EMDB_DAMAGE_RANGE)
		out_json_u64(out, &first, "from", detail->from);
	if (detail->len)
		out_json_u64(out, &first, "length", detail->len);
	out_json_str(out, &first, "message", detail->text);
	out_json_end(out);
}
