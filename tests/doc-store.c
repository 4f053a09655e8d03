/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd-crg-store(5) tells the truth: its tables of offsets are compared with blocks that the
 * encoders made, its costs with the layout, and no member of struct superblock is missing there.
 */
#include <config.h>

#include <stdio.h>

#include "common/claim.h"
#include "common/crc32c.h"
#include "common/super.h"
#include "tests/tap.h"

#define MAX_ROWS 64

struct row {
  unsigned offset, length;
  char field[32];
};

static char line[4096];

static FILE *
source (const char *name)
{
  const char *dir = getenv ("CRG_SRC_DIR");
  char path[4096];
  FILE *fp;

  snprintf (path, sizeof path, "%s/%s", dir ? dir : "..", name);
  fp = fopen (path, "r");
  if (!fp) {
    printf ("Bail out! cannot open %s; set CRG_SRC_DIR\n", path);
    exit (1);
  }
  return fp;
}

/* The rows after the line " offset  length  TITLE". */
static unsigned
read_table (const char *title, struct row *rows)
{
  FILE *fp = source ("man/nbd-crg-store.pod");
  char word[32];
  unsigned n = 0;
  bool in = false;

  while (fgets (line, sizeof line, fp) && n < MAX_ROWS) {
    if (in && sscanf (line, " %u %u %31s", &rows[n].offset, &rows[n].length, rows[n].field) == 3)
      n++;
    else if (in)
      break;
    else
      in = sscanf (line, " offset length %31s", word) == 1 && strcmp (word, title) == 0;
  }
  fclose (fp);
  return n;
}

/* Every byte of a block stands in one row. */
static void
check_cover (const char *what, const struct row *rows, unsigned n)
{
  unsigned at = 0, i;

  for (i = 0; i < n && rows[i].offset == at; i++)
    at += rows[i].length;
  ok (n > 0 && i == n && at == META_BLOCK_SIZE, "%s: no gap, no overlap, 4096 bytes", what);
}

static const struct row *
find_row (const struct row *rows, unsigned n, const char *field)
{
  unsigned i;

  for (i = 0; i < n; i++)
    if (strcmp (rows[i].field, field) == 0)
      return &rows[i];
  return NULL;
}

static uint64_t
get_le (const uint8_t *p, unsigned len)
{
  uint64_t v = 0;

  while (len-- > 0)
    v = v << 8 | p[len];
  return v;
}

struct table {
  const uint8_t *block;
  struct row rows[MAX_ROWS];
  unsigned n, named; /* rows that were compared */
};

static void
number (struct table *t, const char *field, unsigned length, uint64_t want)
{
  const struct row *r = find_row (t->rows, t->n, field);

  ok (r && r->length == length && get_le (t->block + r->offset, length) == want,
      "%s is where the page says", field);
  t->named++;
}

static void
bytes (struct table *t, const char *field, unsigned length, const void *want, unsigned want_len)
{
  const struct row *r = find_row (t->rows, t->n, field);

  ok (r && r->length == length && memcmp (t->block + r->offset, want, want_len) == 0
        && is_all_zero (t->block + r->offset + want_len, length - want_len),
      "%s is where the page says", field);
  t->named++;
}

/* All rows were compared, those of zeroes here. */
static void
finish (struct table *t, const char *what)
{
  bool zero = true;
  unsigned i;

  for (i = 0; i < t->n; i++)
    if (strcmp (t->rows[i].field, "zero") == 0) {
      zero = zero && is_all_zero (t->block + t->rows[i].offset, t->rows[i].length);
      t->named++;
    }
  ok (zero, "%s: zero is zero", what);
  is (t->named, t->n, "the table has no row more");
}

static void
superblock (void)
{
  static uint8_t block[META_BLOCK_SIZE];
  struct table t = { .block = block };
  struct superblock sb;
  char member[64], *p;
  unsigned members = 0;
  FILE *fp;

  memset (&sb, 0, sizeof sb);
  sb.sequence = 0x1112131415161718;
  sb.site = 5;
  sb.role = SUPER_ROLE_DETACHED;
  sb.flags = SUPER_F_OPEN | SUPER_F_DIRECT | SUPER_F_EXTERNAL;
  sb.block_size = 2048;
  sb.dirty_block_size = 131072;
  sb.in_set = 0xa5;
  sb.store_bytes = 0x0102030405000;
  sb.data_bytes = 0x010101010102;
  sb.tenure = 0x2122232425262728;
  sb.generation = 0x3132333435363738;
  sb.since = 0x3031323334353637;
  sb.loss = 0x4142434445464748;
  sb.open_session = 0x5152535455565758;
  sb.sealed = SUPER_SEALED_HOT | 0x21;
  sb.resync_rate = 0x7172737475767778;
  sb.meta_bytes = 0x10203045000;
  strcpy (sb.data_identity, "the data");
  strcpy (sb.meta_identity, "the metadata");
  memset (sb.store_id, 0x61, CRG_ID_LEN);
  memset (sb.cluster_id, 0x62, CRG_ID_LEN);
  memset (sb.crg_id, 0x63, CRG_ID_LEN);
  memset (sb.iasp_id, 0x64, CRG_ID_LEN);
  memset (sb.lineage, 0x65, CRG_ID_LEN);
  memset (sb.open_boot_id, 0x66, CRG_ID_LEN);
  strcpy (sb.crg, "the-crg");
  strcpy (sb.iasp, "the-iasp");
  strcpy (sb.site_name, "the-site");
  strcpy (sb.open_node, "the-node");
  super_encode (&sb, 1, block);

  t.n = read_table ("field", t.rows);
  check_cover ("superblock", t.rows, t.n);
  bytes (&t, "magic", 8, "nbd-crg\n", 8);
  number (&t, "major", 2, SUPER_MAJOR);
  number (&t, "minor", 2, SUPER_MINOR);
  number (&t, "slot", 1, 1);
  number (&t, "site", 1, sb.site);
  number (&t, "role", 1, sb.role);
  number (&t, "sequence", 8, sb.sequence);
  number (&t, "flags", 2, sb.flags);
  number (&t, "block_size", 4, sb.block_size);
  number (&t, "dirty_block_size", 4, sb.dirty_block_size);
  number (&t, "in_set", 4, sb.in_set);
  number (&t, "store_bytes", 8, sb.store_bytes);
  number (&t, "data_bytes", 8, sb.data_bytes);
  number (&t, "tenure", 8, sb.tenure);
  number (&t, "generation", 8, sb.generation);
  number (&t, "since", 8, sb.since);
  number (&t, "loss", 8, sb.loss);
  number (&t, "open_session", 8, sb.open_session);
  bytes (&t, "store_id", 16, sb.store_id, CRG_ID_LEN);
  bytes (&t, "cluster_id", 16, sb.cluster_id, CRG_ID_LEN);
  bytes (&t, "crg_id", 16, sb.crg_id, CRG_ID_LEN);
  bytes (&t, "iasp_id", 16, sb.iasp_id, CRG_ID_LEN);
  bytes (&t, "lineage", 16, sb.lineage, CRG_ID_LEN);
  bytes (&t, "open_boot_id", 16, sb.open_boot_id, CRG_ID_LEN);
  bytes (&t, "crg", 64, sb.crg, strlen ("the-crg"));
  bytes (&t, "iasp", 64, sb.iasp, strlen ("the-iasp"));
  bytes (&t, "site_name", 64, sb.site_name, strlen ("the-site"));
  bytes (&t, "open_node", 64, sb.open_node, strlen ("the-node"));
  number (&t, "sealed", 4, 0x121);
  number (&t, "resync_rate", 8, sb.resync_rate);
  number (&t, "meta_bytes", 8, sb.meta_bytes);
  bytes (&t, "data_identity", 128, sb.data_identity, strlen ("the data"));
  bytes (&t, "meta_identity", 128, sb.meta_identity, strlen ("the metadata"));
  number (&t, "crc", 4, crc32c (0, block, META_BLOCK_SIZE - 4));
  finish (&t, "superblock");

  fp = source ("common/super.h");
  while (fgets (line, sizeof line, fp) && strcmp (line, "struct superblock {\n") != 0)
    ;
  while (fgets (line, sizeof line, fp) && line[0] != '}') {
    if (sscanf (line, " %*[a-z0-9_] %63[a-z0-9_]", member) != 1)
      continue;
    p = strchr (line, ';');
    if (!p)
      continue;
    members++;
    ok (find_row (t.rows, t.n, member), "the page has struct superblock's %s", member);
  }
  fclose (fp);
  ok (members >= 25, "found struct superblock");
}

static void
map_block (void)
{
  static uint8_t block[META_BLOCK_SIZE];
  struct meta_block_id id = { .kind = META_BITMAP, .site = 3, .index = 0x1112131415161718 };
  static uint8_t payload[META_BLOCK_PAYLOAD];
  struct table t = { .block = block };
  const struct row *crc;

  memset (id.store_id, 0x61, CRG_ID_LEN);
  memset (payload, 0x77, sizeof payload);
  memcpy (block + META_BLOCK_HEADER, payload, sizeof payload);
  meta_block_seal (block, &id, 0x2122232425262728);
  t.n = read_table ("header", t.rows);
  check_cover ("block of a map", t.rows, t.n);
  bytes (&t, "magic", 4, "CRGM", 4);
  number (&t, "kind", 1, 4);
  number (&t, "site", 1, 3);
  number (&t, "version", 2, 1);
  number (&t, "index", 8, id.index);
  number (&t, "sequence", 8, 0x2122232425262728);
  bytes (&t, "store_id", 16, id.store_id, CRG_ID_LEN);
  bytes (&t, "payload", META_BLOCK_PAYLOAD, payload, sizeof payload);
  crc = find_row (t.rows, t.n, "crc");
  number (&t, "crc", 4,
          crc ? crc32c (crc32c (0, block, crc->offset), block + crc->offset + 4,
                        META_BLOCK_SIZE - crc->offset - 4)
              : 0);
  finish (&t, "block of a map");
  ok (META_WRITTEN == 1 && META_HOT == 2 && META_CLAIM == 3, "kinds");
  ok (META_BLOCK_BITS == 32256 && META_BLOCK_PAYLOAD == 4032, "bits of a block");
}

static void
costs (void)
{
  FILE *fp = source ("man/nbd-crg-store.pod");
  const uint64_t tib = UINT64_C (1) << 40;
  unsigned long long dirty, cost;
  struct meta_layout l;
  unsigned n = 0;
  double percent, want;
  bool in = false;

  while (fgets (line, sizeof line, fp)) {
    if (strncmp (line, " dirty block ", 13) == 0)
      in = true;
    else if (in && sscanf (line, " %llu %llu %lf", &dirty, &cost, &percent) == 3) {
      bool good = meta_layout (tib, (uint32_t) dirty, &l) == 0;

      want = good ? 100.0 * (double) (tib - l.data_bytes) / (double) tib : 0;
      ok (good && tib - l.data_bytes == cost && percent - want < 5.1e-6 && want - percent < 5.1e-6,
          "dirty blocks of %llu cost what the page says", dirty);
      n++;
    }
    else if (in)
      break;
  }
  fclose (fp);
  is (n, 3, "three costs in the page");
  ok (meta_layout (tib, DIRTY_BLOCK_SIZE, &l) == 0 && DIRTY_BLOCK_SIZE == 65536 && l.claims.blocks == 64,
      "the default, and the claims");
  ok (META_MIN_STORE_BYTES == 1 << 20 && STORE_MAX_BYTES == UINT64_C (1) << 60, "smallest and largest");
  is (crc32c (0, "123456789", 9), 0xE3069283, "the CRC of the page's example");
}

static void
claim (void)
{
  static uint8_t block[META_BLOCK_SIZE];
  struct claim_block c = { .node = "n1", .session = 0x3132333435363738 };
  struct table t = { .block = block };
  unsigned at = META_BLOCK_HEADER;
  static const uint8_t store_id[CRG_ID_LEN] = { 1 };

  memset (c.boot_id, 0x62, CRG_ID_LEN);
  claim_encode (&c, 5, store_id, block);
  t.n = read_table ("claim", t.rows);
  for (unsigned i = 0; i < t.n && t.rows[i].offset == at; i++)
    at += t.rows[i].length;
  is (at, META_BLOCK_SIZE, "claim: no gap, no overlap, the payload");
  number (&t, "set", 1, 1);
  number (&t, "session", 8, c.session);
  bytes (&t, "boot_id", 16, c.boot_id, CRG_ID_LEN);
  bytes (&t, "node", 64, c.node, strlen (c.node));
  finish (&t, "claim");
  ok (claim_place (64 + 3) == 3 && META_CLAIMS == 64, "a node's place");
}

int
main (void)
{
  superblock ();
  map_block ();
  claim ();
  costs ();
  return tap_done ();
}
