/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions that nobody calls here, forced into every file of core/, fuse/ and tools/ by the
 * Makefile. Their headers come first, because poisoning reaches declarations too.
 *
 * Instead of                       use
 * strcpy strcat strncpy strncat    memcpy with a checked length, snprintf
 * sprintf vsprintf                 snprintf, vsnprintf
 * strtok                           strtok_r, strcspn
 * localtime gmtime ctime asctime   localtime_r, gmtime_r, strftime
 * atoi atol atoll atof             strtol and friends, with all of their errors checked
 * tmpnam mktemp                    mkstemp
 */
#ifndef EMDB_BANNED_H
#define EMDB_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#pragma GCC poison strcpy strcat strncpy strncat sprintf vsprintf strtok
#pragma GCC poison localtime gmtime ctime asctime ctime_r asctime_r
#pragma GCC poison atoi atol atoll atof tmpnam mktemp

#endif
