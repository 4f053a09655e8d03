/* SPDX-License-Identifier: BSD-3-Clause */
/* Whether a program may be run: see program.h. */
#include "config.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/program.h"

const char *
program_refusal (const char *path, bool dir)
{
  struct stat st;

  if (stat (path, &st) < 0)
    return errno == ENOENT ? "it is not there" : strerror (errno);
  if (dir ? !S_ISDIR (st.st_mode) : !S_ISREG (st.st_mode))
    return dir ? "it is no directory" : "it is no regular file";
  if (st.st_uid != 0 && st.st_uid != geteuid ())
    return "its owner is neither root nor the user of crgd";
  if (st.st_mode & (S_IWGRP | S_IWOTH))
    return "others than its owner may write to it";
  if (!dir && access (path, X_OK) < 0)
    return "it is not executable";
  return NULL;
}
