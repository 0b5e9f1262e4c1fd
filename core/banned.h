/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions that nobody calls here, forced into every file of core/, fuse/ and tools/ by the
 * Makefile. Their headers come first, because a macro reaches declarations too.
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

#undef strcpy
#define strcpy(...) strcpy_is_banned_here
#undef strcat
#define strcat(...) strcat_is_banned_here
#undef strncpy
#define strncpy(...) strncpy_is_banned_here
#undef strncat
#define strncat(...) strncat_is_banned_here
#undef sprintf
#define sprintf(...) sprintf_is_banned_here
#undef vsprintf
#define vsprintf(...) vsprintf_is_banned_here
#undef strtok
#define strtok(...) strtok_is_banned_here
#undef localtime
#define localtime(...) localtime_is_banned_here
#undef gmtime
#define gmtime(...) gmtime_is_banned_here
#undef ctime
#define ctime(...) ctime_is_banned_here
#undef asctime
#define asctime(...) asctime_is_banned_here
#undef ctime_r
#define ctime_r(...) ctime_r_is_banned_here
#undef asctime_r
#define asctime_r(...) asctime_r_is_banned_here
#undef atoi
#define atoi(...) atoi_is_banned_here
#undef atol
#define atol(...) atol_is_banned_here
#undef atoll
#define atoll(...) atoll_is_banned_here
#undef atof
#define atof(...) atof_is_banned_here
#undef tmpnam
#define tmpnam(...) tmpnam_is_banned_here
#undef mktemp
#define mktemp(...) mktemp_is_banned_here

#endif
