/* SPDX-License-Identifier: BSD-3-Clause */
/* Gives the files that it is told, or all in the directories, to a fuzz target once: for tests/coverage, and for
 * whoever has no clang.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static unsigned
replay (const char *path)
{
  static uint8_t data[1 << 20];
  FILE *fp = fopen (path, "rb");
  uint8_t *exact;
  size_t n;

  if (!fp)
    return 0;
  n = fread (data, 1, sizeof data, fp);
  fclose (fp);
  /* Its end is the end of the memory, for those who look there. */
  exact = malloc (n ? n : 1);
  for (size_t i = 0; exact && i < n; i++)
    exact[i] = data[i];
  if (exact)
    LLVMFuzzerTestOneInput (exact, n);
  free (exact);
  return 1;
}

int
main (int argc, char **argv)
{
  unsigned n = 0;

  for (int i = 1; i < argc; i++) {
    struct dirent *de;
    struct stat st;
    DIR *d;

    if (stat (argv[i], &st) < 0 || !S_ISDIR (st.st_mode)) {
      n += replay (argv[i]);
      continue;
    }
    d = opendir (argv[i]);
    while (d && (de = readdir (d))) {
      char path[4096];

      snprintf (path, sizeof path, "%s/%s", argv[i], de->d_name);
      if (de->d_name[0] != '.')
        n += replay (path);
    }
    if (d)
      closedir (d);
  }
  printf ("%u inputs\n", n);
  return n == 0;
}
