/* SPDX-License-Identifier: Apache-2.0 */
/* work_i: what work.c (operations), work_run.c (their order) and work_check.c share. */
#ifndef EMDB_CRASH_WORK_I_H
#define EMDB_CRASH_WORK_I_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/crash/work.h"

#define BASE_MAX   1400000u
#define KEY_ROOM   400
#define XATTR_ROOM 8192

/* From OP_RENAME on with two names, from OP_CLEAR on about directories. */
enum op {
	OP_PUT,
	OP_REMOVE,
	OP_MANY,
	OP_TXN, /* as OP_MANY, in all directories */
	OP_WRITE,
	OP_CUT,
	OP_HOLE,
	OP_CREATE,
	OP_XATTR,
	OP_TTL,
	OP_RENAME,
	OP_EXCHANGE,
	OP_LINK,
	OP_COPY,
	OP_CLEAR,
	OP_DROP,
	OP_MAKE,
	OP_SWAP,
	OP_TOP
};

struct act {
	enum op op;
	int a, b; /* slots; directories from OP_CLEAR on and of OP_MANY */
	enum { SKIP_IT, PUT_IT, REMOVE_IT } many[SLOTS];
	bool durable; /* of OP_TXN */
};

uint8_t *content_room(const struct object *o);
/* Both fill in p, which has room for all, and return how much. */
size_t content_of(const struct object *o, uint8_t *p);
size_t xattr_of(uint64_t seed, uint8_t *p);
uint64_t print_of(const void *p, size_t n);

unsigned int names_of(const struct state *st, int obj);
void state_expire(struct state *st, int64_t now_ms);
void key_of(int slot, char buf[KEY_ROOM]);
emdb_err dir_open(emdb_db *db, int worker, int dir, uint64_t *ret_ns);

/* Chooses an operation and does it to the state. False: not possible, st is spoilt. */
bool plan(struct state *st, struct act *act, uint64_t *rnd);
/* Does it to the store; st is the state afterwards. */
emdb_err perform(emdb_db *db, int worker, const struct act *act, const struct state *st);
void act_describe(int worker, const struct act *act, const struct state *st, char *buf, size_t n);

#endif
