/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/fs.h"

_Thread_local struct fs *fs_view;
